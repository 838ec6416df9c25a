"""Events that subscribers could not handle (dead letters): which there are, and to have one handled again."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import msgspec

from opstream_api.access.denials.access_recorder import AccessRecorder
from opstream_api.errors import ApiError
from opstream_journal import Connection
from opstream_journal.stores import dead_letters
from opstream_journal.stores.dead_letters import DeadLetter
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.names import check_durable_name
from opstream_schemas.subjects import parse_event_subject

from .administrator import Administrator

PAGE_SIZE: Final = 200
"""Dead letters that one request looks at."""
TRY_TIMEOUT: Final = 30.0
"""Seconds in which a subscriber has to handle an event."""

_DONE: Final = "done"


class ParkedItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A dead letter as a client reads it."""

    durable: str
    """Of the subscriber."""
    sequence: int
    """Of the event in the stream OPERATIONS."""
    operation_id: str
    """By which the client knows it."""
    action: str
    event: str
    reason: str
    detail: str
    deliveries: int


class ParkedItems(NamedTuple):
    """A page."""

    items: list[ParkedItem]
    last: tuple[str, int] | None
    """Durable and sequence with which it ends; None on the last page."""


class DeadLetterDesk:
    """One process's.

    Args:
        connection: the connection.
        recorder: gets each act; None for no record.
    """

    def __init__(self, connection: Connection, recorder: AccessRecorder | None) -> None:
        self._connection = connection
        self._recorder = recorder

    async def parked(self, asker: Administrator, after: tuple[str, int]) -> ParkedItems:
        """Return a page of dead letters, by durable and sequence.

        Args:
            asker: who asks; it sees the operations of its tenant.
            after: durable and sequence behind which the page begins.

        Raises:
            ApiError: `Forbidden`; as `Administrator.find_stored`.
            JournalError: the broker did not answer, or refused.
        """
        asker.check("see what subscribers could not handle")
        if not await dead_letters.exists(self._connection):
            return ParkedItems([], None)  # its first subscriber makes the stream
        keys = [key for key in await dead_letters.keys(self._connection) if key > after]
        page = keys[:PAGE_SIZE]
        letters = await asyncio.gather(*(dead_letters.find(self._connection, *key) for key in page))
        items = await asyncio.gather(*(self._shown(asker, letter) for letter in letters if letter is not None))
        return ParkedItems([item for item in items if item is not None], page[-1] if len(keys) > PAGE_SIZE else None)

    async def retry(self, asker: Administrator, durable: str, sequence: int) -> None:
        """Have the subscriber handle a dead letter again now. One that it handles is not parked any more.

        Raises:
            ApiError: `Forbidden`; `DeadLetterNotFound`; `HandlingFailed`: it stays parked; `ServiceNotRunning`.
            JournalError: the broker did not answer, or refused.
        """
        asker.check("have events handled again")
        try:
            check_durable_name(durable)
        except InvalidName:
            raise _not_found(durable, sequence) from None
        is_there = await dead_letters.exists(self._connection)
        letter = await dead_letters.find(self._connection, durable, sequence) if is_there else None
        if letter is None or await self._shown(asker, letter) is None:
            raise _not_found(durable, sequence)
        answer = await dead_letters.ask_retry(self._connection, durable, sequence, timeout=TRY_TIMEOUT)
        if answer is None:
            raise ApiError(ErrorCode.SERVICE_NOT_RUNNING, f"no subscriber {durable!r} runs: start it, then try again")
        if asker.principal is not None and self._recorder is not None:
            self._recorder.note_act(AdminAct.HANDLED_AGAIN, asker.principal, f"{durable}.{sequence}")
        if answer != _DONE:
            raise ApiError(ErrorCode.HANDLING_FAILED, f"{durable} {sequence}: {answer}")

    async def _shown(self, asker: Administrator, letter: DeadLetter) -> ParkedItem | None:
        """Return a letter as the asker sees it; None for one of another tenant."""
        try:
            parsed = parse_event_subject(letter.subject)
        except InvalidName:
            return None  # another client's
        operation = await asker.find_stored(parsed.operation_id)
        if operation is None:
            return None
        return ParkedItem(
            durable=letter.durable,
            sequence=letter.sequence,
            operation_id=operation.own_id,
            action=str(parsed.kind),
            event=parsed.event,
            reason=letter.reason,
            detail=letter.detail,
            deliveries=letter.deliveries,
        )


def _not_found(durable: str, sequence: int) -> ApiError:
    message = f"nothing of {durable[:80]!r} is parked under {sequence}"
    return ApiError(ErrorCode.DEAD_LETTER_NOT_FOUND, message)
