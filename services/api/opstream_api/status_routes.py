"""The routes of operations: list and count them; read or wait for the status of one, cancel or retry it, read or follow
its history.

`read_status` is called in front of litestar (`app.DirectRoutes`), the others are its routes. What they do to an
operation is in `operations/`, lists are in `lists/`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from functools import partial
from typing import Any, Final

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope

from opstream_index.lists.plan import ListScope
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.events import Trace
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.operation.state import Operation

from .access.authentication import principal_of
from .access.operation_access import FoundOperation, may_see
from .access.principal import Principal
from .bulk.bulk_caller import ADMIN_ACTS, reaches_others
from .bulk.bulk_request import parse_bulk_request
from .bulk.desk import bulk_asker
from .dependencies import Dependencies
from .errors import ApiError, method_not_allowed, not_found
from .http.conditional_headers import etag_matches, last_event_position, wait_seconds, wants_stream
from .http.request_log import logged_request
from .http.requests import (
    Headers,
    base_url,
    check_content_type,
    check_declared,
    check_query,
    parse_headers,
    parse_trace,
    read_body,
)
from .http.responses import (
    JSON,
    EncodedResponse,
    StreamedResponse,
    empty_response,
    json_response,
    monitor_response,
    run_until_disconnect,
    status_response,
)
from .http.submit_request import OPERATION_ID, mark_rejected
from .lists.count_request import parse_count_request
from .lists.list_request import parse_list_request
from .lists.operation_list import AnsweredList, index_off, list_scope
from .operations.cancel import decode_reason
from .operations.history import STREAM_HEADERS
from .operations.retry import RetryRequest, check_empty
from .operations.submit import Accepted
from .read_access import access_ended, find_to_read, until_access_ends
from .signals.shown_wait import shown_to

ALLOW_READ: Final = "GET, HEAD"
ALLOW_STATUS: Final = "GET, HEAD, DELETE"
ALLOW_POST: Final = "POST"
READS: Final = [HttpMethod.GET, HttpMethod.HEAD]

STATUS_PREFIX: Final = "/status/"
STORED_ID: Final = "Operation-Stored-Id"
"""Header of a history: the operation's id at the broker, if the client knows it by another one."""

_LIST: Final = "/status"
_COUNT: Final = "/status:count"
_STATUS: Final = "/status/{target:str}"
_HISTORY: Final = "/status/{operation_id:str}/events"
_NOTHING: Final[tuple[bytes, ...]] = ()
_VARY: Final = {"Vary": "Accept"}

AnyRequest = Request[Any, Any, Any]


