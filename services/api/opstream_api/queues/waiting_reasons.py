"""What operations wait for that have not started, for the status monitor.

The answer is in the consumer that an action's runners share: who pulls from it, and what it has delivered. One look is
shared by all operations of the action for a moment, so it costs a request of the broker a second, however many clients
poll. An operation that was just requested is not looked up at all: most start within milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_journal import Connection, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects
from opstream_schemas.action_spec import Policy
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import WaitingReason

_GRACE: Final = 2.0
"""Seconds from the request, for which no reason is given."""
_CACHE_SECONDS: Final = 1.0
_NOT_FOUND: Final = 404


class RunnerConsumer(msgspec.Struct, frozen=True):
    """The consumer that the runners of an action share."""

    num_ack_pending: int = 0
    """Messages that are with runners."""
    num_pending: int = 0
    """Messages that are with no runner yet."""
    num_waiting: int = 0
    """Requests of runners for messages: they have room."""
    error: rpc.JetStreamErrorBody | None = None


_decode: Final = msgspec.json.Decoder(RunnerConsumer).decode
_NO_CONSUMER: Final = RunnerConsumer(num_pending=1)


async def read_consumer(connection: Connection, kind: Kind) -> RunnerConsumer | None:
    """Return the consumer of an action's runners; None if there is none.

    Raises:
        JournalUnavailable: the broker did not respond, or refused.
    """
    name = f"{subjects.OPERATIONS_STREAM}.{subjects.runner_consumer(kind)}"
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
        self._cached: dict[Kind, tuple[float, RunnerConsumer]] = {}
        """By action: the end of caching on the clock, and what was found."""
        self._reads: dict[Kind, asyncio.Task[RunnerConsumer]] = {}

    async def reason_of(self, operation: Operation, policy: Policy) -> WaitingReason | None:
        """Return what an operation that has not started waits for, except for a resource; None if it is not known.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        waited = (self._now() - operation.due_at).total_seconds()
        if waited < 0 and operation.start_at is not None:
            return WaitingReason.START_TIME
        if waited < _GRACE:
            return None
        return _reason(await self._consumer_of(operation.kind), policy)

    async def _consumer_of(self, kind: Kind) -> RunnerConsumer:
        until, found = self._cached.get(kind, (0.0, _NO_CONSUMER))
        if self._clock() < until:
            return found
        return await asyncio.shield(self._reads.get(kind) or self._start_read(kind))

    def _start_read(self, kind: Kind) -> asyncio.Task[RunnerConsumer]:
        def forget(ended: asyncio.Task[RunnerConsumer]) -> None:
            del self._reads[kind]
            if not ended.cancelled():
                ended.exception()  # retrieved, so that asyncio does not log it if no caller waits any more

        task = self._reads[kind] = asyncio.create_task(self._read(kind), name=f"consumer of {kind}")
        task.add_done_callback(forget)
        return task

    async def _read(self, kind: Kind) -> RunnerConsumer:
        found = await read_consumer(self._connection, kind) or _NO_CONSUMER
        self._cached[kind] = (self._clock() + _CACHE_SECONDS, found)
        return found


def _reason(consumer: RunnerConsumer, policy: Policy) -> WaitingReason | None:
    if consumer.num_pending == 0:
        # A runner has had the message of every operation. It put aside those that the rate does not allow yet.
        return WaitingReason.RATE if policy.rate else None
    if policy.max_concurrency and consumer.num_ack_pending >= policy.max_concurrency:
        return WaitingReason.CONCURRENCY
    if consumer.num_waiting:
        return None  # it is about to be delivered
    return WaitingReason.FREE_RUNNER if consumer.num_ack_pending else WaitingReason.RUNNER
