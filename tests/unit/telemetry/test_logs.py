"""Promises of the logs: one form for all, a request id on every failure, no key and no prompt ever."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from hashlib import sha1
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from uvicorn.config import Config

from gateway.telemetry import logs, redaction
from gateway.types import ids
from gateway.types.errors import Internal, RateLimited, UpstreamFailed
from gateway.types.tokens import Usage

SECRET_HEX = sha1(b"canary", usedforsecurity=False).hexdigest()
WEIR_KEY = f"sk-weir-abcd1234-{SECRET_HEX}"
LOCAL_TOKEN = f"weir-local-1790000000-{SECRET_HEX}"
PROVIDER_KEY = "sk-ant-api03-CanaryCanaryCanary_99"
BEARER = "Bearer opaqueCanaryToken.42"
PROMPT = "CANARY my diagnosis is a secret"
CREDENTIALS = {
    "weir key": (WEIR_KEY, SECRET_HEX),
    "weir key in a word": (f"ask{WEIR_KEY[2:]}", SECRET_HEX),
    "local token": (LOCAL_TOKEN, SECRET_HEX),
    "provider key": (PROVIDER_KEY, "CanaryCanary"),
    "bearer token": (BEARER, "opaqueCanaryToken"),
    "lower-case bearer": ("bearer\topaqueCanaryToken", "opaqueCanaryToken"),
    "basic login": ("Authorization: Basic b3BhcXVlQ2FuYXJ5", "b3BhcXVlQ2FuYXJ5"),
    "header tuple": ("[(b'x-api-key', b'opaqueCanaryToken')]", "opaqueCanaryToken"),
    "assignment": ("api_key=opaqueCanaryToken&x=1", "opaqueCanaryToken"),
    "database URL": ("postgresql+asyncpg://weir:c@naryPassw0rd@db/weir", "Passw0rd"),
    "google key": ("AIzaSyCanaryCanaryCanaryCanary12345", "CanaryCanary"),
    "web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl", "c2lnbmF0dXJl"),
}
log = logs.logger("gateway.test")


def records(stream: StringIO) -> list[dict[str, Any]]:
    """Return the lines of a JSON log."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def only(stream: StringIO) -> dict[str, Any]:
    """Return the one line of a JSON log."""
    (record,) = records(stream)
    return record


def fail(prompt: str, error: type[Exception] = RuntimeError) -> None:
    """Raise an error of which the prompt is a local, but not the message."""
    hidden = [prompt] * 2
    raise error(f"gave up after {len(hidden)} tries")


