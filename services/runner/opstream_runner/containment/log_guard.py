"""Keeps our own log lines, whatever an action's module does to `logging`.

`dictConfig` and `fileConfig` disable every logger that exists, unless they are told not to, and replace the handlers of
the root logger. Django's `LOGGING` and an alembic `env.py` do so. The runner's lines would be lost, and with them the
tracebacks that a client is referred to. A record factory, a filter or a handler that raises would do worse: see
`contained_logger.py`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from .contained_logger import contain

_PACKAGES: Final = (
    "opstream",
    "opstream_api",
    "opstream_journal",
    "opstream_projector",
    "opstream_runner",
    "opstream_schemas",
    "opstream_webhooks",
)
_LIBRARIES: Final = ("asyncio", "concurrent", "faststream", "nats")
"""They log in the loop of the runner, too. Their lines are an author's to configure, but must not raise there."""


class LogGuard:
    """The logging of this process as it is now, to which `restore` brings our own loggers back."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self._handlers = tuple(root.handlers)
        self._level = root.level
        self._disabled_level = root.manager.disable
        self._packages = [logging.getLogger(name) for name in _PACKAGES]

    def restore(self) -> None:
        """Let our loggers write again where they wrote, in the format that they had.

        A handler that an author's configuration gives to one of our packages is respected: that package logs there.
        """
        root = logging.getLogger()
        if root.manager.disable > self._disabled_level:
            logging.disable(self._disabled_level)
        if any(package.disabled for package in self._packages):
            for logger in _our_loggers():
                logger.disabled = False
        missing = [one for one in self._handlers if one not in root.handlers]
        if missing or root.level != self._level:
            for package in self._packages:
                self._restore_package(package, missing)

    def _restore_package(self, package: logging.Logger, missing: list[logging.Handler]) -> None:
        if package.level == logging.NOTSET:
            package.setLevel(self._level)
        if missing and not package.handlers:
            for handler in missing:
                package.addHandler(handler)
            package.propagate = False  # otherwise the handlers that are there now would write each line once more


class ProcessLogs:
    """The logging of this process: our loggers write as they did, and no call of them raises.

    Attributes:
        formatter: of our lines, if there is one.
    """

    def __init__(self) -> None:
        self._guard = LogGuard()
        self.formatter = own_formatter()
        self._loggers = 0
        self.restore()

    def restore(self) -> None:
        """Bring our loggers back, and contain those that were made since the last time."""
        self._guard.restore()
        known = len(logging.getLogger().manager.loggerDict)
        if known != self._loggers:
            self._loggers = known
            for logger in _our_loggers((*_PACKAGES, *_LIBRARIES)):
                contain(logger, self.formatter)


class _Process:
    logs: ProcessLogs | None = None


def own_formatter() -> logging.Formatter | None:
    """Return the formatter of our lines, whatever an author's code has put into the root logger since."""
    if _Process.logs is not None:
        return _Process.logs.formatter
    return next((one.formatter for one in logging.getLogger().handlers if one.formatter), None)


def protect_logs() -> None:
    """Keep the logging of this process as it is now; `restore_logs` restores it from now on.

    From here on no log call of ours, or of the libraries that the runner's loop uses, raises.
    """
    _Process.logs = ProcessLogs()


def restore_logs() -> None:
    """Let our loggers write again, if this process protects them and an author's code has changed them. Cheap."""
    if _Process.logs is not None:
        with contextlib.suppress(Exception):  # an author may have put anything into the root logger
            _Process.logs.restore()


def _our_loggers(packages: tuple[str, ...] = _PACKAGES) -> Iterator[logging.Logger]:
    for name, logger in list(logging.getLogger().manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in packages:
            yield logger
