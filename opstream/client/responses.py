"""What the service's answers mean: an operation, its events, its result, or an error. Pure; called by the flows."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec

from opstream_schemas.errors import InvalidEvent
from opstream_schemas.status_monitor import StatusMonitor

from .errors import OperationsError, RequestRefused, UnexpectedAnswer, describe_status
from .models import Operation, OperationEvent, parse_event
from .retries import describe_outcome, parse_error
from .sse import ServerSentEvent
from .steps import ServiceResponse

EVENT_STREAM: Final = "text/event-stream"


class _HistoryBody(msgspec.Struct, frozen=True):
    value: list[msgspec.Raw]


_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidEvent)
_monitor_decoder: Final = msgspec.json.Decoder(StatusMonitor)
_history_decoder: Final = msgspec.json.Decoder(_HistoryBody)


def parse_operation(reply: ServiceResponse, operation_id: str, url: str, what: str) -> Operation:
    """The operation that an answer tells of.

    Args:
        reply: the answer, 200 or (to a submit) 202 if all is well.
        operation_id: the one that was asked about.
        url: of the operation's status.
        what: what was asked for, for messages.

    Raises:
        RequestRefused: it is a 4xx.
        UnexpectedAnswer: it is anything else that does not tell of this operation.
    """
    if reply.status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
        raise response_error(reply, what)
    try:
        found = Operation(url, _monitor_decoder.decode(reply.content))
    except _UNDECODABLE as error:
        raise _not_from_opstream(reply, what) from error
    if found.id != operation_id:
        message = f"{what}: the answer tells of operation {found.id!r}: check the URL, and any cache on the way"
        raise UnexpectedAnswer(message, status=reply.status)
    return found


def parse_history(reply: ServiceResponse, what: str) -> list[OperationEvent]:
    """The events of a JSON history, in its order.

    Raises:
        RequestRefused, UnexpectedAnswer: as `operation_in`.
    """
    if reply.status != HTTPStatus.OK:
        raise response_error(reply, what)
    try:
        return [parse_event(bytes(stored)) for stored in _history_decoder.decode(reply.content).value]
    except _UNDECODABLE as error:
        raise _not_from_opstream(reply, what) from error


def parse_stream_event(sent: ServerSentEvent, what: str) -> OperationEvent:
    """The event that an event of a stream carries.

    Raises:
        UnexpectedAnswer: it carries none.
    """
    try:
        return parse_event(sent.data.encode())
    except _UNDECODABLE as error:
        message = f"{what}: the stream holds something that this version does not understand: {error}"
        raise UnexpectedAnswer(message, status=HTTPStatus.OK) from error


def is_event_stream(reply: ServiceResponse) -> bool:
    """Whether it is the beginning of a stream of events."""
    media_type = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return reply.status == HTTPStatus.OK and media_type == EVENT_STREAM


def decode_result(operation: Operation, result_type: Any) -> Any:  # noqa: ANN401 - whatever msgspec takes for a type
    """The result of an operation that has succeeded.

    Raises:
        UnexpectedAnswer: it is not of that type.
    """
    result = operation.monitor.result
    try:
        return msgspec.json.decode(b"null" if isinstance(result, msgspec.UnsetType) else result, type=result_type)
    except _UNDECODABLE as error:
        message = f"the result of operation {operation.id} is not of the type that was asked for: {error}"
        raise UnexpectedAnswer(message, status=HTTPStatus.OK) from error


def response_error(reply: ServiceResponse, what: str) -> OperationsError:
    """The error in an answer that is none of those that were hoped for."""
    if HTTPStatus.BAD_REQUEST <= reply.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestRefused(what, reply.status, parse_error(reply))
    if HTTPStatus.MULTIPLE_CHOICES <= reply.status < HTTPStatus.BAD_REQUEST and "Location" in reply.headers:
        # Following would send the input, and perhaps credentials, to whoever an answer names.
        message = f"{what}: there is a redirect to {reply.headers['Location']!r}, which is not followed: change the URL"
        return UnexpectedAnswer(message, status=reply.status)
    if parse_error(reply) is not None:
        return UnexpectedAnswer(f"{what}: the service failed ({describe_outcome(reply)})", status=reply.status)
    return _not_from_opstream(reply, what)


def _not_from_opstream(reply: ServiceResponse, what: str) -> UnexpectedAnswer:
    message = f"{what}: {describe_status(reply.status)} with a body that is not opstream's: check the URL"
    return UnexpectedAnswer(message, status=reply.status)
