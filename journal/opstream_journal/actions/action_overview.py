"""All actions at one moment, for people: their runners by the presence records, what waits as the metrics have it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream_journal.errors import JournalError
from opstream_journal.jetstream.connection import Connection
from opstream_journal.metrics.action_labels import OTHER, ActionLabels
from opstream_journal.metrics.wait_gauges import Waits
from opstream_journal.queues.consumer_backlogs import ConsumerBacklog
from opstream_journal.queues.queue_look import QueueLook
from opstream_journal.queues.runner_records import NO_RUNNERS, ActionRunners, RunnerRecord
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionControl, ActionPause, ActionSpec
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import PRIORITIES

from .action_controls import NO_CONTROL, ActionControls, shown_pause

logger = logging.getLogger(__name__)

_NO_BACKLOG: Final = ConsumerBacklog()


class WaitingOperations(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Operations of an action that wait for the same."""

    reason: str
    """A `WaitingReason`."""
    number: int
    oldest: float
    """Seconds for which the first of them has waited."""


class QueueLength(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in one queue of an action with priorities."""

    priority: str
    number: int
    """Messages. That of normal priority counts requests of the others, too, until a runner has passed them."""


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
    paused: ActionPause | None = None
    """None for an action that is not paused."""
    queues: tuple[QueueLength, ...] | msgspec.UnsetType = msgspec.UNSET
    """Of an action with priorities: how much waits in each queue, the highest first."""


class ActionOverviews:
    """Reads all actions.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._look = QueueLook(connection)
        self._controls = ActionControls(connection)

    async def start(self) -> None:
        """Subscribe to the inboxes for reads."""
        await self._look.start()
        await self._controls.start()

    async def stop(self) -> None:
        """Unsubscribe from them."""
        await self._look.stop()
        await self._controls.stop()

    async def read(self, specs: Collection[ActionSpec]) -> list[ActionOverview]:
        """Return all actions in order. It costs as many requests as a scrape of the projector's metrics.

        Args:
            specs: those of the catalog. What waits for others is in one further row.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        kinds = {spec.kind for spec in specs}
        found = await self._look.read(ActionLabels(lambda: kinds), list(specs))
        presence, waits = found.presence or {}, found.tally.waits
        controls = await self._read_controls(found.backlogs)
        shown = [
            _overview(
                spec,
                presence.get(spec.kind, NO_RUNNERS),
                waits,
                shown_pause(
                    found.backlogs.get(subjects.runner_consumer(spec.kind), _NO_BACKLOG).paused_until,
                    controls.get(spec.kind, NO_CONTROL),
                ),
                found.tally.queued,
            )
            for spec in sorted(specs, key=lambda spec: str(spec.kind))
        ]
        if unknown := _waiting(OTHER, waits):
            shown.append(ActionOverview(action=OTHER, version=0, runners=(), last_runner_at=None, waiting=unknown))
        return shown

    async def _read_controls(self, backlogs: Mapping[str, ConsumerBacklog]) -> dict[Kind, ActionControl]:
        """Return what tells who paused an action; nothing if it can't be read, or if no action is paused."""
        if not any(backlog.paused for backlog in backlogs.values()):
            return {}
        try:
            return await self._controls.all()
        except JournalError as error:
            logger.debug("who paused an action can't be read: %s", error)
            return {}


def _overview(
    spec: ActionSpec,
    presence: ActionRunners,
    waits: Waits,
    paused: ActionPause | None,
    queued: Mapping[tuple[str, str], int],
) -> ActionOverview:
    queues = tuple(
        QueueLength(priority=one, number=queued[str(spec.kind), one])
        for one in PRIORITIES
        if (str(spec.kind), one) in queued
    )
    seen_at = presence.seen_at
    return ActionOverview(
        action=str(spec.kind),
        version=spec.action_version,
        runners=tuple(sorted(presence.runners, key=lambda one: one.runner)),
        last_runner_at=datetime.fromtimestamp(seen_at, UTC).replace(microsecond=0) if seen_at else None,
        waiting=_waiting(str(spec.kind), waits),
        paused=paused,
        queues=queues or msgspec.UNSET,
    )


def _waiting(label: str, found: Waits) -> tuple[WaitingOperations, ...]:
    waits = [
        WaitingOperations(reason=reason, number=wait.number, oldest=round(wait.seconds, 3))
        for (action, reason), wait in found.items()
        if action == label and wait.number
    ]
    return tuple(sorted(waits, key=lambda one: -one.oldest))
