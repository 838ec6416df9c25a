"""Logging: one line per record on stderr, with time (UTC), level and logger. Nothing else configures logging.

Where several services share a process, each line begins with the name of its service.
"""

from __future__ import annotations

import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Final

from .console import coloured, printable, supports_colour

_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
_COLOURS: Final = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}

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
        text = coloured(super().format(record), _COLOURS.get(record.levelno), has_colour=self._has_colour)
        service = _service.get()
        return "\n".join(f"{service}{NAME_END}{line}" for line in text.split("\n")) if service else text


def name_service(name: str) -> None:
    """Begin each line that is logged in the present context, and in tasks that begin in it, with a name."""
    _service.set(name)


def configure(level: str) -> None:
    """Log to stderr at a level (`debug`, `info`, `warning`, `error`), in place of what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter(has_colour=supports_colour(sys.stderr)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # uvicorn logs each start and stop in five lines at the level info, with a logger named `uvicorn.error`.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
