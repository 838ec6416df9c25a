"""The one place that configures logging: one line per record on stderr, with time (UTC), level and logger.

Called by the commands that run a service, before they import it.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

from .console import coloured, printable, supports_colour

_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
_COLOURS: Final = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class _LogFormatter(logging.Formatter):
    """Times in UTC, so that lines of several machines can be put side by side; levels coloured on a terminal."""

    converter = staticmethod(time.gmtime)

    def __init__(self, *, is_coloured: bool) -> None:
        super().__init__(_FORMAT, "%Y-%m-%dT%H:%M:%S")
        self._is_coloured = is_coloured

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without the traceback: one, whatever somebody has put into a subject that is told in it."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and below it the traceback if the record has one."""
        return coloured(super().format(record), _COLOURS.get(record.levelno), is_on=self._is_coloured)


def configure(level: str) -> None:
    """Log to stderr from `level` (`debug`, `info`, `warning`, `error`) on, replacing what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter(is_coloured=supports_colour(sys.stderr)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # It calls its logger for everything `uvicorn.error`, and tells each start and stop in five lines.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
