"""Finds the operations that are open at the start, and follows the journal's events from there.

An open operation older than half a minute has the timer of its deadline (docs/adr/0012). So the timers say which are
open, their snapshots say whose they are, and the events after what the projector has handled say the rest. Nothing is
kept for this anywhere, so nothing can be wrong after a kill.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from opstream_api.access.principal import Owner
from opstream_journal import Connection, JournalError
from opstream_journal.queues.consumer_backlogs import read_backlog
from opstream_journal.queues.message_ages import MessageAges
from opstream_journal.stores.snapshots import SnapshotReader
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, Failed, Requested, Succeeded

from .open_operations import OpenOperations

logger = logging.getLogger(__name__)

_ENDS: Final = frozenset({Succeeded.name, Failed.name, Canceled.name})
_TRIES: Final = 3
_PAUSE: Final = 1.0


class _RequestedData(msgspec.Struct, rename="camel"):
    caller: str = ""
    tenant: str = ""
    own_id: str = ""
    parent: msgspec.Raw | None = None


class _RequestedEvent(msgspec.Struct):
    data: _RequestedData


_decode: Final = msgspec.json.Decoder(_RequestedEvent).decode


class OpenSurvey:
    """Keeps `OpenOperations` up to date.

    Args:
        connection: the connection.
        operations: the open operations.
    """

    def __init__(self, connection: Connection, operations: OpenOperations) -> None:
        self._connection = connection
        self.operations = operations
        self.known = asyncio.Event()
        """Set once all that was open at the start counts."""
        self._until = 0
        """The stream sequence of the last event at the start."""

    async def begin(self, last: int) -> int:
        """Count what is open, and return the stream sequence from which on the events must be taken.

        If the broker does not let it, what is open now does not count; the events are followed all the same.

        Args:
            last: the stream sequence of the last event now.
        """
        self._until = last
        for _ in range(_TRIES):
            try:
                first, found = await self._survey(last)
            except JournalError as error:
                problem = error
                await self._connection.sleep(_PAUSE)
            else:
                self.operations.replace(found, first)
                self.taken_until(first - 1)
                return first
        logger.warning("the operations that are open now count for no limit of their callers: %s", problem)
        self.operations.replace({}, last + 1)  # what has ended unseen would count for ever
        self.taken_until(last)
        return last + 1

    async def _survey(self, last: int) -> tuple[int, dict[str, Owner]]:
        first = last + 1
        # Before the timers are read: what is handled until here has its timer then, or has ended.
        for name in (subjects.PROJECTOR_CONSUMER, subjects.PROJECTOR_DEADLINES_CONSUMER):
            backlog = await read_backlog(self._connection, subjects.OPERATIONS_STREAM, name)
            if backlog.open:
                first = min(first, backlog.first_open)
        found: dict[str, Owner] = {}
        timers, snapshots = MessageAges(self._connection), SnapshotReader(self._connection)
        async with AsyncExitStack() as stack:
            for reader in (timers, snapshots):
                await reader.start()
                stack.push_async_callback(reader.stop)
            async for page in timers.pages(subjects.TIMERS_STREAM, subjects.DEADLINES_FILTER):
                found.update(await _owners(snapshots, [subjects.parse_timer_subject(one.subject)[0] for one in page]))
        return first, found

    def take(self, operation_id: str, event_name: str, data: bytes) -> None:
        """Learn from an event."""
        if event_name in _ENDS:
            self.operations.end(operation_id)
        elif event_name == Requested.name:
            try:
                requested = _decode(data).data
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return  # no event of opstream
            if requested.own_id and requested.parent is None:
                self.operations.add(operation_id, Owner(requested.tenant, requested.caller))

    def taken_until(self, sequence: int) -> None:
        """Learn that all events up to a stream sequence were taken."""
        if sequence >= self._until:
            self.known.set()


async def _owners(reader: SnapshotReader, ids: Iterable[str]) -> dict[str, Owner]:
    """Return whose the open ones of some operations are. What no caller with credentials has begun is left out, and so
    are children: their parents count."""
    entries = await reader.get([one for one in ids if one])
    operations = [entry.operation for entry in entries.values()]
    counted = [one for one in operations if one and one.own_id and one.parent is None and not one.is_terminal]
    return {one.id: Owner(one.tenant, one.caller) for one in counted}


def open_survey(connection: Connection, limit: int) -> OpenSurvey | None:
    """Return the survey of a service that limits what each caller has open; None for a limit of 0, which is none."""
    return OpenSurvey(connection, OpenOperations(limit)) if limit else None


async def wait_for_survey(survey: OpenSurvey | None, patience: float) -> None:
    """Wait until the service knows what each caller has open. After `patience` seconds it serves all the same."""
    if survey is None:
        return
    try:
        async with asyncio.timeout(patience):
            await survey.known.wait()
    except TimeoutError:
        logger.warning("not all open operations are counted after %g s: callers may begin more until then", patience)
