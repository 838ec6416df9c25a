"""The steps of one attempt: which names it has used, what earlier attempts have recorded, and where records go."""

from __future__ import annotations

import concurrent.futures
import random
import threading
from collections.abc import Callable, Iterable
from typing import Final

from opstream_schemas.events import StepFailed, StepStarted, StepSucceeded
from opstream_schemas.operation.backoff import MIN_JITTER_FACTOR
from opstream_schemas.steps.step_history import StepHistory, StepRecord

from .step_errors import InvalidStep

StepEvent = StepStarted | StepSucceeded | StepFailed
Recorder = Callable[[StepEvent], "concurrent.futures.Future[None]"]
"""Records an event of a step; callable from any thread. The future is done once it is stored."""

NO_LIMIT: Final = 2**63


def keep_nothing(_event: StepEvent) -> concurrent.futures.Future[None]:
    """Record nothing: the default in a unit test."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    done.set_result(None)
    return done


class StepTable:
    """The steps of one attempt. Any thread may use it.

    Args:
        records: of earlier attempts, in the order of their events.
        record: records an event.
        attempt: the number of this attempt.
        limit: a result's maximum, in bytes of JSON.
        should_stop: returns True if the attempt should stop.
    """

    def __init__(
        self,
        records: Iterable[StepRecord],
        record: Recorder,
        *,
        attempt: int,
        limit: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self.history = StepHistory(records)
        self.record = record
        self.attempt = attempt
        self.limit = limit
        self.should_stop = should_stop
        self._places: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def claim(self, step: str, key: str, place: str) -> None:
        """Note that this attempt has come to a step.

        Args:
            step: its name.
            key: its key; empty for none.
            place: where in the code, for the message.

        Raises:
            InvalidStep: it has come to a step of that name and key before.
        """
        with self._lock:
            before = self._places.setdefault((step, key), place)
            is_second = before is not place
        if is_second:
            what = f"step {step!r} with the key {key!r}" if key else f"step {step!r}"
            remedy = "another key" if key else "another name, or each a key, as in a loop"
            raise InvalidStep(f"{what} is there twice: at {before}, and at {place}: give one {remedy}")

    @staticmethod
    def jitter() -> float:
        """Draw the factor of a pause between two tries."""
        return random.uniform(MIN_JITTER_FACTOR, 1.0)  # noqa: S311 - no secret
