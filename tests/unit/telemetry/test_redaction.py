"""Promises of the redaction: no key and no prompt in any line, whatever is logged and by whom."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Callable
from hashlib import sha1
from io import StringIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.util.re import parse_env_headers
from pydantic import BaseModel

from gateway.telemetry import logs, redaction

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
        for _ in range(2):
            log.info("x", text="correct horse battery, staple-of-the-operator, short", **{"staple-of-the-operator": 1})
            redaction.conceal(["staple-of-the-operator"])
        before, after = records(stream)
        assert before["text"] == "[redacted], staple-of-the-operator, short"
        assert after["text"] == "[redacted], [redacted], short"
        assert after["[redacted]"] == 1

    def test_headers_for_a_collector_are_masked(self, lines: StringIO) -> None:
        """OpenTelemetry quotes those it cannot read, with the key in them: a colon for ``=`` is soon written."""
        assert parse_env_headers("x-honeycomb-team: hcaik01abcdefgh", liberal=True) == {}
        assert "Header format invalid" in lines.getvalue()
        assert "hcaik01abcdefgh" not in lines.getvalue()

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
        assert "test_redaction.py" in record["exception"]
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

        gc.collect()  # what other tests have lost
        lines.seek(0)
        lines.truncate()
        task = asyncio.create_task(lost())
        await asyncio.sleep(0)
        del task
        gc.collect()
        assert "never retrieved" in only(lines)["event"]
        assert "in lost" in only(lines)["exception"]
        assert "CANARY" not in lines.getvalue()

    def test_harmless_message_is_told(self, lines: StringIO) -> None:
        """The interpreter's own words, which quote nothing, are kept."""
        try:
            list[int]()[3]
        except IndexError:
            log.exception("defect")
        assert "IndexError: list index out of range" in only(lines)["exception"]

    def test_endless_stories_end(self, lines: StringIO) -> None:
        """Errors that cause each other, and groups within groups, are told once and not without end."""
        first, second = RuntimeError("first"), RuntimeError("second")
        first.__cause__, second.__cause__ = second, first
        log.error("defect", exc_info=first)
        assert only(lines)["exception"] == "RuntimeError: second\nwhich led to\nRuntimeError: first"
        group: Exception = OSError("leaf")
        for _ in range(20):
            group = ExceptionGroup("group", [OSError("leaf"), group, group])
        log.error("defect", exc_info=group)
        assert records(lines)[1]["exception"].count("leaf") < 20

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
