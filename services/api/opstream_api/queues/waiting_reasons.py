"""What open operations wait for that don't run, for the status monitor (docs/adr/0060).

The answer is in the consumer that an action's runners share: who pulls from it, and what it has delivered; and in the
presence records of the runners. One look at both is shared by all operations of the action for a moment, so it costs
two requests of the broker a second, however many clients poll. An operation that was just requested is not looked up at
all: most start within milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream_journal import Connection, JournalError, JournalUnavailable
from opstream_journal.actions.action_controls import NO_CONTROL, ActionControls, shown_pause
from opstream_journal.jetstream import rpc
from opstream_journal.queues.consumer_backlogs import PauseConfig
from opstream_journal.queues.runner_records import NO_RUNNERS, ActionRunners, RunnerRecords, has_no_runner
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionPause, Policy
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import BlockedBy, WaitingReason

from .rate_slots import RateSlots

logger = logging.getLogger(__name__)

_GRACE: Final = 2.0
"""Seconds from the request, or from the time of a retry, for which no reason is given."""
_CACHE_SECONDS: Final = 1.0
_NOT_FOUND: Final = 404
_BULK_ORDER: Final = "it begins when the caller's bulk operations before it have ended"


class RunnerConsumer(msgspec.Struct, frozen=True):
    """The consumer that the runners of an action share."""

    num_ack_pending: int = 0
    """Messages that are with runners."""
    num_pending: int = 0
    """Messages that are with no runner yet."""
    num_waiting: int = 0
    """Requests of runners for messages: they have room."""
    config: PauseConfig = PauseConfig()
    paused: bool = False
    """Whether it delivers nothing now, because an operator wants that."""
    error: rpc.JetStreamErrorBody | None = None


class Look(msgspec.Struct, frozen=True):
    """What the broker says of the runners of an action at one moment."""

    consumer: RunnerConsumer
    presence: ActionRunners | None = None
    """None if it can't be read: an upgraded system before 'opstream provision --update', for example."""
    pause: ActionPause | None = None
    """None for an action that is not paused."""

    @property
    def has_no_runner(self) -> bool:
        """Return True if no runner takes operations of the action."""
        consumer = self.consumer
        return has_no_runner(self.presence, num_waiting=consumer.num_waiting, num_ack_pending=consumer.num_ack_pending)


_decode: Final = msgspec.json.Decoder(RunnerConsumer).decode
_NO_CONSUMER: Final = RunnerConsumer(num_pending=1)


