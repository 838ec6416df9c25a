"""A submit as HTTP brings it: action and resource, the operation's id, the caller, where to deliver the outcome. Pure.

Start with `parse_submit`: it reads the whole head of the request, and its order is the order in which errors win.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Container
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import HTTPScope

from opstream_api.errors import ApiError, method_not_allowed, not_found
from opstream_api.http.submit_headers.upload_header import parse_claims
from opstream_schemas.bulk.records import Authority
from opstream_schemas.children.lineage import is_child_id
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.events import Instant, ParentRef, Trace
from opstream_schemas.names import Kind, check_operation_id, check_resource_id, parse_labels
from opstream_schemas.operation.follow_up import is_follow_up_id
from opstream_schemas.operation.priority import Priority
from opstream_schemas.schedules.schedule import is_derived_id

from .callback_header import CallbackPolicy, parse_callback
from .caller_identity import Caller, CallerResolver
from .priority_header import chosen_priority, parse_priority
from .requests import Headers, base_url, check_content_type, check_query, parse_trace, single_value

METHOD: Final = "POST"
OPERATION_ID: Final = "Operation-Id"
LABEL_HEADER: Final = "Operation-Label"
REPEATABILITY_REQUEST_ID: Final = "Repeatability-Request-ID"
REPEATABILITY_FIRST_SENT: Final = "Repeatability-First-Sent"
REPEATABILITY_RESULT: Final = "Repeatability-Result"
START_AT: Final = "Operation-Start-At"
START_AFTER: Final = "Operation-Start-After"
MAX_START_DELAY: Final = 365 * 86_400
"""Seconds by which a start time may be away, and by which it may have passed."""

_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_LABEL_NAME: Final = LABEL_HEADER.lower().encode()
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")
_HTTP_DATE: Final = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    r"[0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)
"""IMF-fixdate (RFC 9110, Date/Time Formats)."""


class SubmitPath(msgspec.Struct, frozen=True):
    """The action and resource that a path names."""

    kind: Kind
    resource_id: str
    """The resource's own id, percent-decoded once; empty for `/{resource}:{action}`."""


class IdempotencyKey(msgspec.Struct, frozen=True, kw_only=True):
    """The operation that a submit means. The same key always means the same operation."""

    operation_id: str
    header: str
    """The header that names the key. `Operation-Id` for a generated id, since a repeated request sends it there."""

    @property
    def is_repeatable(self) -> bool:
        """Return True if the request uses OASIS Repeatable Requests, so that its response needs
        `Repeatability-Result`."""
        return self.header == REPEATABILITY_REQUEST_ID


class StartTime(msgspec.Struct, frozen=True, kw_only=True):
    """When a submit wants its operation to begin. Without both members: at once."""

    at: datetime | None = None
    """In UTC. May have passed."""
    after: int = 0
    """Seconds from the request; 0 if the request names a time, or none."""

    def moment(self, now: datetime) -> datetime | None:
        """Return the time before which no attempt may begin, if the request is recorded now; None for at once."""
        return now + timedelta(seconds=self.after) if self.after else self.at


AT_ONCE: Final = StartTime()


class SubmitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A submit whose path and headers are valid. Its body is not read yet."""

    kind: Kind
    resource_id: str
    """Empty for an action without a resource id."""
    key: IdempotencyKey
    caller: Caller
    status_url: str
    """Absolute URL of the operation's status, for `Operation-Location`."""
    trace: Trace | None
    callback: str = ""
    """URL to deliver the outcome to; empty for none."""
    start: StartTime = AT_ONCE
    labels: dict[str, str] | None = None
    """None for none. They are no part of the request: a repetition keeps those of the first submit."""
    retry_of: str = ""
    """The client's id of the operation that this one does again, which no client can say itself; empty for none."""
    authority: Authority | None = None
    """Of a bulk operation, with authentication."""
    priority: Priority | None = None
    """What the header asks for; None without it. It is no part of the request, either."""
    earlier_priority: str = ""
    """Of the operation that this one does again, or of its parent; empty for none."""
    most_priority: Priority | None = None
    """The highest that the caller's key allows; None for any."""
    parent: ParentRef | None = None
    """Of a child, which no client can say itself (docs/adr/0074)."""
    ends_by: datetime | None = None
    """Of a child: the deadline of its parent, which is its own at the latest."""
    claims: tuple[str, ...] = ()
    """Of uploads, as the header has them."""
    uploads: tuple[Attachment, ...] = ()
    """Their files, once the claims are checked."""
    tenant: str = ""
    """Of the caller; empty for the operator's own, and without authentication."""
    derived_id: str = ""
    """The id under which the operation is stored; empty without authentication, for that of `key`."""

    def deadline(self, begins_at: datetime, seconds: float) -> datetime:
        """Return when the operation fails if it has not ended.

        Args:
            begins_at: when it may begin.
            seconds: that the action's policy gives it.
        """
        own = begins_at + timedelta(seconds=seconds)
        return own if self.ends_by is None else min(own, self.ends_by)

    @property
    def stored_id(self) -> str:
        """Return the id under which the operation is stored."""
        return self.derived_id or self.key.operation_id

    def priority_for(self, default: str) -> str:
        """Return the priority of the operation; empty for one of an action without priorities.

        Args:
            default: that of the action; empty if it has none.

        Raises:
            ApiError: `InvalidHeader`: the request asks for one, and the action has none.
        """
        return chosen_priority(
            self.kind, default, asked=self.priority, earlier=self.earlier_priority, most=self.most_priority
        )

    @property
    def own_id(self) -> str:
        """Return the client's own id if the operation is stored under another one; otherwise empty."""
        return self.key.operation_id if self.derived_id else ""


