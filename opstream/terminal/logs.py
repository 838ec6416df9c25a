"""Logging: one line per record on stderr, with time (UTC), level and logger. Nothing else configures logging.

The line is text for people, or JSON for programs (ADR 0049). Where several services share a process, each line of text
begins with the name of its service; a line of JSON always has it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from opstream_schemas.logs.json_formatter import BatchRecord, JsonLogFormatter, encode_line, utc_time

from .console import ErrorOutput, coloured, printable, supports_colour

_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
_COLOURS: Final = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)
END_LOGGER: Final = "opstream.end"
"""The logger of the error with which a command ends."""

NAME_END: Final = " | "
"""Between the name of a service and the rest of a line."""
_service: ContextVar[str] = ContextVar("service", default="")


class _LogFormatter(logging.Formatter):
    """Formats times in UTC, so that lines of several machines can be compared, and colours warnings and errors."""

    converter = staticmethod(time.gmtime)

    def __init__(self, *, has_colour: bool) -> None:
        super().__init__(_FORMAT, "%Y-%m-%dT%H:%M:%S")
        self._has_colour = has_colour

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format the record without its traceback. The message may quote foreign text, so it is made printable."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's name and type
        """Format a traceback. The exception's own text may be foreign, so each line is made printable."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as a line, followed by the traceback if it has one."""
        if isinstance(record, BatchRecord):
            head = f"{record.levelname:<7} {record.name}"
            text = "\n".join(f"{utc_time(entry.created)} {head}: {entry.text()}" for entry in record.entries)
        else:
            text = coloured(super().format(record), _COLOURS.get(record.levelno), has_colour=self._has_colour)
        service = _service.get()
        return "\n".join(f"{service}{NAME_END}{line}" for line in text.split("\n")) if service else text


def name_service(name: str) -> None:
    """Begin each line that is logged in the present context, and in tasks that begin in it, with a name."""
    _service.set(name)


def configure(level: str, log_format: str = TEXT, *, service: str = "") -> None:
    """Log to stderr, in place of what was configured before.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: one of `FORMATS`. With `JSON`, warnings, errors that nothing caught, and the error with which the
            command ends are lines of JSON, too.
        service: the name of this process in lines of JSON.
    """
    handler = logging.StreamHandler(sys.stderr)
    is_json = log_format == JSON
    ErrorOutput.write = None
    if is_json:
        handler.setFormatter(JsonLogFormatter(lambda: _service.get() or service))
        _route_to_log(service)
    else:
        handler.setFormatter(_LogFormatter(has_colour=supports_colour(sys.stderr)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # uvicorn logs each start and stop in five lines at the level info, with a logger named `uvicorn.error`.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # Its lines have whole paths with their queries; `opstream_api.requests` has templates instead.
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)


def _route_to_log(service: str) -> None:
    """Let what Python and the command write to stderr themselves be records."""
    logger = logging.getLogger("opstream")

    def log_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        logger.critical("%s ended the process", kind.__name__, exc_info=(kind, error, traceback))

    def log_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
            exc_info = (found.exc_type, found.exc_value, found.exc_traceback)
            logger.error("a thread ended: %s", found.thread.name if found.thread else "", exc_info=exc_info)

    def log_unraisable(found: sys.UnraisableHookArgs) -> None:
        error = found.exc_value
        text = found.err_msg or "an exception was ignored"
        logger.error("%s", text, exc_info=(type(error), error, found.exc_traceback) if error is not None else None)

    def write_end(text: str) -> None:
        # Not by `logging`, whose handlers an author's module may have replaced by now.
        print(
            encode_line(
                {
                    "time": utc_time(time.time()),
                    "level": "critical",
                    "logger": END_LOGGER,
                    "message": text,
                    **({"service": service} if service else {}),
                }
            ),
            file=sys.stderr,
            flush=True,
        )

    sys.excepthook, threading.excepthook, sys.unraisablehook = log_error, log_thread, log_unraisable
    logging.captureWarnings(capture=True)
    ErrorOutput.write = write_end