class TestForm:
    """What a line looks like and where it goes."""

    def test_line_has_time_level_logger_event_and_fields(self, lines: StringIO) -> None:
        """A JSON line says when, how bad, who and what, in that order, then the fields."""
        log.warning("backend is down", backend="gpu-a", tries=3)
        record = only(lines)
        assert list(record) == ["timestamp", "level", "logger", "event", "backend", "tries"]
        assert record["timestamp"].endswith("Z")
        assert record["level"] == "warning"
        assert record["logger"] == "gateway.test"

    def test_request_id_is_public_form(self, lines: StringIO) -> None:
        """A request id given as bytes is logged in the form callers know."""
        request_id = ids.RequestIds().new()
        log.info("x", request_id=request_id)
        assert only(lines)["request_id"] == ids.text(request_id)

    def test_level_filters_ours_and_theirs(self, log_state: None) -> None:
        """Below the level nothing is written, by our loggers or the libraries that follow it."""
        stream = StringIO()
        logs.configure("warning", "json", stream)
        logs.logger("gateway.quiet").info("no")
        logging.getLogger("uvicorn.error").info("no")
        logging.getLogger("alembic.runtime").warning("yes")
        assert [record["event"] for record in records(stream)] == ["yes"]

    def test_auto_is_json_in_a_file(self, log_state: None, tmp_path: Path) -> None:
        """Without a terminal ``auto`` means JSON."""
        with (tmp_path / "log").open("w+") as file:
            logs.configure(stream=file)
            log.error("x")
            file.seek(0)
            assert json.loads(file.read())["event"] == "x"

    def test_auto_is_console_on_a_terminal(self, log_state: None) -> None:
        """On a terminal ``auto`` is for people."""

        class Terminal(StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        logs.configure(stream=stream)
        log.error("disk full", path=Path("/var"))
        assert "disk full" in stream.getvalue()
        assert not stream.getvalue().startswith("{")

    def test_console_lines_cannot_be_forged(self, log_state: None) -> None:
        """Control characters of a caller neither begin a new line nor steer the terminal."""
        stream = StringIO()
        logs.configure("info", "console", stream)
        log.error("unknown model", model="x\n2026-01-01 [info] all is well\x1b[2J")
        assert len(stream.getvalue().splitlines()) == 1
        assert "\x1b" not in stream.getvalue()

    def test_console_shows_the_traceback(self, log_state: None) -> None:
        """For people a traceback has real lines."""
        stream = StringIO()
        logs.configure("info", "console", stream)
        try:
            fail(PROMPT)
        except RuntimeError:
            log.exception("defect")
        assert "in fail\n" in stream.getvalue()
        assert "CANARY" not in stream.getvalue()

    @pytest.mark.parametrize("form", ["json", "console"])
    def test_text_no_encoding_can_carry_is_written(self, log_state: None, form: logs.Form, tmp_path: Path) -> None:
        """A lone surrogate or an ASCII-only stream costs no line."""
        path = tmp_path / "log"
        with path.open("w", encoding="ascii") as file:
            logs.configure("info", form, file)
            log.info("x", model="\ud800 ü")
        assert "x" in path.read_text()

    def test_closed_stream_does_not_raise(self, log_state: None) -> None:
        """A log that cannot be written never fails the one who logs."""
        stream = StringIO()
        logs.configure("info", "json", stream)
        stream.close()
        log.error("x")
        logging.getLogger("uvicorn.error").error("x")

    def test_broken_pipe_does_not_raise(self, log_state: None) -> None:
        """A reader of the log that went away costs nothing but the log."""
        reading, writing = os.pipe()
        os.close(reading)
        stream = TextIOWrapper(os.fdopen(writing, "wb", buffering=0), write_through=True)
        logs.configure("info", "json", stream)
        log.error("x")
        stream.close()


class TestLibraries:
    """What libraries log comes out like our own events."""

    def test_standard_library_has_the_same_form(self, lines: StringIO) -> None:
        """A library's record is a line like ours."""
        logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
        record = only(lines)
        assert (record["logger"], record["level"]) == ("uvicorn.error", "info")
        assert record["event"] == "Started server process [7]"

    def test_uvicorn_keeps_it(self, lines: StringIO) -> None:
        """Uvicorn, told to leave logging alone, logs through us, and its access log is silent."""
        logs.configure("debug", "json", lines)
        Config(app="none:app", log_config=None).configure_logging()
        logging.getLogger("uvicorn").info("hello")
        logging.getLogger("uvicorn.access").critical('"GET / HTTP/1.1" 200')
        assert not logging.getLogger("uvicorn.access").hasHandlers()  # what uvicorn looks at before it makes a line
        assert [record["event"] for record in records(lines)] == ["hello"]

    async def test_httpx_does_not_log_each_request(self, lines: StringIO) -> None:
        """Probes every second leave no line each, not even at level debug."""
        transport = httpx.MockTransport(lambda _: httpx.Response(200))
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("http://gpu-a/metrics", headers={"authorization": BEARER})
        assert lines.getvalue() == ""

    def test_sql_parameters_are_not_logged(self, lines: StringIO) -> None:
        """Neither statements nor the error of one show bound values."""
        engine = sqlalchemy.create_engine("sqlite://")
        with engine.connect() as connection, pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            connection.execute(sqlalchemy.text("insert into missing values (:a)"), {"a": PROMPT})
        engine.dispose()
        log.error("ledger failed", exc_info=caught.value)
        assert "no such table: missing" in only(lines)["exception"]
        assert "CANARY" not in lines.getvalue()

    def test_bad_format_string_does_not_raise(self, lines: StringIO) -> None:
        """A library's record that cannot be rendered is a line that says so, without its arguments."""
        logs.configure("debug", "json", lines)  # pytest's own handler would raise
        logging.getLogger("alembic").warning("%d revisions", PROMPT)
        assert only(lines)["event"] == "a log record could not be rendered"

    def test_warnings_are_lines(self, lines: StringIO) -> None:
        """Python's warnings take the form of all others."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=True)
            warnings.warn("old API", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(capture=False)
        assert "old API" in only(lines)["event"]


class TestRedaction:
    """No credential and no content in any line."""

    @pytest.mark.parametrize(("text", "canary"), CREDENTIALS.values(), ids=CREDENTIALS)
    @pytest.mark.parametrize("form", ["json", "console"])
    @pytest.mark.parametrize(
        "write",
        [
            lambda text: log.error(" ".join(("rejected", text))),
            lambda text: log.error("rejected", reason=text),
            lambda text: log.error("rejected", facts={"a": [{"b": (text,)}], text: 1}),
            lambda text: log.error("rejected", error=OSError(f"cannot reach {text}")),
            lambda text: logging.getLogger("uvicorn.error").error("rejected %s", text),
            lambda text: log.error("rejected", exc_info=RuntimeError(text)),
        ],
        ids=["event", "field", "nested", "error", "library", "exception"],
    )
    def test_no_credential_in_any_line(
        self, log_state: None, text: str, canary: str, form: logs.Form, write: Callable[[str], None]
    ) -> None:
        """Whatever looks like a credential is masked, wherever it stands and whoever logs it."""
        stream = StringIO()
        logs.configure("debug", form, stream)
        write(text)
        assert "rejected" in stream.getvalue()
        assert canary not in stream.getvalue()
        assert redaction.MASK in stream.getvalue()

    def test_chosen_secret_is_masked(self, log_state: None) -> None:
        """A key that looks like nothing is masked once it is known."""
        stream = StringIO()
        logs.configure("info", "json", stream, secrets=["correct horse battery", "short"])
        redaction.conceal(["staple-of-the-operator"])
        log.info("x", text="correct horse battery, staple-of-the-operator, short")
        assert only(stream)["text"] == "[redacted], [redacted], short"

    @pytest.mark.parametrize(
        "name", ["prompt", "messages", "content", "Authorization", "api_key", "apiKey", "x-api-key", "body"]
    )
    def test_content_fields_are_dropped(self, lines: StringIO, name: str) -> None:
        """Fields that carry content or credentials are dropped by name, at any depth."""
        log.info("x", **{name: PROMPT}, facts={"request": {name: PROMPT}}, kept=1)
        record = only(lines)
        assert record["facts"] == {"request": {}}
        assert record["kept"] == 1
        assert "CANARY" not in lines.getvalue()

    def test_objects_are_shown_by_type(self, lines: StringIO) -> None:
        """An object or bytes that might hold a request are never shown by their repr."""

        class Held:
            def __repr__(self) -> str:
                return PROMPT

        log.info("x", held=Held(), raw=PROMPT.encode(), many={1: Held()})
        record = only(lines)
        assert (record["held"], record["raw"]) == ("<Held>", f"<{len(PROMPT)} bytes>")
        assert "CANARY" not in lines.getvalue()

    def test_ordinary_texts_are_left_alone(self, lines: StringIO) -> None:
        """What is no credential is not masked: hosts, models, words with ``sk-`` inside."""
        text = "task-queue of disk-cache at http://gpu-a:8000/v1 for qwen/qwen3-32b: bearing, 429"
        log.info("x", text=text)
        assert only(lines)["text"] == text

    def test_long_texts_are_cut(self, lines: StringIO) -> None:
        """A line has a bounded length, whatever is logged."""
        log.info("x" * 10_000_000, many=list(range(100_000)))
        assert len(lines.getvalue()) < 20_000


class TestTracebacks:
    """How an error is told."""

    def test_traceback_without_locals(self, lines: StringIO) -> None:
        """A traceback names file, line and function; the values of variables are not in it."""
        try:
            fail(PROMPT)
        except RuntimeError:
            log.exception("defect", request_id="gen-1")
        record = only(lines)
        assert "test_logs.py" in record["exception"]
        assert "in fail" in record["exception"]
        assert "RuntimeError: gave up after 2 tries" in record["exception"]
        assert record["request_id"] == "gen-1"
        assert "CANARY" not in lines.getvalue()

    def test_chain_and_group_are_told(self, lines: StringIO) -> None:
        """What led to an error, and every member of a group, is in its story."""
        try:
            try:
                fail(PROMPT, TimeoutError)
            except TimeoutError as error:
                raise ExceptionGroup("shutdown", [OSError("disk"), RuntimeError(WEIR_KEY)]) from error
        except ExceptionGroup:
            log.exception("defect")
        story = only(lines)["exception"]
        assert story.index("TimeoutError") < story.index("which led to") < story.index("shutdown")
        assert "OSError: disk" in story
        assert SECRET_HEX not in story

    def test_foreign_messages_that_quote_values_are_withheld(self, lines: StringIO) -> None:
        """Errors that by custom quote the value at fault are shown without their message."""

        class Shape(BaseModel):
            size: int

        def by_pydantic() -> None:
            Shape.model_validate({"size": PROMPT})

        def by_int() -> None:
            int(PROMPT)

        def by_key() -> None:
            dict[str, int]()[PROMPT]

        def by_codec() -> None:
            (PROMPT.encode() + b"\xff").decode()

        for raises in (by_pydantic, by_int, by_key, by_codec):
            try:
                raises()
            except (ValueError, LookupError):
                log.exception("defect")
        assert len(records(lines)) == 4
        assert "CANARY" not in lines.getvalue()
        assert redaction.WITHHELD in lines.getvalue()

    async def test_lost_task_does_not_tell_its_error(self, lines: StringIO) -> None:
        """The report of a task nobody awaited has its traceback, but not what its error quotes."""

        async def lost() -> None:
            raise KeyError(PROMPT)

        task = asyncio.create_task(lost())
        await asyncio.sleep(0)
        del task
        gc.collect()
        assert "never retrieved" in only(lines)["event"]
        assert "in lost" in only(lines)["exception"]
        assert "CANARY" not in lines.getvalue()

    def test_endless_recursion_is_short(self, lines: StringIO) -> None:
        """A recursion error is told by its last frames."""

        def dive() -> None:
            dive()

        try:
            dive()
        except RecursionError:
            log.exception("defect")
        assert len(lines.getvalue()) < 20_000

    def test_error_without_message_is_told(self, lines: StringIO) -> None:
        """An error whose text cannot be made is still told by its type."""

        class Mute(RuntimeError):
            def __str__(self) -> str:
                raise OSError(PROMPT)

        log.error("defect", exc_info=Mute())
        assert "Mute: [no message]" in only(lines)["exception"]


class TestRequestLog:
    """What the log says about requests."""

    def test_answered_requests_only_when_asked(self, lines: StringIO) -> None:
        """A line per answered request is a setting, off unless wanted."""
        request_id = ids.RequestIds().new()
        for every in (False, True):
            logs.RequestLog(every=every).ended(
                request_id,
                operation="chat",
                model="qwen/qwen3-32b",
                backend="gpu-a",
                status="ok",
                duration=1.25,
                usage=Usage(7, 9),
            )
        record = only(lines)
        assert record["level"] == "info"
        assert record["request_id"] == ids.text(request_id)
        assert (record["prompt_tokens"], record["completion_tokens"], record["duration"]) == (7, 9, 1.25)

    @pytest.mark.parametrize(
        ("error", "level", "status"),
        [
            (RateLimited("over its limit"), "info", 429),
            (UpstreamFailed("no backend answered"), "warning", 502),
            (UpstreamFailed(f"bad value {PROMPT}", code=400), "info", 400),
            (Internal("see the log"), "error", None),
            (KeyError(PROMPT), "error", None),
        ],
    )
    def test_failures_always_with_request_id(
        self, lines: StringIO, error: Exception, level: str, status: int | None
    ) -> None:
        """Every failed request leaves a line with its id, as bad as it is; only defects have a traceback."""
        request_id = ids.RequestIds().new()
        try:
            raise error
        except Exception as raised:  # noqa: BLE001 - the parameters are of several types
            logs.RequestLog(every=False).failed(request_id, raised, operation="chat", model="qwen/qwen3-32b")
        record = only(lines)
        assert record["request_id"] == ids.text(request_id)
        assert record["level"] == level
        assert record.get("status") == status
        assert ("exception" in record) == (level == "error")
        assert "CANARY" not in lines.getvalue()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.builds(lambda text: f"{text}{WEIR_KEY} {text}", st.text(max_size=8)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.sets(st.text()),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_anything_can_be_logged(lines: StringIO, facts: dict[str, Any]) -> None:
    """Any values whatever make exactly one line of valid JSON, without the key that may be in them."""
    lines.seek(0)
    lines.truncate()
    log.info("facts", facts=facts)
    assert "facts" in only(lines)
    assert SECRET_HEX not in lines.getvalue()


def test_cyclic_values_end(lines: StringIO) -> None:
    """A value that contains itself makes a line like any other."""
    cycle: list[Any] = []
    cycle.append(cycle)
    log.info("x", cycle=cycle)
    assert only(lines)["cycle"] == [[[["<list>"]]]]


def test_default_stream_is_standard_error(log_state: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless told otherwise, logs go to standard error, where they spoil no command's output."""
    logs.configure()
    log.error("x")
    sys.stderr.flush()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "x"
