"""Answers requests of runners for children of their operations.

The broker lets a runner send them for its own actions only. Whose child it is, and in whose name, follows from the
parent's events, not from what the request says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import Caller
from opstream_api.http.submit_request import OPERATION_ID, IdempotencyKey, SubmitRequest
from opstream_api.operations.submit import Submitter
from opstream_journal import Connection, Journal, JournalError
from opstream_schemas import subjects
from opstream_schemas.children.lineage import MAX_DEPTH, child_id
from opstream_schemas.children.requests import ChildItem, ChildrenAnswer, ChildrenRequest, decode_children_request
from opstream_schemas.errors import ErrorCode, FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.events import OperationError, ParentRef, Requested
from opstream_schemas.names import Kind, check_resource_id
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

_QUEUE: Final = "children"
_AT_ONCE: Final = 8
"""Requests, of at most a hundred children, that one process works on. The others wait, and are asked again if late."""
_PASSING: Final = frozenset(
    {
        ErrorCode.JOURNAL_UNAVAILABLE,
        ErrorCode.JOURNAL_FULL,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.ACTION_NOT_SERVED,
        ErrorCode.INTERNAL_ERROR,
    }
)
"""Errors with which a child may be accepted later."""


class _Parent(msgspec.Struct, frozen=True):
    """What a child takes from its parent."""

    operation: Operation
    requested: Requested


class ChildDesk:
    """The requests that one process answers. Each is answered by one of the processes that run.

    Args:
        connection: the connection, which is up.
        journal: the journal.
        submitter: as for clients.
        body_limit: bytes of an input, as for clients.
    """

    def __init__(self, connection: Connection, journal: Journal, submitter: Submitter, body_limit: int) -> None:
        self._connection = connection
        self._journal = journal
        self._submitter = submitter
        self._body_limit = body_limit
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Callable[[], Awaitable[None]]:
        """Begin to answer. Return what ends it: an async function."""
        everything = subjects.children_subject(Kind("*", "*"))
        subscription = await self._connection.nc.subscribe(everything, queue=_QUEUE, cb=self._on_request)

        async def stop() -> None:
            if self._connection.is_connected:
                await subscription.unsubscribe()
            for task in tuple(self._tasks):
                task.cancel()

        return stop

    async def _on_request(self, message: Msg) -> None:
        task = asyncio.create_task(self._respond(message), name=f"children {message.subject}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respond(self, message: Msg) -> None:
        async with self._turns:
            answer = await self.answer(message.subject, message.data)
        if not message.reply:
            return
        try:
            await message.respond(msgspec.json.encode(answer))
        except NatsError as error:
            logger.warning("a runner that asked for children did not get the answer: %s", error)

    async def answer(self, subject: str, payload: bytes) -> ChildrenAnswer:
        """Submit the children of a request. Those that exist are the same ones, however often they are asked for.

        Args:
            subject: of the request.
            payload: its bytes.
        """
        try:
            request = decode_children_request(payload)
            parent = await self._read_parent(request, subject)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._submit(parent, request, item)) for item in request.items]
        except (InvalidEvent, InvalidName, FoldRefused) as error:
            return _refusal(ErrorCode.CHILD_REFUSED, str(error))
        except JournalError as error:
            return ChildrenAnswer(error=OperationError(code=ErrorCode.JOURNAL_UNAVAILABLE, message=str(error)))
        answers = [answer for answer in (task.result() for task in tasks) if answer is not None]
        # One that is final first: asking again for the others would not help the parent.
        return next((one for one in answers if one.is_final), answers[0] if answers else ChildrenAnswer())

    async def _read_parent(self, request: ChildrenRequest, subject: str) -> _Parent:
        """Return the parent, whose live attempt the request comes from.

        Raises:
            InvalidEvent: there is none, or the request does not come from it.
            FoldRefused: it can't be folded.
            JournalError: the broker did not answer.
        """
        events = await self._journal.events(request.parent)
        operation = fold(None, events)
        if operation is None or subjects.children_subject(operation.kind) != subject:
            # Also what a runner may not know: whether an operation of another action exists.
            raise InvalidEvent(f"operation {request.parent} is not one of the runner's")
        if operation.live is None or operation.live.token != request.token:
            raise InvalidEvent(f"operation {request.parent} is at another attempt, or has ended")
        requested = events[0].data
        if not isinstance(requested, Requested):
            raise FoldRefused(f"operation {request.parent} does not begin with its request")
        if _depth(operation) > MAX_DEPTH:
            raise InvalidEvent(
                f"operation {request.parent} has {MAX_DEPTH} parents above it already: does an action begin itself?"
            )
        return _Parent(operation, requested)

    async def _submit(self, parent: _Parent, request: ChildrenRequest, item: ChildItem) -> ChildrenAnswer | None:
        """Submit one child. Return why it can't be; None if it is there."""
        operation, requested = parent.operation, parent.requested
        own_id = child_id(operation.id, request.name, request.key, item.index)
        if (size := len(item.input)) > self._body_limit:
            message = f"{item.action} ({own_id}): the input has {size} bytes, and {self._body_limit} are taken"
            return _refusal(ErrorCode.PAYLOAD_TOO_LARGE, message)
        lineage = ParentRef(
            id=operation.id,
            own_id=operation.own_id,
            name=request.name,
            key=request.key,
            index=item.index,
            depth=_depth(operation),
        )
        try:
            submit = SubmitRequest(
                kind=Kind.parse_routable(item.action),
                resource_id=item.resource_id and check_resource_id(item.resource_id),
                key=IdempotencyKey(operation_id=own_id, header=OPERATION_ID),
                caller=Caller(
                    identity=requested.caller,
                    client_id=requested.client_id,
                    client_address=requested.client_address,
                ),
                status_url="",
                trace=operation.trace,
                labels=requested.labels,
                earlier_priority=requested.priority,
                tenant=requested.tenant,
                derived_id=own_id if requested.own_id else "",
                parent=lineage,
                ends_by=operation.deadline,
            )
            accepted = await self._submitter.submit(submit, bytes(item.input))
        except InvalidName as error:
            return _refusal(ErrorCode.CHILD_REFUSED, f"{item.action!r}: {error}")
        except ApiError as error:
            found = error.body.error
            where = f"{item.action} ({own_id})"
            refused = OperationError(code=found.code, message=f"{where}: {found.message}", target=found.target)
            return ChildrenAnswer(error=refused, is_final=error.code not in _PASSING)
        if accepted.operation.parent != lineage:
            return _refusal(ErrorCode.OPERATION_ID_REUSED, f"{item.action} ({own_id}): the id has another operation")
        return None


def _depth(parent: Operation) -> int:
    return 1 if parent.parent is None else parent.parent.depth + 1


def _refusal(code: ErrorCode, message: str) -> ChildrenAnswer:
    return ChildrenAnswer(error=OperationError(code=code, message=message), is_final=True)
