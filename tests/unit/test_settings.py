"""Settings come from the environment, are refused with a mend, and never show a secret."""

from __future__ import annotations

import os
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import SecretStr, ValidationError

from gateway.settings import Settings, SettingsError

ADMIN_KEY = "a-management-key-of-enough-characters"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("WEIR_", "OTEL_")) or name == "PORT":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return the message that ``variables`` are refused with."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    return str(caught.value)


def test_defaults() -> None:
    """With an empty environment everything has a working default, and reading makes no file."""
    settings = Settings.read()
    assert settings.config is None
    assert settings.home == Path(".weir")
    assert settings.ledger_url.get_secret_value() == "sqlite+aiosqlite:///.weir/weir.db"
    assert (settings.redis_url, settings.admin_key, settings.demo_key, settings.secret) == (None,) * 4
    assert (settings.port, settings.log_level, settings.log_format) == (8000, "info", "auto")
    assert (settings.durability, settings.max_body_bytes) == ("disk", 32 * 1024 * 1024)
    assert not settings.tracing
    assert list(Path().iterdir()) == []


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each documented variable reaches its field."""
    values = {
        "WEIR_CONFIG": "etc/weir.yaml",
        "WEIR_HOME": "state",
        "WEIR_DATABASE_URL": "postgresql+asyncpg://weir:pw@db/weir",
        "WEIR_REDIS_URL": "redis://:pw@cache:6379/0",
        "WEIR_ALERT_URL": "https://alerts.example/budgets",
        "WEIR_ALERT_SECRET": "signing",
        "WEIR_ADMIN_KEY": ADMIN_KEY,
        "WEIR_DEMO_KEY": "demo",
        "WEIR_SECRET": "pepper",
        "PORT": "0",
        "WEIR_LOG_LEVEL": "DEBUG",
        "WEIR_LOG_FORMAT": "json",
        "WEIR_LOG_REQUESTS": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "WEIR_DURABILITY": "process",
        "WEIR_MAX_BODY_BYTES": "1024",
        "WEIR_HEADER_TIMEOUT": "0.5",
        "WEIR_BODY_TIMEOUT": "7",
        "WEIR_WRITE_TIMEOUT": "8",
        "WEIR_GRACE": "9",
        "WEIR_WATCHDOG": "0",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert {str(field.validation_alias) for field in Settings.model_fields.values()} == set(values)
    assert settings.config == Path("etc/weir.yaml")
    assert settings.home == Path("state")
    assert settings.ledger_url.get_secret_value() == values["WEIR_DATABASE_URL"]
    assert settings.redis_url == SecretStr(values["WEIR_REDIS_URL"])
    assert settings.alert_url == SecretStr(values["WEIR_ALERT_URL"])
    assert settings.alert_secret == SecretStr("signing")
    assert settings.admin_key == SecretStr(ADMIN_KEY)
    assert settings.demo_key == SecretStr("demo")
    assert settings.obtain_secret() == SecretStr("pepper")
    assert (settings.port, settings.log_level, settings.log_format) == (0, "debug", "json")
    assert settings.otlp_endpoint == "http://collector:4318"
    assert settings.tracing
    assert (settings.durability, settings.max_body_bytes) == ("process", 1024)
    timeouts = (settings.header_timeout, settings.body_timeout, settings.write_timeout)
    assert (*timeouts, settings.grace, settings.watchdog) == (0.5, 7.0, 8.0, 9.0, 0.0)


def test_every_field_is_described() -> None:
    """Each setting says what it is for."""
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    "name",
    sorted(
        str(field.validation_alias)
        for field in Settings.model_fields.values()
        if str(field.validation_alias).startswith("WEIR_")
    ),
)
@pytest.mark.parametrize("value", ["", "  "])
def test_empty_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A variable of Weir that is set but empty is an error, never a silent default."""
    message = refused(monkeypatch, **{name: value})
    assert message == f"{name}: is set but empty -> give it a value, or unset it"


