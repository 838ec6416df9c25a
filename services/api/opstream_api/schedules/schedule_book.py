"""The schedules as one process knows them: it reads the stream from its first message, and follows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from opstream_api.access.principal import Owner
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_journal.outage_log import BoundedLog
from opstream_journal.schedules.schedule_stream import ScheduleStream, with_record
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.schedules.schedule_event import ScheduleState

from .schedule_usage import ScheduleUsage

logger = logging.getLogger(__name__)


class ScheduleBook:
    """The schedules, by their keys; deleted ones are not in it.

    Args:
        stream: started.
    """

    def __init__(self, stream: ScheduleStream) -> None:
        self._stream = stream
        self._sequence = 0
        self._states: dict[str, ScheduleState] = {}
        self.usage = ScheduleUsage()
        self._foreign = BoundedLog(logger, "messages among the schedules that are none")

    def __iter__(self) -> Iterator[ScheduleState]:
        return iter(list(self._states.values()))

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: str) -> ScheduleState | None:
        """Return a schedule as it is known here; None without one."""
        return self._states.get(key)

    def put(self, state: ScheduleState) -> None:
        """Learn of a state that the leader has."""
        if state.is_deleted:
            self._states.pop(state.key, None)
        else:
            self._states[state.key] = state

    async def refresh(self) -> None:
        """Read what is new.

        Raises:
            JournalUnavailable, BrokerRefused: as `ScheduleStream.page`.
        """
        while page := await self._stream.page(self._sequence + 1):
            for message in page:
                self._learn(message)
            self._sequence = max(self._sequence, page[-1].seq)

    def _learn(self, message: StoredMessage) -> None:
        key = subjects.parse_schedule_subject(message.subject)
        known = self._states.get(key)
        if message.subject == subjects.schedule_subject(key, "occurred"):
            if known is not None and message.seq > known.last_sequence:
                self._states[key] = with_record(known, message)
            return
        try:
            state = self._stream.make_state(key, message, None)
        except InvalidEvent as error:
            self._foreign.log(logging.ERROR, "sequence %s is no schedule: %s", message.seq, error)
            return
        owner = Owner(state.changed.tenant, state.changed.caller)
        self.usage.note(key, owner, message.seq, len(message.data), is_there=not state.is_deleted)
        if known is not None and message.seq <= known.changed_sequence:
            return
        if known is not None:
            state = ScheduleState(
                key=key,
                changed=state.changed,
                changed_sequence=message.seq,
                last=known.last,
                last_sequence=known.last_sequence,
            )
        self.put(state)
