"""The steps and waits of one attempt: which names it has used, what earlier ones have recorded, where records go."""

from __future__ import annotations

import concurrent.futures
import random
import threading
from collections.abc import Callable, Iterable
from typing import Final

from opstream_schemas.event_types.clean_up import StepName
from opstream_schemas.events import ChildWait, CleanUpBegun, StepFailed, StepStarted, StepSucceeded, WaitBegun
from opstream_schemas.operation.backoff import MIN_JITTER_FACTOR
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.steps.step_history import StepHistory, StepRecord

from .children import ChildrenAsk, ChildrenAsker, ChildrenReply
from .clean_up import CleanUp
from .step_clock import REAL_CLOCK, StepClock
from .step_errors import InvalidStep, StepUnreadable
from .suspension import suspend

StepEvent = StepStarted | StepSucceeded | StepFailed | CleanUpBegun
Recorder = Callable[[StepEvent], "concurrent.futures.Future[None]"]
"""Records an event of a step; callable from any thread. The future is done once it is stored."""
Fetcher = Callable[[PayloadRef], "concurrent.futures.Future[bytes]"]
"""Reads a recorded result that is a payload; callable from any thread."""

NO_LIMIT: Final = 2**63


def keep_nothing(_event: StepEvent) -> concurrent.futures.Future[None]:
    """Record nothing: the default in a unit test."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    done.set_result(None)
    return done


def fetch_nothing(payload: PayloadRef) -> concurrent.futures.Future[bytes]:
    """Find no payload: the default in a unit test."""
    done: concurrent.futures.Future[bytes] = concurrent.futures.Future()
    done.set_exception(StepUnreadable(f"there is no payload store that has {payload.uri}"))
    return done


def ask_nobody(_ask: ChildrenAsk) -> concurrent.futures.Future[ChildrenReply]:
    """Have no children: the default in a unit test.

    Raises:
        InvalidStep: always.
    """
    raise InvalidStep(
        "children need a runner and an API: in a unit test put functions of your own in place of run and run_all"
    )


class StepTable:
    """The steps and waits of one attempt. Any thread may use it.

    Args:
        records: of earlier attempts, in the order of their events.
        waits: those of earlier attempts, all of which are over: each attempt after one began at its end.
        on_wait: called with a wait that is to begin.
        operation_id: under which the operation is stored.
        ask: asks about children.
        record: records an event.
        attempt: the number of this attempt.
        limit: the maximum of a result, in bytes of JSON.
        should_stop: returns True if the attempt should stop.
        clock: the time of waits and pauses.
        fetch: reads a recorded result that is too large for its event.
        clean_up: cancels the handler of an attempt after a cancel request; None for any other attempt.
        marks_clean_up: whether it is recorded that a canceled handler comes to the first step of its clean-up.
    """

    def __init__(
        self,
        records: Iterable[StepRecord],
        record: Recorder,
        *,
        attempt: int,
        limit: int,
        should_stop: Callable[[], bool],
        waits: Iterable[WaitBegun] = (),
        on_wait: Callable[[WaitBegun], None] = suspend,
        clock: StepClock = REAL_CLOCK,
        fetch: Fetcher = fetch_nothing,
        clean_up: CleanUp | None = None,
        marks_clean_up: bool = False,
        operation_id: str = "",
        ask: ChildrenAsker = ask_nobody,
    ) -> None:
        self.history = StepHistory(records)
        self.record = record
        self.attempt = attempt
        self.limit = limit
        self.fetch = fetch
        self.should_stop = should_stop
        self.on_wait = on_wait
        self.clock = clock
        self.clean_up = clean_up
        self._canceled: set[tuple[str, str]] = set()
        self._is_mark_due = marks_clean_up and clean_up is None
        self.operation_id = operation_id
        self.ask = ask
        self._over = {(wait.wait, wait.key) for wait in waits if wait.child is None}
        self._child_waits = [wait for wait in waits if wait.child is not None]
        self._places: dict[tuple[str, str, str], str] = {}
        self._lock = threading.Lock()

    def is_over(self, wait: str, key: str) -> bool:
        """Return True if an earlier attempt has waited under this name and key."""
        return (wait, key) in self._over

    def child_waits(self, name: str, key: str) -> list[ChildWait]:
        """Return the earlier waits for the children of a name and key, in order."""
        return [one.child for one in self._child_waits if (one.wait, one.key) == (name, key) and one.child is not None]

    def note_canceled(self, step: str, key: str) -> None:
        """Note that the handler sees a step canceled, whatever is recorded of it."""
        with self._lock:
            self._canceled.add((step, key))

    def mark_clean_up(self) -> concurrent.futures.Future[None] | None:
        """Record that the handler cleans up, if it is so and not recorded; None if there is nothing to record.

        A later attempt has to know what of the record belongs to the clean-up, and which steps the handler has seen
        canceled: it must not come past the place where it was canceled.
        """
        if not (self._is_mark_due and self.should_stop()):
            return None
        with self._lock:
            canceled = tuple(StepName(name=step, key=key) for step, key in sorted(self._canceled))
        recorded = self.record(CleanUpBegun(attempt=self.attempt, canceled=canceled))
        recorded.add_done_callback(self._end_marking)
        return recorded

    def _end_marking(self, recorded: concurrent.futures.Future[None]) -> None:
        if not recorded.cancelled() and recorded.exception() is None:
            self._is_mark_due = False

    def claim(self, step: str, key: str, place: str, *, what: str = "step") -> None:
        """Note that this attempt has come to a step, or a wait.

        Args:
            step: its name.
            key: its key; empty for none.
            place: where in the code, for the message.
            what: `step` or `wait`; names of one need not differ from those of the other.

        Raises:
            InvalidStep: it has come to one of that name and key before.
        """
        with self._lock:
            before = self._places.setdefault((what, step, key), place)
            is_second = before is not place
        if is_second:
            what = f"{what} {step!r} with the key {key!r}" if key else f"{what} {step!r}"
            remedy = "another key" if key else "another name, or each a key, as in a loop"
            raise InvalidStep(f"{what} is there twice: at {before}, and at {place}: give one {remedy}")

    @staticmethod
    def jitter() -> float:
        """Draw the factor of a pause between two tries."""
        return random.uniform(MIN_JITTER_FACTOR, 1.0)  # noqa: S311 - no secret
