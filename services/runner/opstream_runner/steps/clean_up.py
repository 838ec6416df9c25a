"""The cancel of an attempt that begins after a client's cancel request, to clean up (docs/adr/0077)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Self

import msgspec

from opstream_runner.errors import ActionCanceledError
from opstream_schemas.event_types.clean_up import StepName
from opstream_schemas.events import CleanUpBegun, WaitBegun
from opstream_schemas.signals.wait_history import WaitEvent
from opstream_schemas.steps.step_history import StepHistory, StepRecord

_RECORD_SHARE: Final = 0.3
"""Share of the lease that a handler has to come to the end of its record; its first regular heartbeat is later."""


class CanceledRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the handler had behind it when it was canceled."""

    steps: tuple[StepRecord, ...]
    """Of the steps that had returned to it."""
    is_marked: bool = False
    """True if it has come to a step of its clean-up."""
    has_canceled_steps: bool = False
    """True if steps were under way then."""
    awaited: StepName | None = None
    """The children that it waited for then; None for none."""

    @classmethod
    def of(cls, steps: tuple[StepRecord, ...], begin: WaitEvent | None, cut: WaitBegun | None = None) -> Self:
        """Return the record of an operation.

        Args:
            steps: all that is recorded of its steps.
            begin: with which its clean-up began (`clean_up_begin`); None if it begins now.
            cut: the wait for children that its cancel has cut short (`cut_child_wait`); None for none.
        """
        awaited = None if cut is None else StepName(name=cut.wait, key=cut.key)
        if begin is None:
            return cls(steps=steps, awaited=awaited)
        mark = begin.data if isinstance(begin.data, CleanUpBegun) else None
        canceled = {(one.name, one.key) for one in mark.canceled} if mark is not None else set()
        kept = (one for one in steps if one.position < begin.position and (one.step, one.key) not in canceled)
        return cls(steps=tuple(kept), is_marked=mark is not None, has_canceled_steps=bool(canceled), awaited=awaited)


class CleanUp:
    """Cancels the handler at the first step or wait that was not over when it was canceled. Any thread may use it.

    The handler runs from its first line, as in each attempt, and gets what is recorded. Where the record ends it is
    canceled, as if the client had asked at that moment. What it does then is its clean-up, whose steps run, or return
    what an earlier attempt has recorded of them.

    Args:
        record: what the handler had behind it.
        cancel: asks the attempt to cancel its handler; callable from any thread.
        is_canceled: returns True once the handler was canceled, here or by a heartbeat.
    """

    def __init__(
        self,
        record: CanceledRecord,
        cancel: Callable[[], None],
        is_canceled: Callable[[], bool],
    ) -> None:
        self.record = record
        self.history = StepHistory(record.steps)
        self._left = {(one.step, one.key) for one in record.steps}
        self._cancel = cancel
        self._is_canceled = is_canceled
        self._is_early: Callable[[], bool] = lambda: False
        self.has_begun = False
        """True once it has canceled the handler."""

    def expect(self, clock: Callable[[], float], lease: float) -> Self:
        """Leave the handler time to come to the end of its record (`is_ahead`).

        Args:
            clock: returns monotonic seconds.
            lease: seconds.
        """
        until = clock() + _RECORD_SHARE * lease
        self._is_early = lambda: clock() < until
        return self

    @property
    def is_due(self) -> bool:
        """Return True until the handler was canceled."""
        return not (self.has_begun or self._is_canceled())

    @property
    def is_ahead(self) -> bool:
        """Return True while the handler may still come to the end of its record.

        The cancel request is older than the attempt. A heartbeat that canceled it in its first lines would leave its
        clean-up out.
        """
        return self.is_due and self._is_early()

    def pass_step(self, step: str, key: str) -> None:
        """Note that the handler gets the result of a step of its record.

        Behind the last one it is canceled at its next await, if it was canceled there before: in code of its own, and
        not in a step.
        """
        self._left.discard((step, key))
        if self.is_due and self.record.is_marked and not (self._left or self.record.has_canceled_steps):
            self.has_begun = True
            self._cancel()

    def stop_here(self) -> None:
        """Cancel a plain handler here, if that is due.

        Raises:
            ActionCanceledError: it was due.
        """
        if self.is_due:
            self.has_begun = True
            self._cancel()
            raise ActionCanceledError("the operation was canceled, and is cleaned up from here on")

    async def stop_here_async(self) -> None:
        """Cancel an async handler here, if that is due: its task is cancelled while this waits.

        Raises:
            asyncio.CancelledError: it was due.
        """
        if self.is_due:
            self.has_begun = True
            self._cancel()
            await asyncio.get_running_loop().create_future()
