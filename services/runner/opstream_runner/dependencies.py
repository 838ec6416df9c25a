"""The dependencies that dispatchers and attempts share: the journal, the clocks and the id generator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from opstream_journal import Journal
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_payloads import Payloads
from opstream_payloads.documents import NO_DOCUMENTS, Documents
from opstream_runner.steps.step_clock import REAL_CLOCK, StepClock
from opstream_schemas.traces.tracer import NO_TRACING, Tracer

from .attempt_meter import AttemptMeter
from .heartbeat_log import HeartbeatLog


class RunnerDependencies(msgspec.Struct, frozen=True):
    """The shared dependencies. Clocks and ids are fields, so that tests can replace them."""

    journal: Journal
    source: str
    """CloudEvents source of the runner's events."""
    now: Callable[[], datetime]
    """The current time, with time zone."""
    monotonic: Callable[[], float]
    """Seconds of a clock that never goes back."""
    new_id: Callable[[], str]
    """Makes an id for an event or an attempt."""
    result_limit: int
    """A result's maximum, in bytes of JSON."""
    jitter: Callable[[], float]
    """Draws the factor of a backoff (`opstream_schemas.operation.backoff`)."""
    documents: Documents = NO_DOCUMENTS
    """Inputs and results that are too large for an event."""
    payloads: Payloads | None = None
    """Stores the files of operations; None if the broker has no object store yet."""
    heartbeats: HeartbeatLog = msgspec.field(default_factory=HeartbeatLog)
    """What failing heartbeats write to the log."""
    meter: AttemptMeter = msgspec.field(default_factory=AttemptMeter)
    """Measures attempts."""
    tracing: Tracer = NO_TRACING
    """Makes the spans of attempts."""
    keys: OperationKeys | None = None
    """Of confidential operations; None for a runner that leaves them to others."""
    step_clock: StepClock = REAL_CLOCK
    """The time of steps and waits."""
