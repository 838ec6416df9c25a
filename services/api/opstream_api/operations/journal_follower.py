"""Folds each new event of the journal into the operation that it belongs to, if this process has that in its cache.

Most polls that see an end then need no read: a terminal state is final, however it was learned. A state that is still
open is compared with the journal's last event at each poll, as ever, so nothing depends on how current this is.

Requests that wait for an operation hear of its events from here (ADR 0010), after they are stored: an event of a batch
travels to subscribers of its subject long before.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from opstream_api.access.limits.open_survey import OpenSurvey
from opstream_journal import Connection, JournalError
from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds, stream_identity
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import decode_event

from .brief_waits import BriefWaits
from .status import StatusReader
from .watch import CATCH_UP_DELAYS, ENDS, WatchRegistry

logger = logging.getLogger(__name__)

_EVENTS: Final = "operations"
"""The first token of the events' subjects; timers that have fired have others."""
_LINGER: Final = 0.005
"""Seconds between two looks at what has come: a wake-up for each event would cost more than the event."""
_HEARTBEAT: Final = 0.5
"""Seconds. A consumer whose server has ended falls silent, and that is noticed after two seconds."""
_PAUSE: Final = 1.0


class JournalFollower:
    """Follows the journal from now on.

    Args:
        connection: the connection.
        status: holds the cached operations.
        watches: hear of each event.
        brief_waits: hear of each end.
        survey: counts what each caller has open; None for a service without that limit.
    """

    def __init__(
        self,
        connection: Connection,
        status: StatusReader,
        watches: WatchRegistry,
        brief_waits: BriefWaits,
        survey: OpenSurvey | None = None,
    ) -> None:
        self._connection = connection
        self._status = status
        self._watches = watches
        self._brief_waits = brief_waits
        self._survey = survey

    async def run(self) -> None:
        """Follow until cancelled. While the broker is away nothing is learned, and polls read as before."""
        while True:
            try:
                await self._follow()
            except JournalError as error:
                logger.debug("the journal is not followed: %s", error)
            except Exception:
                # Without it requests wait for their next periodic read, so it begins again, whatever it was.
                logger.exception("the journal is not followed for a moment, because of an error in the service")
            self._brief_waits.forget()
            await self._connection.sleep(_PAUSE)

    async def _follow(self) -> None:
        stream = await stream_identity(self._connection, subjects.OPERATIONS_STREAM)
        self._watches.refresh_all()  # of what was stored until now they hear nothing
        # Without patience: after an outage it begins again with what is new, and reads nothing that it missed.
        survey = self._survey
        scan = scan_stream(
            self._connection,
            subjects.OPERATIONS_STREAM,
            first=stream.last + 1 if survey is None else await survey.begin(stream.last),
            is_following=True,
            patience=0.0,
            heartbeat=_HEARTBEAT,
        )
        async with contextlib.aclosing(scan) as batches:
            async for batch in batches:
                is_shown = stream.replicas == 1 or await self._is_shown(batch[-1].sequence)
                for message in batch:
                    self._take(message, is_shown=is_shown)
                if survey is not None:
                    survey.taken_until(batch[-1].sequence)
                await self._watches.pause(_LINGER)

    async def _is_shown(self, sequence: int) -> bool:
        """Return True once the leader shows an event, which another server has delivered; False if it is too late.

        A status that has an event before the leader shows it would be newer than what another API answers next.
        """
        for pause in CATCH_UP_DELAYS:
            if (await stream_bounds(self._connection, subjects.OPERATIONS_STREAM)).last >= sequence:
                return True
            await self._connection.sleep(pause)
        return False

    def _take(self, message: ScannedMessage, *, is_shown: bool) -> None:
        first, _, rest = message.subject.partition(".")
        if first != _EVENTS:
            return
        operation_id, event_name = rest.partition(".")[0], rest.rpartition(".")[2]
        if self._survey is not None:
            self._survey.take(operation_id, event_name, message.data)
        if event_name in ENDS:
            self._brief_waits.add_end(operation_id)
        if is_shown and self._status.is_followed(operation_id, message.sequence):
            self._fold(message)
        self._watches.notify(operation_id, event_name, message.sequence)

    def _fold(self, message: ScannedMessage) -> None:
        try:
            self._status.fold_next(decode_event(message.data, message.sequence, message.subject))
        except (InvalidEvent, FoldRefused) as error:
            logger.debug("sequence %s (%s): %s", message.sequence, message.subject, error)