def parse_submit(
    scope: HTTPScope,
    headers: Headers,
    *,
    callers: CallerResolver,
    callback_policy: CallbackPolicy,
    public_url: str,
    new_operation_id: Callable[[], str],
) -> SubmitRequest:
    """Read the head of a submit. The first part that is wrong decides the error.

    Args:
        scope: ASGI's.
        headers: those of `scope`, parsed.
        callers: tells who sent the request.
        callback_policy: which callback URLs are allowed.
        public_url: base of `status_url`; empty to use the request's own `Host`.
        new_operation_id: generates an id for a request without one.

    Raises:
        ApiError: `NotFound`, `MethodNotAllowed`, `InvalidParameter`, `InvalidHeader` or `UnsupportedMediaType`.
    """
    path = parse_submit_path(scope["raw_path"])
    if scope["method"] != METHOD:
        raise method_not_allowed(METHOD)
    check_query(scope["query_string"])
    caller = callers.resolve(scope["client"], headers)
    key = parse_idempotency_key(headers, new_operation_id)
    base = public_url or base_url(headers, scope["scheme"])
    trace = parse_trace(headers)
    callback = parse_callback(headers, callback_policy)
    start = parse_start_time(headers)
    labels = read_labels(headers)
    priority = parse_priority(headers)
    claims = parse_claims(headers)
    check_content_type(headers)
    return SubmitRequest(
        kind=path.kind,
        resource_id=path.resource_id,
        key=key,
        caller=caller,
        status_url=f"{base}/status/{key.operation_id}",
        trace=trace,
        callback=callback,
        start=start,
        labels=labels,
        priority=priority,
        claims=claims,
    )


def parse_start_time(headers: Headers) -> StartTime:
    """Return when the operation is to begin. `Operation-Start-After: 0` is at once.

    Raises:
        ApiError: `InvalidHeader`: both headers, one that is repeated or malformed, or seconds beyond
            `MAX_START_DELAY`.
    """
    if not _START_HEADERS & headers.keys():
        return AT_ONCE
    at, after = single_value(headers, START_AT), single_value(headers, START_AFTER)
    if at is not None and after is not None:
        raise _invalid_header(f"send either {START_AT} or {START_AFTER}: each says when to begin", START_AFTER)
    if after is not None:
        if _SECONDS.fullmatch(after) is None or int(after) > MAX_START_DELAY:
            message = f"{START_AFTER} must be whole seconds, {MAX_START_DELAY} at most, not {after!r}"
            raise _invalid_header(message, START_AFTER)
        return StartTime(after=int(after))
    try:
        return StartTime(at=msgspec.convert(at, Instant).astimezone(UTC))
    except (msgspec.ValidationError, OverflowError) as error:
        message = f"{START_AT} must be a time with its zone such as 2026-11-24T08:00:00Z (RFC 3339), not {at!r}"
        raise _invalid_header(message, START_AT) from error


def parse_submit_path(raw_path: bytes) -> SubmitPath:
    """Parse `/{resource}/{id}:{action}` or `/{resource}:{action}`; the last `:` separates.

    The framework's decoded path is of no use here: in it `%2F` equals `/`, and bytes that are not UTF-8 are replaced.
    Resource and action have one spelling, without percent-encoding, so that a rule of a proxy for them holds. Only the
    `:` may be `%3A`, which some clients send.

    Args:
        raw_path: as the client sent it, without the query.

    Raises:
        ApiError: `NotFound` for any other form, also for a reserved resource; `InvalidParameter` for a broken
            percent-encoding or an invalid resource id.
    """
    segments = raw_path.split(b"/")
    if len(segments) not in {2, 3} or segments[0]:
        raise not_found()
    *resources, last = (_decode_segment(segment) for segment in segments[1:])
    name, colon, action = last.rpartition(":")
    if not colon:
        raise not_found()
    resource = resources[0] if resources else name
    try:
        kind = Kind.parse_routable(f"{resource}:{action}")
    except InvalidName:
        raise not_found() from None
    if not segments[1].startswith(resource.encode()) or not segments[-1].endswith(action.encode()):
        raise not_found()
    if not resources:
        return SubmitPath(kind, "")
    try:
        return SubmitPath(kind, check_resource_id(name))
    except InvalidName as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target="id") from error


