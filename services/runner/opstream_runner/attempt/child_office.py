"""Answers what a handler asks about its operation's children: by the journal, and by an API, which submits them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from typing import Final

import msgspec

from opstream_journal import Connection, Journal, JournalUnavailable
from opstream_journal.errors import EventTooLarge, JournalError
from opstream_journal.jetstream import rpc
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_payloads.documents import Documents
from opstream_payloads.errors import PayloadError, StoreUnavailable
from opstream_runner.steps.children import (
    ChildOutcome,
    ChildrenAsk,
    ChildrenReply,
    FetchOutcomes,
    LookAtChildren,
    SubmitChildren,
)
from opstream_runner.steps.step_errors import StepUnreadable
from opstream_schemas import subjects
from opstream_schemas.children.plan import ChildState
from opstream_schemas.children.requests import ChildrenRequest, decode_children_answer
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import Canceled, Failed, Succeeded, decode_event
from opstream_schemas.operation.state import Operation
from opstream_schemas.payloads.payload_ref import PayloadRef

from .handler_calls import HandlerCalls

logger = logging.getLogger(__name__)

_READS_AT_ONCE: Final = 64
_API_TIMEOUT: Final = 10.0
"""Seconds for an answer of the API, which has 4.5 for each child and submits a hundred at once."""
_API_TRIES: Final = 3
_RETRY_PAUSE: Final = 0.5
_STORE_PAUSE: Final = 2.0
_REPLY_BYTES: Final = 8 * 1024 * 1024
"""Of the results in one answer, if it has more than one."""
_STATES: Final = {
    Succeeded.name: ChildState.SUCCEEDED,
    Failed.name: ChildState.FAILED,
    Canceled.name: ChildState.CANCELED,
}


class ChildOffice:
    """The children of one attempt's operation.

    Args:
        connection: asks the API.
        journal: has the children.
        operation: the parent.
        token: the attempt's.
        documents: have the results that are too large for an event.
        loop: the runner's.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        operation: Operation,
        token: str,
        documents: Documents,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._parent = operation.id
        self._kind = operation.kind
        self._token = token
        self._documents = documents
        self._calls = HandlerCalls(loop)

    def ask(self, ask: ChildrenAsk) -> concurrent.futures.Future[ChildrenReply]:
        """Ask; callable from any thread. See `ChildrenAsker`."""
        return self._calls.start(lambda: self._reply(ask))

    def close(self) -> None:
        """Answer nothing any more: the attempt is over."""
        self._calls.close()

    async def _reply(self, ask: ChildrenAsk) -> ChildrenReply:
        match ask:
            case LookAtChildren(group=group, first=first):
                ids = [group.child_id(self._parent, index) for index in range(first, group.count)]
                return ChildrenReply(states=tuple(_state(message) for message in await self._last(ids)))
            case FetchOutcomes(group=group, places=places):
                return await self._outcomes([group.child_id(self._parent, index) for index in places])
            case SubmitChildren():
                reply = await self._submit(ask)
                crash_point(CrashPoint.RUNNER_CHILDREN_BEGUN)
                return reply

    async def _outcomes(self, ids: list[str]) -> ChildrenReply:
        """Return the outcomes of the first of these children, of at least one: as many as one answer may hold."""
        found: list[ChildOutcome] = []
        size = 0
        for child, message in zip(ids, await self._last(ids), strict=True):
            outcome = await self._outcome(child, message)
            size += 0 if isinstance(outcome.result, msgspec.UnsetType) else len(outcome.result)
            if found and size > _REPLY_BYTES:
                break
            found.append(outcome)
        return ChildrenReply(outcomes=tuple(found))

    async def _outcome(self, child: str, message: rpc.StoredMessage | None) -> ChildOutcome:
        """Return how a child has ended, and wait for a payload store that is away.

        Raises:
            InvalidEvent: it has not, so its subjects have a message that is no event of it.
            StepUnreadable: its result can't be read.
        """
        data = None if message is None else decode_event(message.data, message.seq, message.subject).data
        match data:
            case Succeeded(result=result, result_payload=payload):
                return ChildOutcome(state=ChildState.SUCCEEDED, result=await self._document(child, result, payload))
            case Failed(error=error):
                return ChildOutcome(state=ChildState.FAILED, error=error)
            case Canceled(reason=reason):
                return ChildOutcome(state=ChildState.CANCELED, reason=reason)
            case _:
                raise InvalidEvent("a child that has ended has no outcome any more")

    async def _document(
        self, child: str, result: msgspec.Raw | msgspec.UnsetType, payload: PayloadRef | None
    ) -> msgspec.Raw:
        while True:
            try:
                return await self._documents.read(child, result, payload)
            except StoreUnavailable as error:
                logger.debug("operation %s: the result of its child can't be read: %s", self._parent, error)
                await asyncio.sleep(_STORE_PAUSE)
            except PayloadError as error:
                raise StepUnreadable(f"the result of the child {child} can't be read: {error}") from error

    async def _last(self, ids: list[str]) -> list[rpc.StoredMessage | None]:
        """Return the last message of each operation, retried until the journal answers or the attempt is over."""
        found: list[rpc.StoredMessage | None] = []
        while len(found) < len(ids):
            some = ids[len(found) : len(found) + _READS_AT_ONCE]
            try:
                found += await asyncio.gather(*(self._journal.last_message(one) for one in some))
            except JournalUnavailable as error:
                logger.debug("operation %s: its children can't be read: %s", self._parent, error)
                await asyncio.sleep(_RETRY_PAUSE)
        return found

    async def _submit(self, ask: SubmitChildren) -> ChildrenReply:
        request = msgspec.json.encode(
            ChildrenRequest(
                parent=self._parent, token=self._token, name=ask.group.name, key=ask.group.key, items=ask.items
            )
        )
        why = ""
        for tries in range(_API_TRIES):
            if tries:
                await asyncio.sleep(_RETRY_PAUSE)
            try:
                found = await rpc.call(
                    self._connection, subjects.children_subject(self._kind), request, timeout=_API_TIMEOUT
                )
            except EventTooLarge as error:
                return ChildrenReply(refusal=f"{ask.items[0].action}: its input is too large: {error}")
            except JournalError as error:
                why = str(error)
                continue
            answer = decode_children_answer(found.data)
            if answer.error is None:
                return ChildrenReply()
            why = f"{answer.error.code}: {answer.error.message}"
            if answer.is_final:
                return ChildrenReply(refusal=why)
        logger.warning("operation %s: no API has accepted its children: %s; it asks again later", self._parent, why)
        return ChildrenReply(is_unanswered=True)


def _state(message: rpc.StoredMessage | None) -> ChildState:
    if message is None:
        return ChildState.MISSING
    return _STATES.get(subjects.parse_event_subject(message.subject).event, ChildState.OPEN)