def status_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handlers of `/status` and the paths below it."""

    # One handler for all methods of a path: litestar would add its own for OPTIONS, which responds 204.
    @route(_STATUS, http_method=[*READS, HttpMethod.POST, HttpMethod.OPTIONS])
    async def status(request: AnyRequest) -> ASGIApp:
        operation_id, colon, action = request.path_params["target"].rpartition(":")  # an operation id has no ':'
        if not colon:
            raise method_not_allowed(ALLOW_STATUS)  # a read does not get here: `read_status`
        act = _ACTS.get(action)
        if act is None:
            raise not_found()
        _check_method(request, [HttpMethod.POST], ALLOW_POST)
        return await act(dependencies, operation_id, request)

    @route(_HISTORY, http_method=[*READS, HttpMethod.OPTIONS])
    async def history(request: AnyRequest) -> ASGIApp:
        _check_method(request, READS, ALLOW_READ)
        return await _history(dependencies, request.path_params["operation_id"], request)

    @route(_LIST, http_method=[*READS, HttpMethod.OPTIONS])
    async def operation_list(request: AnyRequest) -> ASGIApp:
        _check_method(request, READS, ALLOW_READ)
        return await _list(dependencies, request)

    @route(_COUNT, http_method=[*READS, HttpMethod.OPTIONS])
    async def operation_count(request: AnyRequest) -> ASGIApp:
        _check_method(request, READS, ALLOW_READ)
        return await _count(dependencies, request)

    @route([f"{_LIST}:{act}" for act in BulkAct], http_method=[HttpMethod.POST, *READS, HttpMethod.OPTIONS])
    async def bulk(request: AnyRequest) -> ASGIApp:
        _check_method(request, [HttpMethod.POST], ALLOW_POST)
        try:
            return await _bulk(dependencies, BulkAct(request.scope["path"].rpartition(":")[2]), request)
        except ApiError as error:
            mark_rejected(error, {name for name, _ in request.scope["headers"]})
            raise

    return [status, history, operation_list, operation_count, bulk]


def _check_method(request: AnyRequest, methods: Collection[HttpMethod], allow: str) -> None:
    if request.method not in methods:
        raise method_not_allowed(allow)


async def read_status(
    dependencies: Dependencies, operation_id: str, scope: HTTPScope, receive: Receive
) -> EncodedResponse:
    """Answer GET and HEAD of `/status/{operation-id}`.

    Raises:
        ApiError: as `StatusReader.read`; `InvalidParameter`.
    """
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    seconds = wait_seconds(headers)
    principal = principal_of(scope)
    found = await find_to_read(dependencies, principal, operation_id)
    logged_request(scope).operation_id = found.stored_id
    with found.shown_as_own():
        if seconds:
            work = dependencies.watches.wait_until_terminal(found.stored_id, seconds)
            with until_access_ends(dependencies, principal) as ended:
                operation = await run_until_disconnect(receive, work, ended)
                if operation is None and ended is not None and ended.done():
                    raise access_ended(dependencies, principal)
            if operation is None:
                return empty_response(400)  # the client has disconnected
        elif seconds is None:
            operation = await dependencies.brief_waits.read(found.stored_id)
        else:
            operation = await dependencies.status.read(found.stored_id)
    sees = _what_it_sees(dependencies, principal)
    monitor = await dependencies.status.monitor(operation, sees)
    retried_by = await dependencies.retrier.follow_up_of(operation, found.own_id, sees)
    if monitor.id != found.own_id or retried_by:  # a snapshot of an earlier version does not have its own id
        monitor = msgspec.structs.replace(monitor, id=found.own_id, retried_by=retried_by)
    base = partial(_base, dependencies, headers, scope)
    monitor = shown_to(dependencies.access, principal, monitor, operation, base)
    return status_response(
        monitor,
        retry_after=dependencies.status.retry_after(operation),
        waited=seconds or 0,
        is_known=lambda etag: etag_matches(headers, etag),
    )


def _base(dependencies: Dependencies, headers: Headers, scope: Scope) -> str:
    return dependencies.public_url or base_url(headers, scope["scheme"])


def _what_it_sees(dependencies: Dependencies, principal: Principal | None) -> Callable[[Operation], bool] | None:
    """Return which other operations an answer may name; None for all, without authentication."""
    if dependencies.access is None:
        return None
    return (lambda _: False) if principal is None else partial(may_see, principal)


async def _list(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    visible = _visible(dependencies, scope)
    if dependencies.lists is None:
        raise index_off()
    asked = parse_list_request(scope["query_string"])
    base = _base(dependencies, parse_headers(scope["headers"]), scope)
    return _listed(await dependencies.lists.page(asked, visible, base))


async def _count(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    visible = _visible(dependencies, request.scope)
    if dependencies.counts is None:
        raise index_off()
    return _listed(await dependencies.counts.count(parse_count_request(request.scope["query_string"]), visible))


def _visible(dependencies: Dependencies, scope: Scope) -> ListScope:
    """Return whose operations a list or a count may show to a caller."""
    principal = principal_of(scope)
    if principal is None and dependencies.access is not None:
        raise access_ended(dependencies)  # the door has let it pass, so this is a mistake of ours, and stays safe
    return list_scope(principal)


def _listed(found: AnsweredList) -> ASGIApp:
    return json_response(found.body, headers={"Index-Lag": f"{found.lag:.1f}", "Cache-Control": "no-cache"})


async def _cancel(dependencies: Dependencies, operation_id: str, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    caller = dependencies.callers.resolve(scope["client"], headers)
    logged = logged_request(scope)
    logged.operation_id, logged.caller = operation_id, caller.identity
    body = await _read_body(dependencies, request, headers)
    if body is None:
        return empty_response(400)  # the client has disconnected
    principal = principal_of(scope)
    reason = decode_reason(body)
    found, by = FoundOperation(operation_id, operation_id), caller.identity
    if dependencies.access is not None:
        if principal is None or dependencies.access.ends.has_ended(principal):
            raise access_ended(dependencies, principal)  # a body may take minutes
        found, by = await dependencies.access.operations.find_to_cancel(principal, operation_id), principal.subject
        logged.operation_id, logged.caller = found.stored_id, by
    with found.shown_as_own():
        operation = await dependencies.canceler.cancel(found.stored_id, by=by, reason=reason)
    if found.is_foreign and principal is not None and dependencies.access_recorder is not None:
        dependencies.access_recorder.note_act(AdminAct.CANCELED, principal, found.stored_id)
    return monitor_response(
        await dependencies.status.with_result(operation),
        retry_after=dependencies.status.retry_after(operation),
        cancel_requested_at=await dependencies.status.cancel_requested_at(operation),
    )


async def _retry(dependencies: Dependencies, operation_id: str, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    caller = dependencies.callers.resolve(scope["client"], headers)
    base = _base(dependencies, headers, scope)
    logged = logged_request(scope)
    logged.operation_id, logged.caller = operation_id, caller.identity
    body = await _read_body(dependencies, request, headers)
    if body is None:
        return empty_response(400)  # the client has disconnected
    check_empty(body)
    principal = principal_of(scope)
    found = FoundOperation(operation_id, operation_id)
    if dependencies.access is not None:
        if principal is None or dependencies.access.ends.has_ended(principal):
            raise access_ended(dependencies, principal)  # a body may take minutes
        found = await dependencies.access.operations.find_to_retry(principal, operation_id)
        logged.operation_id, logged.caller = found.stored_id, principal.subject
    asked = RetryRequest(caller=caller, principal=principal, trace=_trace(dependencies, headers))
    with found.shown_as_own():
        accepted = await dependencies.retrier.retry(
            found.stored_id, found.own_id, asked, _what_it_sees(dependencies, principal)
        )
    if found.is_foreign and principal is not None and dependencies.access_recorder is not None:
        dependencies.access_recorder.note_act(AdminAct.RETRIED, principal, found.stored_id)
    follow_up = accepted.operation.public_id
    return await _accepted(
        dependencies, accepted, {"Operation-Location": f"{base}/status/{follow_up}", OPERATION_ID: follow_up}
    )


_ACTS: Final = {"cancel": _cancel, "retry": _retry}


async def _bulk(dependencies: Dependencies, act: BulkAct, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    headers = parse_headers(scope["headers"])
    principal = principal_of(scope)
    if dependencies.access is not None and (principal is None or not principal.subject):
        raise access_ended(dependencies, principal)  # the door has let it pass, so this is a mistake of ours
    if dependencies.bulk is None:
        raise index_off()
    asked = parse_bulk_request(act, scope["query_string"])
    caller = dependencies.callers.resolve(scope["client"], headers)
    base = _base(dependencies, headers, scope)
    asker = bulk_asker(headers, caller, principal, _trace(dependencies, headers), dependencies.new_operation_id)
    logged = logged_request(scope)
    logged.caller = caller.identity if principal is None else principal.subject
    body = await _read_body(dependencies, request, headers)
    if body is None:
        return empty_response(400)  # the client has disconnected
    if dependencies.access is not None and principal is not None and dependencies.access.ends.has_ended(principal):
        raise access_ended(dependencies, principal)  # a body may take minutes
    reason = decode_reason(body)
    if asked.is_dry_run:
        return _listed(await dependencies.bulk.preview(asked, principal))
    accepted = await dependencies.bulk.submit(asked, asker, reason)
    logged.operation_id = accepted.operation.id
    if principal is not None and dependencies.access_recorder is not None and reaches_others(act, principal):
        detail = f"all of: {asked.filter}"
        dependencies.access_recorder.note_act(ADMIN_ACTS[act], principal, accepted.operation.id, detail=detail)
    return await _accepted(dependencies, accepted, asker.headers(base))


async def _read_body(dependencies: Dependencies, request: AnyRequest, headers: Headers) -> bytes | None:
    check_content_type(headers)
    body = await read_body(request.receive, headers, dependencies.body_limit)
    if body is not None:
        check_declared(headers, body)
    return body


def _trace(dependencies: Dependencies, headers: Headers) -> Trace | None:
    return (dependencies.tracing.active().trace if dependencies.tracing.is_on else None) or parse_trace(headers)


async def _accepted(dependencies: Dependencies, found: Accepted, headers: dict[str, str]) -> ASGIApp:
    operation, blocked_by = await dependencies.status.with_result(found.operation), found.blocked_by
    return monitor_response(
        operation, retry_after=found.retry_after, status=202, headers=headers, blocked_by=blocked_by
    )


async def _history(dependencies: Dependencies, operation_id: str, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    logged_request(scope).operation_id = operation_id
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    principal = principal_of(scope)
    found = await find_to_read(dependencies, principal, operation_id)
    logged_request(scope).operation_id = found.stored_id
    with found.shown_as_own():
        return await _shown_history(dependencies, found, principal, request, headers)


async def _shown_history(
    dependencies: Dependencies,
    found: FoundOperation,
    principal: Principal | None,
    request: AnyRequest,
    headers: Headers,
) -> ASGIApp:
    scope, operation_id = request.scope, found.stored_id
    # With it a reader makes the stored bytes of what is shown under the client's own id, and checks the hash chain.
    stored = {} if operation_id == found.own_id else {STORED_ID: operation_id}
    if not wants_stream(headers):
        document = await dependencies.history.document(operation_id)
        if not isinstance(document, bytes):
            if scope["http_version"] != "1.0":
                return StreamedResponse(document, media_type=JSON, headers={**_VARY, **stored})
            # HTTP/1.0 has no chunks (RFC 9112, 6.1), and without its length an incomplete document looks complete.
            document = b"".join([piece async for piece in document])
        return json_response(document, headers={**_VARY, **stored})
    position = last_event_position(headers)
    if await dependencies.history.is_at_end(operation_id, position):
        return empty_response(204)  # which ends the reconnects of an EventSource (HTML, Server-sent events)
    is_head = request.method == HttpMethod.HEAD
    stream = _no_pieces() if is_head else dependencies.history.follow(operation_id, position)
    access = dependencies.access
    ends = None if principal is None or access is None else access.ends.watch(principal)
    return StreamedResponse(stream, media_type="text/event-stream", headers={**STREAM_HEADERS, **stored}, access=ends)


async def _no_pieces() -> AsyncGenerator[bytes, None]:
    """The body of a stream in answer to HEAD."""
    for piece in _NOTHING:
        yield piece