@pytest.mark.parametrize("name", ["PORT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_empty_foreign_variables_are_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Variables that other programs share follow their convention: empty means unset."""
    monkeypatch.setenv(name, "")
    assert Settings.read() == Settings()
    assert Settings.read().port == 8000


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("WEIR_ADMIN_KEY", "x" * 31, "use at least 32"),
        ("WEIR_ADMIN_KEY", "x" * 40 + "\n", "remove them"),
        ("WEIR_DEMO_KEY", "de\x07mo", "remove them"),
        ("WEIR_DATABASE_URL", "mysql://root:hunter2@db/x", "start it with sqlite+aiosqlite:///"),
        ("WEIR_REDIS_URL", "http://hunter2@cache", "start it with redis://"),
        ("WEIR_REDIS_URL", "redis://:hunter2@cache:99999", "look at its port"),
        ("WEIR_REDIS_URL", "redis://:hunter2@cache:abc/0", "look at its port"),
        ("WEIR_ALERT_URL", "https://user:hunter2@alerts", "start it with https://"),
        ("WEIR_ALERT_URL", "https://alerts:99999", "start it with https://"),
        ("PORT", "http", "0 to 65535"),
        ("PORT", "65536", "0 to 65535"),
        ("PORT", "-1", "0 to 65535"),
        ("WEIR_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("WEIR_LOG_FORMAT", "xml", "'auto', 'json' or 'console'"),
        ("WEIR_DURABILITY", "none", "'disk' or 'process'"),
        ("WEIR_MAX_BODY_BYTES", "0", "at least 1"),
        ("WEIR_MAX_BODY_BYTES", "32MiB", "at least 1"),
        ("WEIR_HEADER_TIMEOUT", "0", "more than 0"),
        ("WEIR_BODY_TIMEOUT", "nan", "more than 0"),
        ("WEIR_GRACE", "inf", "more than 0"),
        ("WEIR_WATCHDOG", "-1", "0 for never"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:43180000", "http://localhost:4318"),
    ],
)
def test_bad_value_is_refused_with_its_mend(monkeypatch: pytest.MonkeyPatch, name: str, value: str, mend: str) -> None:
    """The message names the variable and the mend and does not repeat the value of a secret."""
    message = refused(monkeypatch, **{name: value})
    assert message.startswith(f"{name}: ")
    wrong, _, advice = message.partition(" -> ")
    assert wrong != f"{name}: "
    assert mend in advice
    assert "hunter2" not in message


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bad variables give three lines."""
    message = refused(monkeypatch, PORT="x", WEIR_SECRET="", WEIR_LOG_FORMAT="xml")
    assert sorted(line.partition(":")[0] for line in message.splitlines()) == [
        "PORT",
        "WEIR_LOG_FORMAT",
        "WEIR_SECRET",
    ]


def test_management_key_is_no_inference_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two keys may not be equal, since one of them must not run inference."""
    message = refused(monkeypatch, WEIR_ADMIN_KEY=ADMIN_KEY, WEIR_DEMO_KEY=ADMIN_KEY)
    assert "are equal" in message
    assert ADMIN_KEY not in message


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither repr nor a dump nor the traceback of a refusal holds a secret."""
    canary = "canary-" + "x" * 40
    for name in ("WEIR_ADMIN_KEY", "WEIR_DEMO_KEY", "WEIR_SECRET"):
        monkeypatch.setenv(name, canary + name)
    monkeypatch.setenv("WEIR_DATABASE_URL", f"postgresql+asyncpg://u:{canary}@db/x")
    monkeypatch.setenv("WEIR_REDIS_URL", f"redis://:{canary}@db")
    settings = Settings.read()
    assert "canary" not in repr(settings)
    assert "canary" not in str(settings)
    assert "canary" not in settings.model_dump_json()
    monkeypatch.setenv("WEIR_DATABASE_URL", canary)
    try:
        Settings.read()
    except SettingsError:
        assert "canary" not in traceback.format_exc()
    else:
        pytest.fail("a database that is no URL was accepted")


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen."""
    with pytest.raises(ValidationError):
        Settings.read().port = 1  # type: ignore[misc]  # that is the point


def test_unknown_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that an orchestrator derives from a service's name do not stop the start."""
    monkeypatch.setenv("WEIR_PORT", "tcp://10.0.0.1:8000")
    assert Settings.read().port == 8000


def test_secret_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without WEIR_SECRET one is made, kept for its owner alone, and read again by the next start."""
    monkeypatch.setenv("WEIR_HOME", "a/b")
    secret = Settings.read().obtain_secret()
    assert len(secret.get_secret_value()) >= 64
    assert stat.S_IMODE(Path("a/b/secret").stat().st_mode) == 0o600
    assert Settings.read().obtain_secret() == secret
    assert [path.name for path in Path("a/b").iterdir()] == ["secret"]


def test_secret_is_the_same_for_processes_that_start_together() -> None:
    """However many start at once, one secret is made and all have it."""
    settings = Settings.read()
    barrier = Barrier(16)

    def obtain(_: int) -> str:
        barrier.wait()
        return settings.obtain_secret().get_secret_value()

    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(obtain, range(16)))
    assert len(secrets) == 1
    assert [path.name for path in Path(".weir").iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o610])
def test_secret_others_may_use_is_refused(mode: int) -> None:
    """A secret file with a wider mode is refused, and the message says how to mend it."""
    Settings.read().obtain_secret()
    Path(".weir/secret").chmod(mode)
    with pytest.raises(SettingsError, match=r"WEIR_SECRET: .* -> `chmod 600 \.weir/secret`"):
        Settings.read().obtain_secret()


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_unusable_secret_file_is_refused(content: bytes) -> None:
    """An empty or garbled secret file is an error: a new secret would make all keys useless."""
    Path(".weir").mkdir()
    path = Path(".weir/secret")
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=r"WEIR_SECRET: unset, and \.weir/secret"):
        Settings.read().obtain_secret()
    assert path.read_bytes() == content


def test_unusable_home_is_refused() -> None:
    """A state folder that is a file gives a settings error, not an OS error."""
    Path(".weir").write_text("")
    with pytest.raises(SettingsError, match=r"WEIR_SECRET: .* -> make WEIR_HOME a folder"):
        Settings.read().obtain_secret()
