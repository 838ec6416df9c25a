"""What the broker still has of the messages that move late operations on: timers, and those that have fired.

Reads come from any replica. One that is behind shows less than there is, and then a message is sent twice, which does
no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_schemas import subjects
from opstream_schemas.operation.lateness import LateCause, MessageTraces
from opstream_schemas.operation.state import Operation

TRACED_AT_ONCE: Final = 64
"""Operations in one request. The broker refuses to answer with more than 1,024 messages; an operation has a few."""
_TIMEOUT: Final = 10.0
_AT: Final = "@at "
_NO_TRACES: Final = MessageTraces()


class TraceReader:
    """Reads the traces of many operations with few requests.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from the inbox."""
        await self._reader.stop()

    async def read(self, late: Sequence[tuple[Operation, LateCause]]) -> list[MessageTraces]:
        """Return the traces of what each operation waits for, in the same order.

        Args:
            late: at most `TRACED_AT_ONCE` operations, and what is late of them.

        Raises:
            JournalUnavailable: no replica answered, or not in time.
            BrokerRefused: another error.
        """
        timers: dict[str, list[StoredMessage]] = {}
        filters = [subjects.operation_timers_filter(operation.id) for operation, _ in late]
        for message in await self._reader.read(subjects.TIMERS_STREAM, {"multi_last": filters}, timeout=_TIMEOUT):
            timers.setdefault(subjects.parse_timer_subject(message.subject)[0], []).append(message)
        fired: dict[str, StoredMessage] = {}
        filters = [_fired_filter(operation, cause) for operation, cause in late]
        for message in await self._reader.read(subjects.OPERATIONS_STREAM, {"multi_last": filters}, timeout=_TIMEOUT):
            operation_id = message.subject.split(".")[3]
            if operation_id not in fired or fired[operation_id].seq < message.seq:
                fired[operation_id] = message
        return [_traces(cause, timers.get(operation.id, []), fired.get(operation.id)) for operation, cause in late]


def _fired_filter(operation: Operation, cause: LateCause) -> str:
    wakes, deadline = subjects.fired_messages_filters(operation.kind, operation.id)
    return deadline if cause is LateCause.DEADLINE else wakes


def _traces(cause: LateCause, timers: Sequence[StoredMessage], fired: StoredMessage | None) -> MessageTraces:
    is_wanted = cause is LateCause.DEADLINE
    times = tuple(
        datetime.fromisoformat(message.schedule.removeprefix(_AT))
        for message in timers
        # The wake-up after a signal or a cancel is none of them: they are of the end of the wait.
        if cause not in {LateCause.SIGNAL, LateCause.CANCEL}
        and subjects.is_deadline(subjects.parse_timer_subject(message.subject)[1]) is is_wanted
        and message.schedule.startswith(_AT)
    )
    if fired is None:
        return MessageTraces(timers=times) if times else _NO_TRACES
    queue = "" if is_wanted else subjects.parse_wake_subject(fired.subject).priority
    return MessageTraces(timers=times, sequence=fired.seq, stored_at=datetime.fromisoformat(fired.time), queue=queue)
