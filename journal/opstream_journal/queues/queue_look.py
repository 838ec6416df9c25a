"""One look at the queues of all actions: for `/metrics`, for `opstream actions` and for `GET /actions`.

It costs a request for the consumers, one for the runners, one for the first message of each queue that is not empty,
and one for each 500 timers and each 500 operations that wait for a resource. Nothing of it reads the journal's events.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from opstream_journal.errors import JournalError
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.kv import HOLDS_STREAM
from opstream_journal.metrics.action_labels import ActionLabels
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import QUEUED_PRIORITIES, Priority

from .consumer_backlogs import ConsumerBacklog, read_backlogs, together
from .message_ages import MessageAges
from .queue_tally import QueueTally, pending_reason
from .runner_records import NO_RUNNERS, ActionRunners, RunnerRecords

logger = logging.getLogger(__name__)

_TIMERS: Final = "timers.>"
_WAITERS: Final = subjects.bucket_subject(subjects.HOLDS_BUCKET, "w.>")


class FoundQueues(NamedTuple):
    """What a look has found."""

    tally: QueueTally
    presence: dict[Kind, ActionRunners] | None
    """The runners of each action; None if their records can't be read."""
    backlogs: Mapping[str, ConsumerBacklog]
    """The consumers of the journal, by their names."""


def queues_of(spec: ActionSpec, backlogs: Mapping[str, ConsumerBacklog]) -> dict[str, ConsumerBacklog]:
    """Return the consumers of an action by the priorities of their queues; that of each action has none, and is first.

    Without that one the result is empty.
    """
    names = ("", *QUEUED_PRIORITIES) if spec.policy.priority else ("",)
    found = {one: backlogs.get(subjects.runner_consumer(spec.kind, one)) for one in names}
    return {one: backlog for one, backlog in found.items() if backlog is not None} if found[""] is not None else {}


def _filters(kind: Kind, priority: str) -> tuple[str, ...]:
    return (subjects.priority_filter(kind, priority),) if priority else subjects.runner_filters(kind)


class QueueLook:
    """Looks at the queues.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.messages = MessageAges(connection)
        self._records = RunnerRecords(connection)

    async def start(self) -> None:
        """Subscribe to the inboxes for reads."""
        await self.messages.start()
        await self._records.start()

    async def stop(self) -> None:
        """Unsubscribe from them."""
        await self.messages.stop()
        await self._records.stop()

    async def read(self, labels: ActionLabels, specs: Sequence[ActionSpec]) -> FoundQueues:
        """Look at the queues of these actions.

        Args:
            labels: name the actions.
            specs: those of the catalog.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        tally = QueueTally(labels, self.messages.now)
        tally.expect(specs)
        backlogs = await read_backlogs(self._connection, subjects.OPERATIONS_STREAM)
        presence = await self._read_presence()
        await self._count_pending(tally, specs, backlogs, presence)
        async for page in self.messages.pages(subjects.TIMERS_STREAM, _TIMERS):
            for message in page:
                tally.add_timer(message)
        async for page in self.messages.pages(HOLDS_STREAM, _WAITERS):
            for message in page:
                tally.add_waiter(message)
        return FoundQueues(tally, presence, backlogs)

    async def _count_pending(
        self,
        tally: QueueTally,
        specs: Sequence[ActionSpec],
        backlogs: Mapping[str, ConsumerBacklog],
        presence: Mapping[Kind, ActionRunners] | None,
    ) -> None:
        for spec in specs:
            queues = queues_of(spec, backlogs)
            if not queues:
                continue
            if spec.policy.priority:
                tally.queued |= {
                    (str(spec.kind), priority or Priority.NORMAL): one.num_pending for priority, one in queues.items()
                }
            backlog = together(*queues.values())
            if not backlog.num_pending:
                continue
            ages = [
                await self.messages.age_of_first(subjects.OPERATIONS_STREAM, one, queue.first_pending)
                for priority, queue in queues.items()
                if queue.num_pending
                for one in _filters(spec.kind, priority)
            ]
            runners = None if presence is None else presence.get(spec.kind, NO_RUNNERS)
            tally.add(spec.kind, pending_reason(backlog, spec.policy, runners), max(ages), backlog.num_pending)

    async def _read_presence(self) -> dict[Kind, ActionRunners] | None:
        try:
            return await self._records.all()
        except JournalError as error:
            logger.debug("presence records can't be read, so consumers decide alone: %s", error)
            return None
