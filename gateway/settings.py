"""Process settings, read once from the environment.

Nothing else reads the environment, except references to secrets in the configuration file. ``Settings.read``
either returns settings that are valid as a whole or raises ``SettingsError``, which names every variable at
fault, what is wrong with it and the mend; no value is ever part of a message. Text that may hold a secret is
a ``SecretStr``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

ADMIN_KEY_LENGTH: Final = 32
_PEPPER_FILE: Final = "secret"
_SQLITE: Final = "sqlite+aiosqlite:///"
_POSTGRESQL: Final = ("postgresql+asyncpg://", "postgresql://", "postgres://")
_REDIS: Final = ("redis", "rediss", "unix")
_HTTP: Final = ("http", "https")


class SettingsError(Exception):
    """The environment is not usable; the message has a line per variable: name, what is wrong, mend."""


class _RefusedError(ValueError):
    """What is wrong with one value and the mend, on its way through pydantic."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def _not_empty(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise _RefusedError("is set but empty", "give it a value, or unset it")
    return value


def _blank_is_unset(value: object) -> object:
    return None if value == "" else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _header_safe(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text != text.strip() or not text.isprintable():
        raise _RefusedError(
            "has white space at an end or control characters in it",
            "remove them: no caller could send this key",
        )
    return value


def _long_enough(value: SecretStr) -> SecretStr:
    length = len(value.get_secret_value())
    if length < ADMIN_KEY_LENGTH:
        raise _RefusedError(
            f"has {length} characters",
            f"use at least {ADMIN_KEY_LENGTH}, such as from `openssl rand -hex 32`",
        )
    return value


def _database(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith((_SQLITE, *_POSTGRESQL)):
        raise _RefusedError("names no database known here", f"start it with {_SQLITE} or {_POSTGRESQL[0]}")
    return value


def _parts(url: str) -> SplitResult | None:
    """Return the parts of a URL; None when it is none, also when its port is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at only when it is asked for
    except ValueError:
        return None
    return parts


def _redis(value: SecretStr) -> SecretStr:
    parts = _parts(value.get_secret_value())
    if parts is None or parts.scheme not in _REDIS:
        raise _RefusedError("is not a Redis URL", "start it with redis://, rediss:// or unix://, and look at its port")
    return value


def _webhook(value: SecretStr) -> SecretStr:
    parts = _parts(value.get_secret_value())
    if parts is None or parts.scheme not in _HTTP or not parts.hostname or parts.username is not None:
        raise _RefusedError("is not an HTTP URL without credentials", "start it with https://")
    return value


def _collector(value: str) -> str:
    parts = _parts(value)
    if parts is None or parts.scheme not in _HTTP or not parts.hostname:
        raise _RefusedError("is not an HTTP URL", "name an OTLP/HTTP collector, such as http://localhost:4318")
    return value


_FILLED: Final = BeforeValidator(_not_empty)
_LOWER: Final = BeforeValidator(_lower)
_AdminKey = Annotated[SecretStr, AfterValidator(_long_enough), AfterValidator(_header_safe)]
_InferenceKey = Annotated[SecretStr, AfterValidator(_header_safe)]
_DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]
_RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
_AlertUrl = Annotated[SecretStr, AfterValidator(_webhook)]
_CollectorUrl = Annotated[str, AfterValidator(_collector)]
_Seconds = Annotated[float, _FILLED, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Settings(BaseModel):
    """Settings of one process. Durations are seconds, sizes bytes. Immutable; ``repr`` shows no secret."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, populate_by_name=True)

    config: Annotated[Path | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_CONFIG",
        description="Configuration file (YAML) with backends, models and prices.",
    )
    home: Annotated[Path, _FILLED] = Field(
        Path(".weir"),
        validation_alias="WEIR_HOME",
        description="State folder: ledger, journal, the generated secret. Made on first use.",
    )
    database_url: Annotated[_DatabaseUrl | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_DATABASE_URL",
        description=f"Ledger database, `{_SQLITE}PATH` or `{_POSTGRESQL[0]}USER:PASSWORD@HOST/DATABASE`, which several "
        "hosts may share. Unset: the SQLite file `weir.db` in WEIR_HOME.",
    )
    redis_url: Annotated[_RedisUrl | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_REDIS_URL",
        description="Redis for the rate limits of keys across several hosts; unset: each host counts alone.",
    )
    alert_url: Annotated[_AlertUrl | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_ALERT_URL",
        description="Webhook that is told when a budget reaches a share of its limit; the egress rules hold for it. "
        "Unset: alerts are only logged.",
    )
    alert_secret: Annotated[SecretStr | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_ALERT_SECRET",
        description="Key of the HMAC-SHA-256 by which the webhook knows that an alert is from here; needed with "
        "WEIR_ALERT_URL.",
    )
    admin_key: Annotated[_AdminKey | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_ADMIN_KEY",
        description=f"Management key, any text of at least {ADMIN_KEY_LENGTH} characters; "
        "unset: the first start makes one and prints it once.",
    )
    demo_key: Annotated[_InferenceKey | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_DEMO_KEY",
        description="Inference key of the demo, accepted as it is; unset: a random one.",
    )
    secret: Annotated[SecretStr | None, _FILLED] = Field(
        None,
        validation_alias="WEIR_SECRET",
        description="Pepper of key digests and encryption key; hosts that share a database must share it. "
        "Unset: made once in the file `secret` of WEIR_HOME.",
    )
    port: Annotated[int, BeforeValidator(lambda port: 8000 if port == "" else port)] = Field(
        8000,
        ge=0,
        le=65_535,
        validation_alias="PORT",
        description="TCP port to listen on; 0 takes any free one.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _FILLED, _LOWER] = Field(
        "info", validation_alias="WEIR_LOG_LEVEL", description="Least level that is logged."
    )
    log_format: Annotated[Literal["auto", "json", "console"], _FILLED, _LOWER] = Field(
        "auto",
        validation_alias="WEIR_LOG_FORMAT",
        description="Form of the log; `auto` is `console` on a terminal, else `json`.",
    )
    log_requests: Annotated[bool, _FILLED] = Field(
        False,
        validation_alias="WEIR_LOG_REQUESTS",
        description="Whether every answered request gets a line in the log; refused and failed ones always do.",
    )
    otlp_endpoint: Annotated[_CollectorUrl | None, BeforeValidator(_blank_is_unset)] = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OTLP/HTTP collector that gets the traces; unset: tracing is off.",
    )
    durability: Annotated[Literal["disk", "process"], _FILLED, _LOWER] = Field(
        "disk",
        validation_alias="WEIR_DURABILITY",
        description="What the usage of an answer survives once its caller saw the end: `disk` a power cut, "
        "`process` only the death of the process.",
    )
    max_body_bytes: Annotated[int, _FILLED] = Field(
        32 * 1024 * 1024,
        ge=1,
        validation_alias="WEIR_MAX_BODY_BYTES",
        description="Largest request body, in bytes.",
    )
    header_timeout: _Seconds = Field(
        10.0, validation_alias="WEIR_HEADER_TIMEOUT", description="Seconds a caller has for its request head."
    )
    body_timeout: _Seconds = Field(
        60.0,
        validation_alias="WEIR_BODY_TIMEOUT",
        description="Seconds a caller has for each 64 KiB of its request body.",
    )
    write_timeout: _Seconds = Field(
        60.0,
        validation_alias="WEIR_WRITE_TIMEOUT",
        description="Seconds in which a caller that does not keep up with its answer must take at least a byte.",
    )
    grace: _Seconds = Field(
        30.0,
        validation_alias="WEIR_GRACE",
        description="Seconds that running answers get to finish after the process is told to stop.",
    )
    watchdog: Annotated[float, _FILLED] = Field(
        30.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        validation_alias="WEIR_WATCHDOG",
        description="Seconds after which one of several processes that gives no sign of life is killed and started "
        "anew; 0: never, for whoever stops one on purpose.",
    )

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        if self.admin_key is not None and self.admin_key == self.demo_key:
            raise _RefusedError(
                "WEIR_ADMIN_KEY and WEIR_DEMO_KEY are equal",
                "change one: the management key cannot run inference",
            )
        return self

    @model_validator(mode="after")
    def _alerts_signed(self) -> Self:
        if self.alert_url is not None and self.alert_secret is None:
            raise _RefusedError(
                "WEIR_ALERT_URL is set without WEIR_ALERT_SECRET",
                "set a secret, such as from `openssl rand -hex 32`, and tell it to the receiver",
            )
        return self

    @classmethod
    def read(cls) -> Settings:
        """Return the settings of this process's environment.

        Raises:
            SettingsError: a variable is refused; the message lists all of them.
        """
        names = [str(field.validation_alias) for field in cls.model_fields.values()]
        try:
            return cls.model_validate({name: os.environ[name] for name in names if name in os.environ})
        except ValidationError as error:
            # The cause is cut off: pydantic's own report could quote a secret in a traceback.
            raise SettingsError("\n".join(_line(detail) for detail in error.errors())) from None

    @property
    def ledger_url(self) -> SecretStr:
        """URL of the ledger database: the one given, else the SQLite file in the state folder."""
        if self.database_url is not None:
            return self.database_url
        return SecretStr(f"{_SQLITE}{self.home / 'weir.db'}")

    @property
    def tracing(self) -> bool:
        """Whether spans are exported."""
        return self.otlp_endpoint is not None

    def obtain_secret(self) -> SecretStr:
        """Return the secret: WEIR_SECRET, else the one kept in the state folder, made there when missing.

        Safe when several processes start at once: all get the same secret.

        Raises:
            SettingsError: the file is empty, others may use it, or it can be neither read nor made.
        """
        if self.secret is not None:
            return self.secret
        path = self.home / _PEPPER_FILE
        try:
            if not path.exists():
                _make_secret(path)
            return _kept_secret(path)
        except OSError as error:
            reason = error.strerror
        except UnicodeDecodeError:
            reason = "not UTF-8"
        raise SettingsError(
            f"WEIR_SECRET: unset, and {path} cannot be used ({reason}) -> "
            "make WEIR_HOME a folder this user may write to, or set WEIR_SECRET"
        )


def _make_secret(path: Path) -> None:
    """Write a new secret to ``path`` so that it appears whole or not at all, and only once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{token_hex(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was first, and its secret counts
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink()


def _kept_secret(path: Path) -> SecretStr:
    """Return the secret in ``path``, which nobody but its owner may read or write."""
    with path.open(encoding="utf-8") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise SettingsError(
                f"WEIR_SECRET: unset, and {path} has mode {mode:04o}, so others may use it -> "
                f"`chmod 600 {path}`; if others may have read it, replace it"
            )
        text = file.read().strip()
    if not text:
        raise SettingsError(
            f"WEIR_SECRET: unset, and {path} is empty -> restore it from a backup, or delete it; "
            "a new one is made then, and existing keys stop working"
        )
    return SecretStr(text)


_SECONDS: Final = "use seconds, more than 0 and at most 86400"
_MENDS: Final = {
    "PORT": "use a whole number from 0 to 65535",
    "WEIR_MAX_BODY_BYTES": "use a whole number of bytes, at least 1",
    "WEIR_HEADER_TIMEOUT": _SECONDS,
    "WEIR_BODY_TIMEOUT": _SECONDS,
    "WEIR_GRACE": _SECONDS,
    "WEIR_WATCHDOG": "use seconds, at most 86400, or 0 for never",
}


def _line(detail: ErrorDetails) -> str:
    """Return the line of a ``SettingsError`` for one of pydantic's findings."""
    context: dict[str, Any] = detail.get("ctx", {})
    cause = context.get("error")
    name = str(detail["loc"][0]) if detail["loc"] else ""
    where = f"{name}: " if name else ""
    if isinstance(cause, _RefusedError):
        return f"{where}{cause} -> {cause.mend}"
    if detail["type"] == "literal_error":
        return f"{where}is not one of the known values -> use {context['expected']}"
    wrong = detail["msg"].removeprefix("Input ")
    return f"{where}{wrong} -> {_MENDS.get(name, 'correct the value, or unset it')}"
