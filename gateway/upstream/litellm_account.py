"""What the calls of a backend of kind litellm are made with, and what of it nobody may be told.

Failure behaviour: what the library would make a mess of is refused as ``Unfit`` before it is asked.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.config.snapshot import BackendSpec
from gateway.upstream.litellm_request import Unfit, told_apart, vertex_place, vertex_places

PATIENCE_S: Final = 3_600.0
"""Seconds that the library may take; the gateway's own limits strike long before."""
_OVERHEARD: Final = frozenset({"bedrock", "gemini", "vertex_ai", "vertex_ai_beta"})
"""Providers whose answers the gateway has to hear itself."""
_UNREADABLE: Final = frozenset({"cohere", "cohere_chat"})
"""Providers whose streams the library cannot read: it looks for the type of an event where they do not say it."""
_CALLED: Final = {"aws_bearer_token_bedrock": "api_key"}
"""Credentials that the library takes as an argument of another name: it would send them on in the body otherwise."""
_KEYED: Final = frozenset({"bedrock"})
"""Providers of which the library takes a key before any account, and looks for the machine's account without one."""


class Account:
    """The owner's account with a provider.

    Args:
        backend: of kind litellm.
    """

    __slots__ = ("_accounts", "_arguments", "_own", "_places", "_provider", "_secrets")

    def __init__(self, backend: BackendSpec) -> None:
        spec = backend.litellm
        assert spec is not None
        self._provider = spec.provider
        held = [*spec.credentials.values(), *([backend.api_key] if backend.api_key is not None else [])]
        self._secrets = told_apart([secret.reveal() for secret in held])
        self._arguments: dict[str, Any] = {
            "custom_llm_provider": spec.provider,
            "num_retries": 0,
            "max_retries": 0,
            "timeout": PATIENCE_S,
            "caching": False,
            "drop_params": True,
            **spec.settings,
            **{_CALLED.get(name, name): secret.reveal() for name, secret in spec.credentials.items()},
        }
        keys = [each.secret for each in backend.api_keys] + ([backend.api_key] if backend.api_key is not None else [])
        self._own = frozenset(secret.reveal() for secret in keys)
        self._accounts = frozenset(spec.credentials)
        self._places = ""
        if spec.own_url:
            self._arguments["api_base"] = backend.url
            if spec.provider.startswith("vertex_ai"):
                self._places = vertex_places(backend)

    @property
    def overheard(self) -> bool:
        """Whether its chats go through a client that hears what the provider says."""
        return self._provider in _OVERHEARD

    def arguments(self, key: str | None, model: str) -> dict[str, Any]:
        """Return the arguments of every call for ``model``; ``key`` is what the request is made with."""
        more: dict[str, Any] = {} if key is None else {"api_key": key}
        if key is not None and key not in self._own and self._provider not in _KEYED:
            # The owner's account must not pay for what is asked with a team's key.
            if self._provider.startswith("vertex_ai"):
                raise Unfit("this provider knows no keys, only accounts", 401)
            return {name: value for name, value in self._arguments.items() if name not in self._accounts} | more
        if self._places:
            more["api_base"] = self._places + vertex_place(model)
        return self._arguments | more

    def check(self, *, stream: bool) -> None:
        """Refuse what the library would make a mess of. Raises ``Unfit``."""
        if stream and self._provider in _UNREADABLE:
            raise Unfit(
                "this backend answers whole and does not stream: the library litellm cannot read Cohere's events; "
                "a backend of kind openai with the profile cohere can"
            )

    def discreet(self, words: str, key: str | None) -> str:
        """Return ``words`` of an error without secrets."""
        for secret in (*self._secrets, key or ""):
            if secret:
                words = words.replace(secret, "…")
        return words
