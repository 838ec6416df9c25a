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


class Plan:
    """Notes the moments that a run comes to, and says what happens at which of them.

    Args:
        crash_at: the moment, as text, at which the runner dies; empty for none.
        cancel_at: the moment at which a client cancels; empty for none.
    """

    def __init__(self, crash_at: str = "", cancel_at: str = "") -> None:
        self.crash_at = crash_at
        self.cancel_at = cancel_at
        self.passed: list[CrashMoment] = []
        """All moments of the run so far, in order."""
        self.crashed: CrashMoment | None = None
        """The one at which the runner has died."""
        self.canceled: CrashMoment | None = None
        """The one at which a client has canceled."""
        self._attempt = 0

    def come_to(self, when: Literal["before", "after"], event: RecordedEvent | None) -> Literal["", "crash", "cancel"]:
        """Return what happens at a moment.

        Args:
            when: before or after something is stored.
            event: what it is; None for a wake-up.
        """
        data = event.data if event is not None else None
        if isinstance(data, _DECIDES_NOTHING):
            return ""
        if isinstance(data, Started):
            self._attempt = data.attempt
        moment = CrashMoment(
            when=when,
            event=WAKE_UP if data is None else data.name,
            name=getattr(data, "step", "") or getattr(data, "wait", ""),
            key=getattr(data, "key", ""),
            attempt=self._attempt,
        )
        self.passed.append(moment)
        if self.crashed is None and str(moment) == self.crash_at:
            self.crashed = moment
            return "crash"
        if self.canceled is None and str(moment) == self.cancel_at:
            self.canceled = moment
            return "cancel"
        return ""

    @property
    def missed(self) -> str:
        """What should have happened, and at which moment, that did not come; empty if all has happened."""
        if self.crash_at and self.crashed is None:
            return f"crash_at={self.crash_at!r}, so no runner died"
        return f"cancel_at={self.cancel_at!r}, so nobody canceled" if self.cancel_at and self.canceled is None else ""
