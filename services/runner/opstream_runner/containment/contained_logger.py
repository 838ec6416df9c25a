"""A logger whose calls never raise, whatever an author's code did to `logging` or to standard error.

A record factory, a filter or a handler of an author's may raise, and it may raise in the threads of the runner only. A
log call that raises would end what the runner is doing: its answer to a signal, a heartbeat, an outcome.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

_STANDARD_ERROR: Final = 2
_FALLBACK: Final = logging.Formatter()


class ContainedLogger(logging.Logger):
    """A logger that passes over what raises; `contain` makes one of a logger that exists.

    A line that no handler writes goes to standard error, to the descriptor itself, in the format of `formatter`.

    Attributes:
        formatter: of the handler that wrote the lines before an author's code ran.
    """

    formatter: logging.Formatter = _FALLBACK

    def makeRecord(self, *args: Any, **values: Any) -> logging.LogRecord:  # noqa: ANN401, N802 - as in logging
        """Make the record with the process's factory, or a plain one if that raises."""
        try:
            record: object = super().makeRecord(*args, **values)
        except BaseException as error:  # noqa: BLE001 - see the module's docstring
            _pass_signal(error)
            record = None
        if isinstance(record, logging.LogRecord):
            return record
        name, level, file, line, message, given, exc_info, *others = args
        function, stack = others[0] if others else None, others[2] if len(others) > 2 else None
        return logging.LogRecord(name, level, file, line, message, given, exc_info, function, stack)

    def handle(self, record: logging.LogRecord) -> None:
        """Give the record to the handlers, and go on with the next one if one raises."""
        try:
            found: object = None if self.disabled else self.filter(record)
        except BaseException as error:  # noqa: BLE001
            _pass_signal(error)
            found = True
        if found:
            self.callHandlers(found if isinstance(found, logging.LogRecord) else record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - as in logging
        """Call each handler; if none has written the record, write it to standard error."""
        failed = written = 0
        for handler in self._all_handlers():
            try:
                if record.levelno >= handler.level:
                    if _is_closed(handler):
                        failed += 1
                    else:
                        handler.handle(record)
                        written += 1
            except BaseException as error:  # noqa: BLE001
                _pass_signal(error)
                failed += 1
        if failed and not written:
            self._write(record)

    def _all_handlers(self) -> Iterator[logging.Handler]:
        logger: logging.Logger | None = self
        is_any = False
        while logger is not None:
            for handler in tuple(logger.handlers):
                is_any = True
                yield handler
            logger = logger.parent if logger.propagate else None
        if not is_any and logging.lastResort is not None:
            yield logging.lastResort

    def _write(self, record: logging.LogRecord) -> None:
        for formatter in (self.formatter, _FALLBACK):
            with contextlib.suppress(BaseException):
                line = formatter.format(record) + "\n"
                os.write(_STANDARD_ERROR, line.encode(errors="backslashreplace"))
                return


def contain(logger: logging.Logger, formatter: logging.Formatter | None) -> None:
    """Let the calls of a logger that exists never raise from now on.

    Args:
        logger: other modules hold it, so it must stay the same object.
        formatter: for lines that no handler writes.
    """
    if not isinstance(logger, ContainedLogger):
        with contextlib.suppress(TypeError):  # an author's class with a layout of its own
            logger.__class__ = ContainedLogger
    if isinstance(logger, ContainedLogger) and formatter is not None:
        logger.formatter = formatter


def _is_closed(handler: logging.Handler) -> bool:
    """Return True if its stream is closed: it would say so to standard error, and the line would be lost."""
    attributes = cast("Mapping[str, object]", vars(handler))
    return bool(getattr(attributes.get("stream"), "closed", False))


def _pass_signal(error: BaseException) -> None:
    """Raise an exception again that a signal has raised in the midst of a log call: the process is to end."""
    if getattr(error, "is_signal", False) is True:
        raise error
