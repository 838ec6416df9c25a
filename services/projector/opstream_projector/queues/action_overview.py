"""All actions at one moment, for people: their runners by the presence records, what waits as the metrics have it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from opstream_journal import Connection
from opstream_journal.metrics.action_labels import OTHER
from opstream_journal.queues.runner_records import NO_RUNNERS, ActionRunners, RunnerRecord
from opstream_schemas.action_spec import ActionSpec

from .queue_gauges import QueueGauges


class WaitingOperations(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Operations of an action that wait for the same."""

    reason: str
    """A `WaitingReason`."""
    number: int
    oldest: float
    """Seconds for which the first of them has waited."""


class ActionOverview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One action."""

    action: str
    version: int
    """The highest that was announced: what the API validates requests by; 0 for actions that the catalog has not."""
    runners: tuple[RunnerRecord, ...]
    """Those that are there. A runner of 0.5.0 or earlier is not among them."""
    last_runner_at: datetime | None
    """When a runner was there last, to the minute; None if that is not known."""
    waiting: tuple[WaitingOperations, ...]
    """What waits, the oldest first."""


async def overview(connection: Connection) -> list[ActionOverview]:
    """Return all actions in order. It costs as many requests as a scrape of the projector's metrics.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    gauges = QueueGauges(connection)
    try:
        await gauges.start()
        await gauges.refresh_catalog()
        await gauges.read()
    finally:
        await gauges.stop()
    presence = gauges.presence or {}
    specs = sorted(gauges.specs.values(), key=lambda spec: str(spec.kind))
    found = [_overview(spec, presence.get(spec.kind, NO_RUNNERS), gauges) for spec in specs]
    unknown = _waiting(OTHER, gauges)
    if unknown:
        found.append(ActionOverview(action=OTHER, version=0, runners=(), last_runner_at=None, waiting=unknown))
    return found


def _overview(spec: ActionSpec, presence: ActionRunners, gauges: QueueGauges) -> ActionOverview:
    seen_at = presence.seen_at
    return ActionOverview(
        action=str(spec.kind),
        version=spec.action_version,
        runners=tuple(sorted(presence.runners, key=lambda one: one.runner)),
        last_runner_at=datetime.fromtimestamp(seen_at, UTC).replace(microsecond=0) if seen_at else None,
        waiting=_waiting(str(spec.kind), gauges),
    )


def _waiting(label: str, gauges: QueueGauges) -> tuple[WaitingOperations, ...]:
    waits = [
        WaitingOperations(reason=reason, number=wait.number, oldest=round(wait.seconds, 3))
        for (action, reason), wait in gauges.waits.items()
        if action == label and wait.number
    ]
    return tuple(sorted(waits, key=lambda one: -one.oldest))
