"""The access log: it stores what was denied, and what administrators did, in a stream of its own (docs/adr/0053).

Nothing waits for it: who writes is a background task, or a command that has done its work.
"""

from __future__ import annotations

from typing import Final

from opstream_schemas import subjects
from opstream_schemas.logs.access_log import AccessRecord, DenialRecord, encode_access_record

from .errors import JournalUnavailable, NotProvisioned
from .jetstream import rpc
from .jetstream.connection import Connection

MISSING: Final = (
    f"the broker has no stream {subjects.ACCESS_LOG_STREAM}, or this login may not write to it: run 'opstream "
    "provision --update', and 'opstream broker-config' again if each role has its own login"
)

_TIMEOUT: Final = 2.0


class AccessLog:
    """The stream ACCESS_LOG over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, record: AccessRecord, *, is_proven: bool = False) -> None:
        """Store a record.

        Args:
            record: what to store.
            is_proven: whether a denial is one of a caller that proved who it is.

        Raises:
            NotProvisioned: there is no such stream, or this login may not write to it.
            JournalUnavailable: not acknowledged; it may be stored nevertheless.
            JournalFull: the account or the server has no room.
            BrokerRefused: the broker refused.
        """
        if isinstance(record, DenialRecord):
            subject = subjects.denial_subject(is_proven=is_proven)
        else:
            subject = subjects.act_subject(record.act)
        try:
            await rpc.publish(self._connection, subject, encode_access_record(record), {}, timeout=_TIMEOUT)
        except JournalUnavailable as error:
            self._connection.unanswered.remove(subject)  # no service is unwell because of this stream
            if rpc.has_no_responders(error):
                raise NotProvisioned(MISSING) from error
            raise
