"""Why a running handler has to stop. Callers: `attempt.py`, which gives the verdict, and `work.py`, which heeds it."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Final


class Verdict(Enum):
    """A reason to stop, as the log tells it."""

    FENCED = "a later attempt or a terminal event was recorded"
    BLIND = "the journal could not be read for longer than the lease"
    CANCEL = "a client asked to cancel"
    TIMEOUT = "it took longer than its timeout"
    DEADLINE = "the deadline of its operation has passed"
    STOP = "the runner stops"

    def outweighs(self, other: Verdict | None) -> bool:
        """Whether this one counts although `other` came first.

        Who is fenced off must be silent, whatever else holds; who is blind must not hand back what may be another's;
        and a process that stops does not wait for a handler that a client canceled, nor for one whose time is over.
        A canceled handler, too, has no more time than the action gives it.
        """
        return other is None or _WEIGHT[self] > _WEIGHT[other]


PATIENT: Final = frozenset({Verdict.CANCEL, Verdict.TIMEOUT, Verdict.DEADLINE})
"""Where the handler has the action's own grace for its clean-up: this runner goes on, and the operation is its own."""
_ORDER: Final = (
    Verdict.CANCEL,
    Verdict.TIMEOUT,
    Verdict.DEADLINE,
    Verdict.STOP,
    Verdict.BLIND,
    Verdict.FENCED,
)
_WEIGHT: Final = {verdict: weight for weight, verdict in enumerate(_ORDER)}


class Judgement:
    """What was decided about one attempt.

    Attributes:
        verdict: the weightiest so far; set in the event loop, read from any thread.
    """

    def __init__(self) -> None:
        self.verdict: Verdict | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give(self, verdict: Verdict) -> None:
        """Take a verdict into account."""
        if verdict.outweighs(self.verdict):
            self.verdict = verdict
            if not self._changed.done():
                self._changed.set_result(None)

    async def wait(self, other: asyncio.Future[Any], seconds: float | None) -> bool:
        """Wait until the verdict changes or `other` is done; false if `seconds` passed without either."""
        done, _ = await asyncio.wait([other, self._changed], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        return bool(done)
