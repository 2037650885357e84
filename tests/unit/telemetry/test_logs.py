"""Promises of the logs: one form for all, whoever logs, and a request id on every failure."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from uvicorn.config import Config

from gateway.telemetry import logs
from gateway.types import ids
from gateway.types.errors import Internal, RateLimited, UpstreamFailed
from gateway.types.tokens import Usage

PROMPT = "CANARY my diagnosis is a secret"
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

    def test_a_level_that_somebody_set_before_does_not_hold(self, log_state: None) -> None:
        """A part of a library that was told to be quiet once follows our level again."""
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        stream = StringIO()
        logs.configure("info", "json", stream)
        logging.getLogger("uvicorn.error").info("Started")
        assert only(stream)["event"] == "Started"

    def test_handlers_of_others_are_replaced(self, lines: StringIO) -> None:
        """A library that has set up its own output is heard once, through us."""
        own = StringIO()
        logging.getLogger("uvicorn").addHandler(logging.StreamHandler(own))
        logging.getLogger("uvicorn").propagate = False
        logs.configure("debug", "json", lines)
        logging.getLogger("uvicorn").info("hello")
        assert only(lines)["event"] == "hello"
        assert own.getvalue() == ""

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
            await client.get("http://gpu-a/metrics", headers={"authorization": "Bearer opaque"})
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
            logging.captureWarnings(capture=False)
            logs.configure("debug", "json", lines)
            warnings.warn("old API", DeprecationWarning, stacklevel=1)
        assert "old API" in only(lines)["event"]


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


def test_default_stream_is_standard_error(log_state: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless told otherwise, logs go to standard error, where they spoil no command's output."""
    logs.configure()
    log.error("x")
    sys.stderr.flush()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "x"
