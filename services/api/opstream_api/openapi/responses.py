"""The error responses of the document, as components: one for each group of codes with the same status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from opstream_api.errors import RETRY_AFTER, STATUS_OF
from opstream_schemas.errors import ErrorCode

from .shared import SCHEMAS, Json, header_refs, json_content, ref

_ANY: Final = (ErrorCode.INVALID_HEADER, ErrorCode.INVALID_PARAMETER)
_UNAVAILABLE: Final = (
    ErrorCode.JOURNAL_UNAVAILABLE,
    ErrorCode.JOURNAL_FULL,
    ErrorCode.PAYLOAD_STORE_UNAVAILABLE,
    ErrorCode.TOO_MANY_CONNECTIONS,
    ErrorCode.KEYS_UNAVAILABLE,
)
_CODES: Final[Mapping[str, tuple[ErrorCode, ...]]] = MappingProxyType(
    {
        "InvalidSubmit": (ErrorCode.INVALID_INPUT, *_ANY, ErrorCode.OPERATION_ID_REUSED),
        "InvalidCancel": (ErrorCode.INVALID_INPUT, *_ANY),
        "InvalidRead": _ANY,
        "InvalidRequest": (ErrorCode.INVALID_HEADER,),
        "UnknownAction": (ErrorCode.UNKNOWN_ACTION, ErrorCode.NOT_FOUND),
        "ActionServed": (ErrorCode.ACTION_SERVED,),
        "UnknownKind": (ErrorCode.UNKNOWN_ACTION, ErrorCode.NOT_FOUND),
        "OperationNotFound": (ErrorCode.OPERATION_NOT_FOUND, ErrorCode.NOT_FOUND),
        "ScheduleNotFound": (ErrorCode.SCHEDULE_NOT_FOUND, ErrorCode.NOT_FOUND),
        "DeliveryNotFound": (ErrorCode.DELIVERY_NOT_FOUND, ErrorCode.OPERATION_NOT_FOUND, ErrorCode.NOT_FOUND),
        "DeadLetterNotFound": (ErrorCode.DEAD_LETTER_NOT_FOUND, ErrorCode.NOT_FOUND),
        "ScheduleRefused": (ErrorCode.SCHEDULE_NAME_TAKEN, ErrorCode.TOO_MANY_SCHEDULES),
        "HandlingFailed": (ErrorCode.HANDLING_FAILED,),
        "PayloadNotFound": (ErrorCode.PAYLOAD_NOT_FOUND, ErrorCode.OPERATION_NOT_FOUND, ErrorCode.NOT_FOUND),
        "RangeNotSatisfiable": (ErrorCode.RANGE_NOT_SATISFIABLE,),
        "OperationFinished": (ErrorCode.OPERATION_FINISHED,),
        "NothingToRetry": (ErrorCode.OPERATION_NOT_FOUND, ErrorCode.UNKNOWN_ACTION, ErrorCode.NOT_FOUND),
        "OperationNotRetriable": (ErrorCode.OPERATION_NOT_RETRIABLE, ErrorCode.RESOURCE_BUSY),
        "InvalidSignal": (ErrorCode.INVALID_INPUT, *_ANY, ErrorCode.REQUEST_ID_REUSED),
        "SenderNotAllowed": (ErrorCode.CROSS_SITE_REQUEST, ErrorCode.SENDER_NOT_ALLOWED),
        "SignalRefused": (
            ErrorCode.OPERATION_FINISHED,
            ErrorCode.SIGNAL_TOO_LATE,
            ErrorCode.SIGNAL_REPEATED,
            ErrorCode.TOO_MANY_SIGNALS,
            ErrorCode.OPERATION_ERASED,
        ),
        "ResourceBusy": (ErrorCode.RESOURCE_BUSY, ErrorCode.OPERATION_ERASED),
        "EraseRefused": (ErrorCode.NOT_CONFIDENTIAL, ErrorCode.OPERATION_OPEN),
        "TooLargeSubmit": (ErrorCode.PAYLOAD_TOO_LARGE,),
        "TooLargeCancel": (ErrorCode.PAYLOAD_TOO_LARGE,),
        "UnsupportedSubmit": (ErrorCode.UNSUPPORTED_MEDIA_TYPE,),
        "UnsupportedCancel": (ErrorCode.UNSUPPORTED_MEDIA_TYPE,),
        "CrossSiteRequest": (ErrorCode.CROSS_SITE_REQUEST,),
        "ForbiddenOrCrossSite": (ErrorCode.FORBIDDEN, ErrorCode.CROSS_SITE_REQUEST),
        "RequestTimeout": (ErrorCode.REQUEST_TIMEOUT,),
        "UnknownHost": (ErrorCode.UNKNOWN_HOST,),
        "TooManyConnections": (ErrorCode.TOO_MANY_CONNECTIONS,),
        "InternalError": (ErrorCode.INTERNAL_ERROR, ErrorCode.PAYLOAD_UNREADABLE, ErrorCode.KEY_MISSING),
        "Unreadable": (
            ErrorCode.JOURNAL_UNAVAILABLE,
            ErrorCode.PAYLOAD_STORE_UNAVAILABLE,
            ErrorCode.TOO_MANY_CONNECTIONS,
            ErrorCode.KEYS_UNAVAILABLE,
        ),
        "Unavailable": _UNAVAILABLE,
        "NotRunning": (ErrorCode.SERVICE_NOT_RUNNING, *_UNAVAILABLE),
        "UnavailableSubmit": (*_UNAVAILABLE, ErrorCode.ACTION_NOT_SERVED),
    }
)
_WITH_INDEX: Final[Mapping[str, tuple[ErrorCode, ...]]] = MappingProxyType(
    {
        "IndexUnavailable": (ErrorCode.INDEX_UNAVAILABLE, ErrorCode.TOO_MANY_CONNECTIONS),
        "UnavailableBulk": (*_UNAVAILABLE, ErrorCode.INDEX_UNAVAILABLE),
    }
)
"""The errors of a service that lists operations."""
_OF_EVERY_PATH: Final = ("RequestTimeout", "UnknownHost", "InternalError", "TooManyConnections")
_OF_SUBMITS: Final = frozenset(
    {
        *("InvalidSubmit", "UnknownAction", "ResourceBusy", "TooLargeSubmit", "UnsupportedSubmit"),
        *("InvalidSignal", "SenderNotAllowed", "SignalRefused"),
    }
)
"""Errors of a submit or signal whose response has `Repeatability-Result`: nothing was done."""


_WITH_AUTHENTICATION: Final[Mapping[str, tuple[ErrorCode, ...]]] = MappingProxyType(
    {
        "Unauthenticated": (ErrorCode.UNAUTHENTICATED,),
        "Forbidden": (ErrorCode.FORBIDDEN,),
        "ForbiddenSignal": (ErrorCode.FORBIDDEN, *_CODES["SenderNotAllowed"]),
        "TooManyRequests": (ErrorCode.TOO_MANY_REQUESTS,),
        **{
            name: (*_CODES[name], ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE)
            for name in ("TooManyConnections", "Unreadable", "Unavailable", "UnavailableSubmit", "NotRunning")
        },
    }
)
"""The errors of a service that asks for credentials."""


def error_components() -> Json:
    """Build a component for each error response."""
    return {name: _error(name, codes) for name, codes in _CODES.items()}


def index_components(*, has_access: bool) -> Json:
    """Build the same for the errors of a service that lists operations."""
    more = (ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE,) if has_access else ()
    return {name: _error(name, (*codes, *more)) for name, codes in _WITH_INDEX.items()}


def list_responses() -> Json:
    """Return the error responses of a list by status."""
    return {**error_responses("InvalidRead"), "503": ref("responses", "IndexUnavailable")}


def bulk_responses() -> Json:
    """Return the error responses of a bulk request by status."""
    found = error_responses("InvalidSubmit", "TooLargeCancel", "UnsupportedCancel", "CrossSiteRequest")
    return {**found, "503": ref("responses", "UnavailableBulk")}


def access_components() -> Json:
    """Build the same for the errors of a service that asks for credentials; some replace one of `error_components`."""
    return {name: _error(name, codes) for name, codes in _WITH_AUTHENTICATION.items()}


def access_responses(*, is_post: bool, is_signal: bool, needs_scope: bool) -> Json:
    """Return the error responses by status that a path has besides, if the service asks for credentials."""
    forbidden = "ForbiddenSignal" if is_signal else "ForbiddenOrCrossSite" if is_post else "Forbidden"
    denied = {"403": ref("responses", forbidden)} if needs_scope else {}
    limited = {"429": ref("responses", "TooManyRequests")}
    return {"401": ref("responses", "Unauthenticated"), **denied, **limited}


def error_responses(*names: str) -> Json:
    """Return the error responses of a path by status. Every path also has those that any request may get."""
    by_status = {STATUS_OF[_CODES[name][0]]: name for name in (*_OF_EVERY_PATH, *names)}
    return {str(status): ref("responses", by_status[status]) for status in sorted(by_status)}


def _error(name: str, codes: tuple[ErrorCode, ...]) -> Json:
    more = ["Repeatability-Result"] if name in _OF_SUBMITS else []
    if any(code in RETRY_AFTER for code in codes):
        more.append("Retry-After")
    if any(code in _WITH_AUTHENTICATION["Unauthenticated"] for code in codes):
        more.append("WWW-Authenticate")
    code_header = {
        "description": "The code in the body.",
        "required": True,
        "schema": {"type": "string", "enum": [str(code) for code in codes]},
    }
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "headers": {"x-ms-error-code": code_header, **header_refs(*more)},
        "content": json_content({"$ref": SCHEMAS + "ErrorBody"}, {str(code): ref("examples", code) for code in codes}),
    }
