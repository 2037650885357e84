"""Names of models that a key is restricted to: one that nobody can ask for is a slip of the pen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from gateway.types.errors import BadRequest


def check_models(names: Sequence[str] | None, known: Collection[str]) -> None:
    """Refuse a restriction to a model that is not there.

    Args:
        names: what a key may use, or None for everything.
        known: models and aliases.

    Raises:
        BadRequest: a name is not known; the near ones are in the message and in the metadata.
    """
    for name in names or ():
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise BadRequest(f"there is no model {name[:128]!r}{hint}", param="models", metadata={"near": near})
