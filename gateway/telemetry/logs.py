"""Structured logs: one line per event, one form for our own and for every library's.

``configure`` is called once by each process. Every line goes through the redaction of ``gateway.telemetry.redaction``
and then, in one write, to one stream; a stream that is closed or full loses the line, never the request that logs.
A request id is an argument of the call that logs: ``log.warning("...", request_id=request_id)``, as bytes or text.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from gateway.telemetry import redaction
from gateway.types import ids
from gateway.types.errors import Internal, WeirError
from gateway.types.tokens import NO_USAGE, Usage

# structlog takes rich, where it finds it, for tracebacks of many colours. The command line has it installed; a server
# that only writes lines would carry 5 MB of it.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment] # how an import is refused
try:
    import structlog
    from structlog.typing import FilteringBoundLogger, Processor
finally:
    del sys.modules["rich"]
    if _rich is not None:
        sys.modules["rich"] = _rich

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["auto", "json", "console"]

_Event = MutableMapping[str, Any]

_FOLLOWS: Final = ("alembic", "gateway", "uvicorn")
"""Loggers of the standard library that follow our level. All others speak from WARNING on: at lower levels libraries
log request headers, SQL parameters and every probe."""
_SILENT: Final = ("uvicorn.access",)


class _Sink:
    """Where lines go."""

    def __init__(self) -> None:
        self.stream: TextIO = sys.stderr
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Write one line. A stream that cannot take it loses it."""
        try:
            with self._lock:
                self.stream.write(f"{line}\n")
                self.stream.flush()
        except (OSError, ValueError):
            return  # closed, full, or of another encoding: there is nowhere left to say so


_sink: Final = _Sink()


class _Output:
    """What structlog calls once an event is a line; carries the name of the logger to the processors."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write one line."""
        _sink.write(line)

    debug = info = warning = error = critical = msg


_processors: Final[list[Processor]] = []
"""Changed in place, so that loggers already in use follow a second ``configure``."""


class _Bridge(logging.Handler):
    """Brings the records of the standard library's loggers into the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Render one record like one of our own events."""
        try:
            event: Any = {"event": record.getMessage()}
        except Exception:  # noqa: BLE001 - a library's bad format string must not fail the caller that logs
            event = {"event": "a log record could not be rendered"}
        if record.exc_info and record.exc_info[1] is not None:
            event["exc_info"] = record.exc_info[1]
        output = _Output(record.name)
        for processor in _processors:
            event = processor(output, record.levelname.lower(), event)
        output.msg(event)


def configure(
    level: Level = "info", form: Form = "auto", stream: TextIO | None = None, secrets: Iterable[str] = ()
) -> None:
    """Set up the logs of this process: ours, and those of every library that uses ``logging``.

    A second call changes stream and form at once, the level only for loggers not used yet.

    Args:
        level: least level that is logged.
        form: ``json``, ``console``, or ``auto``: ``console`` on a terminal, else ``json``.
        stream: where lines go, standard error unless given.
        secrets: texts that are masked wherever they occur, as by ``redaction.conceal``.
    """
    redaction.conceal(secrets)
    _sink.stream = stream if stream is not None else sys.stderr
    terminal = _sink.stream.isatty()
    readable = form == "console" or (form == "auto" and terminal)
    _processors[:] = [_compose, *([_escape, _console(colors=terminal)] if readable else [_json])]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Output,
        cache_logger_on_first_use=False,  # a logger that was used before follows a later configuration
    )
    _bridge(level.upper())


def logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module. Below the configured level its methods do nothing."""
    bound: FilteringBoundLogger = structlog.get_logger(name)
    return bound


def _bridge(level: str) -> None:
    """Route the standard library's loggers here, and only here."""
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(logging.WARNING)
    for name, known in list(logging.root.manager.loggerDict.items()):
        if isinstance(known, logging.Logger) and name.partition(".")[0] in _FOLLOWS:
            known.handlers.clear()
            known.propagate = True
            known.setLevel(logging.NOTSET)  # what set a level of its own before follows again
    for name in _FOLLOWS:
        logging.getLogger(name).setLevel(level)
    for name in _SILENT:
        silent = logging.getLogger(name)
        silent.handlers.clear()
        silent.propagate = False
        silent.setLevel(logging.CRITICAL + 1)
    logging.captureWarnings(capture=True)


def _compose(output: _Output, method: str, event: _Event) -> _Event:
    """Return the line for ``event``: what every line has, then those of its fields that may be logged."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    request_id = event.pop("request_id", None)
    line: dict[str, redaction.Plain] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": method,
        "logger": output.name,
        "event": redaction.plain(event.pop("event", "")),
    }
    if request_id is not None:
        line["request_id"] = ids.text(request_id) if isinstance(request_id, bytes) else redaction.plain(request_id)
    for name, value in redaction.fields(event).items():
        line.setdefault(name, value)
    if isinstance(error, BaseException):
        line["exception"] = redaction.explain(error)
    return line


def _json(_logger: object, _method: str, event: _Event) -> str:
    """Render an event as one line of JSON, in ASCII."""
    return json.dumps(event)


def _escape(_logger: object, _method: str, event: _Event) -> _Event:
    """Make control characters visible: a text from outside can neither forge a line nor steer a terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and name != "exception":
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event


def _console(*, colors: bool) -> Processor:
    """Return the renderer for people."""
    render: Callable[..., str] = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )
    return render


class RequestLog:
    """What the log says about requests: failures always, the others when ``every`` is set.

    Args:
        every: whether each answered request gets a line at INFO.
    """

    __slots__ = ("_log", "every")

    def __init__(self, *, every: bool) -> None:
        self.every = every
        self._log = logger("gateway.request")

    def ended(
        self,
        request_id: bytes,
        *,
        operation: str,
        model: str,
        backend: str,
        status: str,
        duration: float,
        usage: Usage = NO_USAGE,
    ) -> None:
        """Log a request that was answered, or whose caller left; ``duration`` in seconds."""
        if self.every:
            self._log.info(
                "request",
                request_id=request_id,
                operation=operation,
                model=model,
                backend=backend,
                status=status,
                duration=round(duration, 6),
                prompt_tokens=usage.prompt,
                completion_tokens=usage.completion,
            )

    def failed(self, request_id: bytes, error: BaseException, *, operation: str = "", model: str = "") -> None:
        """Log a request that was answered with an error.

        A caller's mistake (4xx) is INFO, a backend's or the gateway's inability WARNING; a defect of the gateway
        (``Internal``, or anything that is no ``WeirError``) is ERROR, with its traceback.
        """
        if not isinstance(error, WeirError) or isinstance(error, Internal):
            self._log.error(
                "request failed: defect", request_id=request_id, operation=operation, model=model, exc_info=error
            )
            return
        write = self._log.info if error.code < 500 else self._log.warning
        write(
            "request refused" if error.code < 500 else "request failed",
            request_id=request_id,
            operation=operation,
            model=model,
            status=error.code,
            error_type=error.kind,
            error=redaction.message(error),
        )
