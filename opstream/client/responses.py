"""Parses the service's responses into an operation, its events, its result, or an error. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.names import check_operation_id
from opstream_schemas.status_monitor import StatusMonitor

from .errors import OperationsError, RequestRefused, UnexpectedAnswer, describe_status
from .io_requests import SendRequest, ServiceResponse
from .models import BulkPreview, Operation, OperationCount, OperationEvent, OperationPage, parse_event
from .retries import describe_outcome, parse_error
from .sse import ServerSentEvent

EVENT_STREAM: Final = "text/event-stream"
_DOCUMENT: Final = "application/json"


class _HistoryBody(msgspec.Struct, frozen=True):
    value: list[msgspec.Raw]


class _PageBody(msgspec.Struct, frozen=True, rename="camel"):
    value: tuple[msgspec.Raw, ...]
    next_link: str = ""


UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidEvent)
"""What decoding a body can raise."""

_monitor_decoder: Final = msgspec.json.Decoder(StatusMonitor)
_history_decoder: Final = msgspec.json.Decoder(_HistoryBody)
_preview_decoder: Final = msgspec.json.Decoder(BulkPreview)
_page_decoder: Final = msgspec.json.Decoder(_PageBody)
_count_decoder: Final = msgspec.json.Decoder(OperationCount)


def parse_operation(response: ServiceResponse, operation_id: str, url: str, what: str) -> Operation:
    """The operation in a response.

    Args:
        response: 200, or 202 to a submit, if it succeeded.
        operation_id: the id that was requested.
        url: of the operation's status.
        what: the request, as messages name it.

    Raises:
        RequestRefused: the status is 4xx.
        UnexpectedAnswer: the response does not hold this operation.
    """
    if response.status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
        raise response_error(response, what)
    try:
        found = Operation(url, _monitor_decoder.decode(response.content))
    except UNDECODABLE as error:
        raise not_from_opstream(response, what) from error
    if found.id != operation_id:
        message = f"{what}: the response is about operation {found.id!r}: check the URL, and any cache on the way"
        raise UnexpectedAnswer(message, status=response.status)
    return found


def parse_follow_up(response: ServiceResponse, what: str) -> StatusMonitor:
    """The status monitor of an operation whose id the service has chosen, in a 202.

    Raises:
        UnexpectedAnswer: the response does not hold one.
    """
    try:
        monitor = _monitor_decoder.decode(response.content)
        check_operation_id(monitor.id)
    except (*UNDECODABLE, InvalidName) as error:
        raise not_from_opstream(response, what) from error
    return monitor


def parse_page(response: ServiceResponse) -> OperationPage:
    """The page of a list in a response.

    Raises:
        RequestRefused, UnexpectedAnswer: as `parse_operation`.
    """
    what = "a list of operations"
    if response.status != HTTPStatus.OK:
        raise response_error(response, what)
    try:
        body = _page_decoder.decode(response.content)
        lag = response.headers.get("Index-Lag")
        # Of the link only the query counts: the service may not know its own name, and credentials go to no other one.
        return OperationPage(
            items=body.value, next_query=urlsplit(body.next_link).query, lag=None if lag is None else float(lag)
        )
    except (*UNDECODABLE, ValueError) as error:
        raise not_from_opstream(response, what) from error


def parse_count(response: ServiceResponse) -> OperationCount:
    """The count in a response.

    Raises:
        RequestRefused, UnexpectedAnswer: as `parse_operation`.
    """
    what = "a count of operations"
    if response.status != HTTPStatus.OK:
        raise response_error(response, what)
    try:
        return _count_decoder.decode(response.content)
    except UNDECODABLE as error:
        raise not_from_opstream(response, what) from error


def parse_preview(response: ServiceResponse) -> BulkPreview:
    """What a dry run answers.

    Raises:
        RequestRefused, UnexpectedAnswer: as `parse_operation`.
    """
    what = "a dry run"
    if response.status != HTTPStatus.OK:
        raise response_error(response, what)
    try:
        return _preview_decoder.decode(response.content)
    except UNDECODABLE as error:
        raise not_from_opstream(response, what) from error


def parse_history(response: ServiceResponse, what: str) -> list[OperationEvent]:
    """The events of a JSON history, in the order of the response.

    Raises:
        RequestRefused, UnexpectedAnswer: as `operation_in`.
    """
    if response.status != HTTPStatus.OK:
        raise response_error(response, what)
    try:
        return [parse_event(bytes(stored)) for stored in _history_decoder.decode(response.content).value]
    except UNDECODABLE as error:
        raise not_from_opstream(response, what) from error


def parse_stream_event(sent: ServerSentEvent, what: str) -> OperationEvent:
    """The operation's event in an event of a stream.

    Raises:
        UnexpectedAnswer: it holds none.
    """
    try:
        return parse_event(sent.data.encode())
    except UNDECODABLE as error:
        message = f"{what}: the stream holds data that this version can't read: {error}"
        raise UnexpectedAnswer(message, status=HTTPStatus.OK) from error


def is_event_stream(response: ServiceResponse) -> bool:
    """Return True if the response is a stream of events."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return response.status == HTTPStatus.OK and media_type == EVENT_STREAM


def keeps_open(send: SendRequest, response: ServiceResponse) -> bool:
    """Return True if the body of a response is read piece by piece (`ReadStream`), and not as a whole."""
    if send.is_download:
        return response.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}
    return send.is_stream and is_event_stream(response)


def decode_result(operation: Operation, result_type: Any) -> Any:  # noqa: ANN401 - whatever msgspec takes for a type
    """The result of an operation that has succeeded, decoded.

    Raises:
        UnexpectedAnswer: the result is not of that type.
    """
    result = operation.monitor.result
    try:
        return msgspec.json.decode(b"null" if isinstance(result, msgspec.UnsetType) else result, type=result_type)
    except UNDECODABLE as error:
        message = f"the result of operation {operation.id} is not of the requested type: {error}"
        raise UnexpectedAnswer(message, status=HTTPStatus.OK) from error


def response_error(response: ServiceResponse, what: str) -> OperationsError:
    """The error for a response that is not the expected one."""
    if HTTPStatus.BAD_REQUEST <= response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestRefused(what, response.status, parse_error(response))
    if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST and "Location" in response.headers:
        # Following it would send the input, and perhaps credentials, to any host that a response names.
        message = f"{what}: the client does not follow the redirect to {response.headers['Location']!r}: change the URL"
        return UnexpectedAnswer(message, status=response.status)
    if parse_error(response) is not None:
        return UnexpectedAnswer(f"{what}: the service failed ({describe_outcome(response)})", status=response.status)
    return not_from_opstream(response, what)


def no_stream_error(response: ServiceResponse, what: str) -> OperationsError:
    """The error for a response to a request for a stream that is none."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if response.status != HTTPStatus.OK or media_type != _DOCUMENT:
        return response_error(response, what)
    message = (
        f"{what}: a document came instead of a stream, most likely from a proxy that speaks HTTP/1.0 to the service "
        "or drops the header Accept: let it use HTTP/1.1 (nginx: proxy_http_version 1.1; docs/running.md)"
    )
    return UnexpectedAnswer(message, status=response.status)


def not_from_opstream(response: ServiceResponse, what: str) -> UnexpectedAnswer:
    """The error for a body that is not the expected one."""
    message = f"{what}: {describe_status(response.status)} with a body that is not from opstream: check the URL"
    return UnexpectedAnswer(message, status=response.status)
