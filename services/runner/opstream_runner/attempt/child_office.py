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
from opstream_runner.errors import ActionCanceledError
from opstream_runner.steps.children import (
    ChildOutcome,
    ChildrenAsk,
    ChildrenReply,
    FetchOutcomes,
    LookAtChildren,
    SubmitChildren,
)
from opstream_schemas import subjects
from opstream_schemas.children.plan import ChildState
from opstream_schemas.children.requests import ChildrenRequest, decode_children_answer
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import Canceled, Failed, Succeeded, decode_event
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

_READS_AT_ONCE: Final = 64
_API_TIMEOUT: Final = 10.0
"""Seconds for an answer of the API, which has 4.5 for each child and submits a hundred at once."""
_API_TRIES: Final = 3
_RETRY_PAUSE: Final = 0.5
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
        loop: the runner's.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        operation: Operation,
        token: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._parent = operation.id
        self._kind = operation.kind
        self._token = token
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def ask(self, ask: ChildrenAsk) -> concurrent.futures.Future[ChildrenReply]:
        """Ask; callable from any thread. See `ChildrenAsker`."""
        replied: concurrent.futures.Future[ChildrenReply] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(self._start, ask, replied)
        except RuntimeError:  # the runner's loop has ended
            replied.set_exception(_over())
        return replied

    def close(self) -> None:
        """Answer nothing any more: the attempt is over."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    def _start(self, ask: ChildrenAsk, replied: concurrent.futures.Future[ChildrenReply]) -> None:
        if self._is_closed:
            replied.set_exception(_over())
            return
        if not replied.set_running_or_notify_cancel():
            return
        task = self._loop.create_task(self._reply(ask, replied), name=f"children of {self._parent}")
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not replied.done():
                error = None if task.cancelled() else task.exception()
                replied.set_exception(error or _over())

        task.add_done_callback(end)

    async def _reply(self, ask: ChildrenAsk, replied: concurrent.futures.Future[ChildrenReply]) -> None:
        match ask:
            case LookAtChildren(group=group, first=first):
                ids = [group.child_id(self._parent, index) for index in range(first, group.count)]
                states = [_state(message) for message in await self._last(ids)]
                reply = ChildrenReply(states=tuple(states))
            case FetchOutcomes(group=group, places=places):
                ids = [group.child_id(self._parent, index) for index in places]
                reply = ChildrenReply(outcomes=tuple(_outcome(message) for message in await self._last(ids)))
            case SubmitChildren():
                reply = await self._submit(ask)
                crash_point(CrashPoint.RUNNER_CHILDREN_BEGUN)
        replied.set_result(reply)

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


def _outcome(message: rpc.StoredMessage | None) -> ChildOutcome:
    """Return how a child has ended.

    Raises:
        InvalidEvent: it has not, so its subjects have a message that is no event of it.
    """
    data = None if message is None else decode_event(message.data, message.seq, message.subject).data
    match data:
        case Succeeded(result=result):
            return ChildOutcome(state=ChildState.SUCCEEDED, result=result)
        case Failed(error=error):
            return ChildOutcome(state=ChildState.FAILED, error=error)
        case Canceled(reason=reason):
            return ChildOutcome(state=ChildState.CANCELED, reason=reason)
        case _:
            raise InvalidEvent("a child that has ended has no outcome any more")


def _over() -> ActionCanceledError:
    return ActionCanceledError("the attempt is over, or another one owns the operation")