async def read_consumer(connection: Connection, kind: Kind, queue: str = "") -> RunnerConsumer | None:
    """Return a consumer of an action's runners; None if there is none.

    Args:
        connection: the connection.
        kind: the action.
        queue: the priority of its further queue; empty for the one that each action has.

    Raises:
        JournalUnavailable: the broker did not respond, or refused.
    """
    name = f"{subjects.OPERATIONS_STREAM}.{subjects.runner_consumer(kind, queue)}"
    answer = await rpc.call(connection, f"$JS.API.CONSUMER.INFO.{name}")
    try:
        found = _decode(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer about {name} is not JetStream's", maybe_stored=False) from error
    if found.error is None:
        return found
    if found.error.code == _NOT_FOUND:
        return None
    raise JournalUnavailable(f"the consumer {name}: {found.error.description}", maybe_stored=False)


class WaitingReasons:
    """Finds out what operations wait for.

    Args:
        connection: the connection to the broker.
        now: returns the time with a time zone.
        clock: returns monotonic seconds.
    """

    def __init__(self, connection: Connection, now: Callable[[], datetime], clock: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now
        self._clock = clock
        self._slots = RateSlots(connection, now)
        self._records = RunnerRecords(connection)
        self._controls = ActionControls(connection)
        self._cached: dict[Kind, tuple[float, Look]] = {}
        """By action: the end of caching on the clock, and what was found."""
        self._reads: dict[Kind, asyncio.Task[Look]] = {}

    async def start(self) -> None:
        """Subscribe to the inboxes for reads."""
        await self._slots.start()
        await self._records.start()

    def is_due(self, operation: Operation) -> bool:
        """Return True if an operation that does not run is to be looked up: it should have begun a moment ago."""
        since = operation.waiting.retry_at if operation.waiting else operation.due_at
        if operation.has_its_signal:
            return True
        return (self._now() - since).total_seconds() >= _GRACE

    async def find(self, operation: Operation, policy: Policy) -> BlockedBy | None:
        """Return what an operation waits for that does not run, except for a resource; None if it is not known.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        waiting = operation.waiting
        wait = operation.wait
        if waiting is not None and wait is not None and wait.signal is None and self._now() < waiting.retry_at:
            if wait.child is not None:
                return BlockedBy(reason=WaitingReason.CHILD, operation_id=wait.child.id, message=wait.name)
            return BlockedBy(reason=WaitingReason.SLEEP, until=waiting.retry_at, message=wait.name)
        if waiting is not None and wait is None and self._now() < waiting.retry_at:
            return BlockedBy(
                reason=WaitingReason.RETRY,
                until=waiting.retry_at,
                attempt=operation.attempt,
                error=operation.attempt_error,
            )
        if waiting is None and operation.start_at is not None and self._now() < operation.start_at:
            return BlockedBy(reason=WaitingReason.START_TIME, until=operation.start_at)
        if not self.is_due(operation):
            return self._known_unserved(operation)
        if policy.rate and (slot := await self._slots.slot_of(operation)) is not None:
            return BlockedBy(reason=WaitingReason.RATE, until=slot)
        look = await self.look(operation.kind)
        if policy.served_queue(operation.queue):
            queue = await read_consumer(self._connection, operation.kind, operation.queue)
            look = look if queue is None else with_queue(look, queue)
        return blocked_by(look, operation.action_version, policy)

    async def find_for_bulk(self, operation: Operation) -> BlockedBy | None:
        """Return what a bulk operation waits for that does not run: a process of the API, or others of its caller.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        if not self.is_due(operation):
            return None
        look = await self.look(operation.kind)
        if look.has_no_runner:
            return BlockedBy(reason=WaitingReason.RUNNER)
        return BlockedBy(reason=WaitingReason.CONCURRENCY, message=_BULK_ORDER)

    def _known_unserved(self, operation: Operation) -> BlockedBy | None:
        """Return what the answer to its submit said, if that was a moment ago. It costs no read."""
        until, found = self._cached.get(operation.kind, (0.0, None))
        is_known = found is not None and self._clock() < until
        return unserved(found, operation.action_version) if found is not None and is_known else None

    async def look(self, kind: Kind, *, is_fresh: bool = False) -> Look:
        """Return what the broker says of the runners of an action, at most a second ago.

        Args:
            kind: the action.
            is_fresh: whether to ask now, whatever was found a moment ago.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        until, found = self._cached.get(kind, (0.0, None))
        if found is not None and self._clock() < until and not is_fresh:
            return found
        return await asyncio.shield(self._reads.get(kind) or self._start_read(kind))

    def _start_read(self, kind: Kind) -> asyncio.Task[Look]:
        def forget(ended: asyncio.Task[Look]) -> None:
            del self._reads[kind]
            if not ended.cancelled():
                ended.exception()  # retrieved, so that asyncio does not log it if no caller waits any more

        task = self._reads[kind] = asyncio.create_task(self._read(kind), name=f"runners of {kind}")
        task.add_done_callback(forget)
        return task

    async def _read(self, kind: Kind) -> Look:
        consumer, presence = await asyncio.gather(read_consumer(self._connection, kind), self._read_presence(kind))
        consumer = consumer or _NO_CONSUMER
        found = Look(consumer, presence, await self._read_pause(kind, consumer) if consumer.paused else None)
        self._cached[kind] = (self._clock() + _CACHE_SECONDS, found)
        return found

    async def _read_presence(self, kind: Kind) -> ActionRunners | None:
        try:
            return await self._records.of(kind)
        except JournalError as error:
            logger.debug("presence records can't be read: %s", error)  # an outage has its lines already, of others
            return None

    async def _read_pause(self, kind: Kind, consumer: RunnerConsumer) -> ActionPause | None:
        control = NO_CONTROL
        try:
            control = await self._controls.of(kind)
        except JournalError as error:
            logger.debug("who paused %s can't be read: %s", kind, error)
        return shown_pause(consumer.config.pause_until, control)


def with_queue(look: Look, queue: RunnerConsumer) -> Look:
    """Return a look at the runners of an action for an operation that waits in a further queue of it."""
    first = look.consumer
    merged = msgspec.structs.replace(
        first,
        num_ack_pending=first.num_ack_pending + queue.num_ack_pending,
        num_pending=queue.num_pending,
        num_waiting=queue.num_waiting,
    )
    return Look(merged, look.presence, look.pause)


def unserved(look: Look, version: int) -> BlockedBy | None:
    """Return why no runner takes a new operation of an action; None if one does. A pause comes before all else.

    Args:
        look: at the action's runners.
        version: of the action that the operation would be requested for. Runners of an earlier one don't take it.
    """
    if look.pause is not None:
        return _paused(look.pause)
    presence = look.presence or NO_RUNNERS
    # A runner that waits for work asks for it again every few seconds, so for a moment the consumer may know of none.
    if look.has_no_runner and not presence.runners:
        return _no_runner(presence)
    versions = presence.versions
    return _other_version(version, versions) if versions and versions[-1] < version else None


def blocked_by(look: Look, version: int, policy: Policy) -> BlockedBy | None:
    """Return what an operation waits for that should have begun; None if that is not known.

    Args:
        look: at the action's runners.
        version: of the action that the operation was requested for.
        policy: of the action.
    """
    if look.pause is None and look.has_no_runner:
        return _no_runner(look.presence or NO_RUNNERS)
    reason = unserved(look, version)
    if reason is not None:
        return reason
    consumer, presence = look.consumer, look.presence or NO_RUNNERS
    if consumer.num_pending == 0:
        # A runner has had the message of every operation. It put this one aside, or left it to others: its input may
        # be one that runners of a later version can't read.
        versions = presence.versions
        return _other_version(version, versions) if versions and version not in versions else None
    if policy.max_concurrency and consumer.num_ack_pending >= policy.max_concurrency:
        return BlockedBy(reason=WaitingReason.CONCURRENCY, slots=policy.max_concurrency)
    if consumer.num_waiting:
        return None  # it is about to be delivered
    slots = sum(one.slots for one in presence.runners)
    return BlockedBy(reason=WaitingReason.FREE_RUNNER, runners=len(presence.runners), slots=slots)


def _paused(pause: ActionPause) -> BlockedBy:
    return BlockedBy(
        reason=WaitingReason.PAUSED, since=pause.since, until=pause.until, by=pause.by, message=pause.reason
    )


def _no_runner(presence: ActionRunners) -> BlockedBy:
    since = datetime.fromtimestamp(presence.seen_at, UTC).replace(microsecond=0) if presence.seen_at else None
    return BlockedBy(reason=WaitingReason.RUNNER, since=since)


def _other_version(version: int, versions: tuple[int, ...]) -> BlockedBy:
    return BlockedBy(reason=WaitingReason.VERSION, version=version, runner_versions=versions)