def parse_idempotency_key(headers: Headers, new_operation_id: Callable[[], str]) -> IdempotencyKey:
    """Return the key of a submit: its `Operation-Id`, the hash of its Repeatability headers, or a new id.

    OASIS Repeatable Requests 1.0 names a request by a pair of headers. The pair becomes an operation id, so that one
    mechanism serves both ways: an operation id exists once.

    Raises:
        ApiError: `InvalidHeader`: a malformed or repeated header, one header of the pair alone, both ways at once, or
            an id of the forms that retries, schedules and parents give to their operations.
    """
    own = single_value(headers, OPERATION_ID)
    if uses_repeatability(headers):
        if own is not None:
            raise _invalid_header(
                f"send either {OPERATION_ID} or {REPEATABILITY_REQUEST_ID}: each names the operation", OPERATION_ID
            )
        return IdempotencyKey(operation_id=repeatability_hash(headers), header=REPEATABILITY_REQUEST_ID)
    if own is None:
        return IdempotencyKey(operation_id=new_operation_id(), header=OPERATION_ID)
    if is_follow_up_id(own):
        message = f"{own!r} is an id of a retry, which no submit takes: choose another {OPERATION_ID}"
        raise _invalid_header(message, OPERATION_ID)
    if is_child_id(own):
        raise _invalid_header(f"{own!r} is an id of a child: choose another {OPERATION_ID}", OPERATION_ID)
    if is_derived_id(own):
        message = f"{own!r} is an id of a schedule's operations, which no submit takes: choose another {OPERATION_ID}"
        raise _invalid_header(message, OPERATION_ID)
    try:
        return IdempotencyKey(operation_id=check_operation_id(own), header=OPERATION_ID)
    except InvalidName as error:
        raise _invalid_header(str(error), OPERATION_ID) from error


def read_labels(headers: Headers) -> dict[str, str] | None:
    """Return the labels of a submit; None without one. The header may be repeated, or name several.

    Raises:
        ApiError: `InvalidHeader`: one is malformed, a key is there twice, or there are too many.
    """
    values = headers.get(_LABEL_NAME)
    if values is None:
        return None
    try:
        return parse_labels(values)
    except InvalidName as error:
        raise _invalid_header(f"{LABEL_HEADER}: {error}", LABEL_HEADER) from error


def uses_repeatability(headers: Container[bytes]) -> bool:
    """Return True if a request has a header of OASIS Repeatable Requests, valid or not."""
    return REPEATABILITY_REQUEST_ID.lower().encode() in headers or REPEATABILITY_FIRST_SENT.lower().encode() in headers


def mark_rejected(error: ApiError, headers: Container[bytes]) -> ApiError:
    """Return the error of a refused submit; to a request of OASIS Repeatable Requests it says that nothing was done.

    After a 5xx the request may be recorded or not. The client learns which when it repeats the request.

    Args:
        error: the refusal.
        headers: the names of the request's headers, in lower case.
    """
    if uses_repeatability(headers) and error.status < HTTP_500_INTERNAL_SERVER_ERROR:
        error.headers[REPEATABILITY_RESULT] = "rejected"
    return error


def _decode_segment(segment: bytes) -> str:
    if _BROKEN_ESCAPE.search(segment):
        raise ApiError(ErrorCode.INVALID_PARAMETER, "the path has a '%' without two hexadecimal digits after it")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, "the path is not UTF-8 after percent-decoding") from error


def repeatability_hash(headers: Headers) -> str:
    """Return the hash of the Repeatability headers, 43 characters, which names the request.

    Raises:
        ApiError: `InvalidHeader`: one of the two is missing, malformed or repeated.
    """
    request_id = single_value(headers, REPEATABILITY_REQUEST_ID)
    first_sent = single_value(headers, REPEATABILITY_FIRST_SENT)
    if request_id is None or first_sent is None:
        missing = REPEATABILITY_REQUEST_ID if request_id is None else REPEATABILITY_FIRST_SENT
        raise _invalid_header(
            f"{REPEATABILITY_REQUEST_ID} and {REPEATABILITY_FIRST_SENT} belong together, {missing} is missing", missing
        )
    if _REQUEST_ID.fullmatch(request_id) is None:
        raise _invalid_header(
            f"{REPEATABILITY_REQUEST_ID} must be 1 to 256 visible ASCII characters, best a UUID",
            REPEATABILITY_REQUEST_ID,
        )
    if not _is_http_date(first_sent):
        raise _invalid_header(
            f"{REPEATABILITY_FIRST_SENT} must be an HTTP date such as 'Tue, 24 Nov 2026 08:00:00 GMT', "
            f"not {first_sent!r}",
            REPEATABILITY_FIRST_SENT,
        )
    pair = f"{request_id}\n{first_sent}".encode()
    return urlsafe_b64encode(hashlib.sha256(pair).digest()).rstrip(b"=").decode()


def _is_http_date(text: str) -> bool:
    if _HTTP_DATE.fullmatch(text) is None:
        return False
    try:
        parsedate_to_datetime(text)
    except ValueError:
        return False
    return True


_START_HEADERS: Final = frozenset({START_AT.lower().encode(), START_AFTER.lower().encode()})


def _invalid_header(message: str, name: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_HEADER, message, target=name)
