"""The moments at which a runner may die, and the one at which it does."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from opstream_schemas.events import Progressed, RecordedEvent, Started, StepFailed

WAKE_UP: Final = "wake-up"
"""What `CrashMoment.event` says of the message that begins a later attempt."""
_DECIDES_NOTHING: Final = (Progressed, StepFailed)
"""Events for people. A handler does not wait until they are stored, so a runner that dies there dies a moment later."""


class CrashMoment(msgspec.Struct, frozen=True, kw_only=True):
    """A moment at which a runner may die: right before, or right after, the broker stores something.

    As text it is what `run(crash_at=...)` takes: `before step-succeeded 'charge' in attempt 1`.
    """

    when: Literal["before", "after"]
    event: str
    """The short name of the event's type (`step-succeeded`); `wake-up` for the message that begins a later attempt."""
    name: str = ""
    """Of the step or wait; empty for any other event."""
    key: str = ""
    """Of the step or wait; empty without one."""
    attempt: int
    """The number of the attempt; 0 before the first one is stored."""

    def __str__(self) -> str:
        """Return the moment as text."""
        name = f" {self.name!r}" if self.name else ""
        key = f" ({self.key})" if self.key else ""
        return f"{self.when} {self.event}{name}{key} in attempt {self.attempt}"


class CrashPlan:
    """Notes the moments that a run comes to, and says at which of them its runner dies.

    Args:
        crash_at: the moment as text; empty for none.
    """

    def __init__(self, crash_at: str = "") -> None:
        self.crash_at = crash_at
        self.passed: list[CrashMoment] = []
        """All moments of the run so far, in order."""
        self.reached: CrashMoment | None = None
        """The one at which the runner has died."""
        self._attempt = 0

    def before(self, event: RecordedEvent | None) -> bool:
        """Return True if the runner dies before an event (None: a wake-up) is stored."""
        if event is not None and isinstance(event.data, Started):
            self._attempt = event.data.attempt
        return self._pass("before", event)

    def after(self, event: RecordedEvent | None) -> bool:
        """Return True if the runner dies when it is stored, before it is told so."""
        return self._pass("after", event)

    def _pass(self, when: Literal["before", "after"], event: RecordedEvent | None) -> bool:
        data = event.data if event is not None else None
        if isinstance(data, _DECIDES_NOTHING):
            return False
        moment = CrashMoment(
            when=when,
            event=WAKE_UP if data is None else data.name,
            name=getattr(data, "step", "") or getattr(data, "wait", ""),
            key=getattr(data, "key", ""),
            attempt=self._attempt,
        )
        self.passed.append(moment)
        if self.reached is not None or str(moment) != self.crash_at:
            return False
        self.reached = moment
        return True
