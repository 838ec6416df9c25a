"""What the parts of the runner share: the journal, the clocks and the ids."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from opstream_journal import Journal


class RunnerDependencies(msgspec.Struct, frozen=True):
    """What an attempt works with. Clocks and ids are parameters, for tests."""

    journal: Journal
    source: str
    """CloudEvents source of the runner's events."""
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    result_limit: int
    jitter: Callable[[], float]
    """Draws the factor of a pause (`opstream_schemas.operation.backoff`)."""
