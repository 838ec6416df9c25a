"""The stream SCHEDULES: what was decided about each schedule, and what became of its moments (docs/adr/0061)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream_journal.errors import BrokerRefused, JournalFull, NotProvisioned, VersionConflict
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.rpc import StoredMessage, expected_version_headers
from opstream_journal.provisioning.topology import MAX_SCHEDULE_BYTES, MAX_SCHEDULE_EVENTS
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.schedules.schedule import Schedule
from opstream_schemas.schedules.schedule_event import (
    OccurrenceRecord,
    ScheduleAct,
    ScheduleChanged,
    ScheduleState,
    decode_changed,
    decode_occurrence,
    encode_schedule_event,
)

MISSING: Final = (
    f"the broker has no stream {subjects.SCHEDULES_STREAM}: run 'opstream provision --update', and 'opstream "
    "broker-config' again if each role has its own login"
)

SHARE: Final = 0.9
"""Of the messages of the stream that new schedules and changes may use. The rest is for pauses, deletions and
what becomes of moments."""

_STREAM: Final = subjects.SCHEDULES_STREAM
_ALL: Final = "schedules.>"
_PAGE: Final = 500
_TIMEOUT: Final = 5.0
_WRONG_VERSION: Final = 10071
_FULL: Final = 10077
_FULL_REASON: Final = "maximum messages"
_UNREADABLE: Final = ScheduleChanged(
    act=ScheduleAct.DELETED,
    at=datetime(1970, 1, 1, tzinfo=UTC),
    name="unreadable",
    created_at=datetime(1970, 1, 1, tzinfo=UTC),
    definition=Schedule(action="opstream:unreadable", every=60),
)


class ScheduleStream:
    """The stream SCHEDULES over one connection.

    Args:
        connection: the connection, which is up.
        key_of: returns the key of a tenant's schedule by tenant and name. What stands under another key was not
            written by this installation's services, and is no schedule.
    """

    def __init__(self, connection: Connection, key_of: Callable[[str, str], str]) -> None:
        self._connection = connection
        self._key_of = key_of
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from the inbox."""
        await self._reader.stop()

    async def page(self, sequence: int) -> list[StoredMessage]:
        """Return messages from a stream sequence on, in order; none at the end. Any replica may answer.

        Raises:
            JournalUnavailable: no replica answered, or there is no such stream.
            BrokerRefused: the broker refused.
        """
        request = {"next_by_subj": _ALL, "seq": max(1, sequence), "batch": _PAGE}
        return await self._reader.read(_STREAM, request, timeout=_TIMEOUT)

    async def history(self, key: str) -> list[OccurrenceRecord]:
        """Return what became of the moments of a schedule, oldest first, as far as it is kept.

        Raises:
            JournalUnavailable, BrokerRefused: as `page`.
        """
        request = {"next_by_subj": subjects.schedule_subject(key, "occurred"), "seq": 1, "batch": _PAGE}
        found = []
        for message in await self._reader.read(_STREAM, request, timeout=_TIMEOUT):
            try:
                found.append(decode_occurrence(message.data))
            except InvalidEvent:
                continue  # another client's
        return found

    async def state(self, key: str) -> ScheduleState | None:
        """Return a schedule as its leader has it; None if there was none of this key.

        One that can't be read, as another client may have written it, is as a deleted one: it can be set again.

        Raises:
            NotProvisioned: there is no such stream.
            JournalUnavailable: no leader answered.
            BrokerRefused: the broker refused.
        """
        try:
            changed = await rpc.get_last(self._connection, _STREAM, subjects.schedule_subject(key, "changed"))
            last = await rpc.get_last(self._connection, _STREAM, subjects.schedule_subject(key, "occurred"))
        except BrokerRefused as refused:
            raise _explained(refused) from refused
        if changed is None:
            return None
        try:
            return self.make_state(key, changed, last)
        except InvalidEvent:
            gone = ScheduleState(key=key, changed=_UNREADABLE, changed_sequence=changed.seq)
            return gone if last is None else with_record(gone, last)

    def make_state(self, key: str, changed: StoredMessage, last: StoredMessage | None) -> ScheduleState:
        """Return the state of a schedule from its last messages.

        Raises:
            InvalidEvent: the decision can't be read, or stands under a key that is not its own. A record that can't be
                read is left out.
        """
        decision = decode_changed(changed.data)
        if self._key_of(decision.tenant, decision.name) != key:
            raise InvalidEvent(f"the schedule {decision.name} stands under a key that is not its own")
        state = ScheduleState(key=key, changed=decision, changed_sequence=changed.seq)
        return state if last is None else with_record(state, last)

    async def has_room(self) -> bool:
        """Return True if the stream may take new schedules; otherwise the rest is for those that are there.

        Raises:
            JournalUnavailable: no leader answered.
        """
        answer = await rpc.call(self._connection, f"$JS.API.STREAM.INFO.{_STREAM}")
        info = msgspec.json.decode(answer.data, type=_RoomInfo)
        return info.state.messages < SHARE * MAX_SCHEDULE_EVENTS and info.state.bytes < MAX_SCHEDULE_BYTES

    async def change(self, key: str, event: ScheduleChanged, expected: int) -> int:
        """Store a decision, if the last one is still at `expected` (0: there was none). Return its stream sequence.

        Raises:
            VersionConflict: another one was first.
            NotProvisioned, JournalUnavailable, BrokerRefused: as `state`.
        """
        return await self._append(
            key, subjects.schedule_subject(key, "changed"), encode_schedule_event(event), expected
        )

    async def record(self, key: str, record: OccurrenceRecord, expected: int) -> int:
        """Store what became of a moment; otherwise as `change`."""
        return await self._append(
            key, subjects.schedule_subject(key, "occurred"), encode_schedule_event(record), expected
        )

    async def _append(self, key: str, subject: str, payload: bytes, expected: int) -> int:
        try:
            return await rpc.publish(self._connection, subject, payload, expected_version_headers(subject, expected))
        except BrokerRefused as refused:
            if refused.err_code == _WRONG_VERSION:
                raise VersionConflict(key, expected, 0) from refused
            if refused.err_code == _FULL and _FULL_REASON in refused.description:
                raise JournalFull(f"the stream {_STREAM} has reached its max_msgs") from refused
            raise _explained(refused) from refused


class _RoomState(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0


class _RoomInfo(msgspec.Struct, frozen=True):
    state: _RoomState = _RoomState()
    error: rpc.JetStreamErrorBody | None = None


def with_record(state: ScheduleState, message: StoredMessage) -> ScheduleState:
    """Return the state with its last record of a moment; one that can't be read counts only as the last."""
    record: OccurrenceRecord | None = state.last
    with contextlib.suppress(InvalidEvent):
        found = decode_occurrence(message.data)
        # What was before is of a deleted schedule of this name, perhaps another caller's.
        record = found if found.recorded_at >= state.changed.created_at else None
    return ScheduleState(
        key=state.key,
        changed=state.changed,
        changed_sequence=state.changed_sequence,
        last=record,
        last_sequence=message.seq,
    )


def _explained(refused: BrokerRefused) -> Exception:
    return NotProvisioned(MISSING) if refused.err_code == rpc.STREAM_NOT_FOUND else refused
