"""What FastStream logs about a delivery, made true: no "Processed" after a failure, one traceback for each message.

FastStream logs "Processed" whatever the handler did, and a traceback for each of the up to twenty deliveries of one
event. Here an event's first failure in a process has its traceback. The later ones have the one line that the
subscriber writes for each failed delivery anyway, with the error and the time of the next.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from faststream.exceptions import IgnoredException
from faststream.message.source_type import SourceType
from faststream.middlewares.logging import _LoggingMiddleware

if TYPE_CHECKING:
    from faststream._internal.context.repository import ContextRepo
    from faststream._internal.logger import LoggerState

_REMEMBERED: Final = 10_000
"""Failures of which a process knows that their traceback was logged: those of a second are enough."""


class FailureLog:
    """Makes the middleware that logs a delivery, in the place of FastStream's.

    Args:
        logger: FastStream's.
        shown: keeps which failures have had their traceback; shared by all deliveries of a subscriber.
    """

    def __init__(self, logger: LoggerState, shown: ShownFailures) -> None:
        self._logger = logger
        self._shown = shown

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> _DeliveryLog:  # noqa: ANN401 - FastStream's
        """Return the middleware of one delivery."""
        return _DeliveryLog(logger=self._logger, context=context, msg=msg, shown=self._shown)


class ShownFailures:
    """The failures whose traceback was logged, up to a number of them."""

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self._keys: dict[tuple[int, type[BaseException]], None] = {}

    def is_new(self, sequence: int, error: type[BaseException]) -> bool:
        """Return True if no error of this type was shown for this event. The next call with the same is then False."""
        key = sequence, error
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]
        return True


class _DeliveryLog(_LoggingMiddleware):
    """FastStream's lines for a delivery that succeeds or is ignored; for a failure its traceback, once."""

    def __init__(self, *, logger: LoggerState, context: ContextRepo, msg: Any | None, shown: ShownFailures) -> None:  # noqa: ANN401
        super().__init__(logger=logger, context=context, msg=msg)
        self._shown = shown

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool:
        """Log the end of a delivery."""
        if exc_type is None or issubclass(exc_type, IgnoredException) or self.source_type is SourceType.RESPONSE:
            return await super().__aexit__(exc_type, exc_val, exc_tb)
        event = getattr(self.msg, "event", None)
        if event is None or self._shown.is_new(event.sequence, exc_type):
            extra = self.context.get_local("log_context", {})
            text = f"{exc_type.__name__}: {exc_val}"
            self.logger.log(text, log_level=logging.ERROR, exc_info=exc_val, extra=extra)
        return False
