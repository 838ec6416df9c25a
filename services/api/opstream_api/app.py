"""The ASGI app: the routes of submits, documents and health, and the error responses of all routes.

The routes below `/status` are in `status_routes.py`. What a request does to an operation is in `operations/`. Submits
and reads of a status, which are nearly all requests, are answered in front of litestar (`DirectRoutes`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, route
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.status_codes import HTTP_400_BAD_REQUEST
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from opstream_schemas.errors import ErrorCode
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import BlockedBy

from .access.access_control import AccessControl
from .access.authentication import AuthenticationMiddleware, principal_of
from .access.denials.access_recorder import denial_reason
from .access.denials.denial import DENIAL_KEY, Denial
from .access.operation_access import admit, shown_blocker
from .access.principal import Principal
from .access.resource_metadata import ResourceMetadata
from .access.status_access import GivenToken
from .access.tokens.status_token import STATUS_TOKEN_PARAMETER
from .action_routes import action_routes, is_of_actions
from .dependencies import Dependencies
from .errors import ApiError, method_not_allowed, not_found, unauthenticated
from .http.conditional_headers import status_token_seconds
from .http.cors import CorsMiddleware
from .http.header_middleware import REQUEST_ID_KEY, HeaderMiddleware
from .http.request_log import STATUS_ROUTE, logged_request, submit_template
from .http.request_origin import RequestOriginMiddleware, is_own
from .http.requests import Headers, base_url, check_declared, parse_headers, read_body
from .http.responses import (
    EncodedResponse,
    empty_response,
    error_as_asgi,
    error_response,
    json_response,
    monitor_response,
)
from .http.submit_request import (
    METHOD,
    OPERATION_ID,
    REPEATABILITY_RESULT,
    SubmitRequest,
    mark_rejected,
    parse_submit,
    parse_submit_path,
)
from .operations.submit import Accepted
from .pages.console_page import console_routes
from .pages.docs_page import docs_routes
from .probes.readiness import readiness
from .routes.erasure_routes import erasure_routes
from .routes.payload_routes import allowed_of_payloads, payload_routes
from .routes.signal_routes import signal_routes
from .routes.undelivered_routes import allowed_of_undelivered, undelivered_routes
from .routes.upload_routes import allowed_of_uploads, is_of_uploads, upload_routes
from .schedule_routes import allowed_of_schedules, schedule_routes
from .status_routes import ALLOW_POST, ALLOW_READ, ALLOW_STATUS, READS, STATUS_PREFIX, read_status, status_routes

logger = logging.getLogger(__name__)

# Every route takes OPTIONS and refuses it: litestar would respond 204 by itself.
_READS: Final = [*READS, HttpMethod.OPTIONS]
_SUBMITS: Final = [HttpMethod.POST, HttpMethod.OPTIONS]
_READ_PATH: Final = re.compile(
    r"/(?:status(?::count)?|actions|status/[^/]+/events|docs(?:/[^/]*)?|console(?:/[^/]*){0,2}|healthz|readyz|(?:openapi|asyncapi)\.json)"
)
_STATUS_PATH: Final = re.compile(r"/status/[^/:]+")
_ACT_PATH: Final = re.compile(r"/status(?:/[^/]*)?:(?:cancel|retry)|/status/[^/]*:signal/[^/]+")
_OK_BODY: Final = b'{"status":"ok"}'

AnyRequest = Request[Any, Any, Any]


def create_app(dependencies: Dependencies) -> ASGIApp:
    """Build the ASGI app of the whole service. It starts and stops nothing."""

    @route("/healthz", http_method=_READS, before_request=_refuse_options)
    async def healthz() -> ASGIApp:
        return json_response(_OK_BODY)

    @route("/readyz", http_method=_READS, before_request=_refuse_options)
    async def readyz() -> ASGIApp:
        return await readiness(dependencies.conditions, dependencies.capacity)

    @route("/openapi.json", http_method=_READS, before_request=_refuse_options)
    async def openapi(request: AnyRequest) -> ASGIApp:
        return json_response(await dependencies.openapi.current(*_shown_actions(request.scope)))

    @route("/asyncapi.json", http_method=_READS, before_request=_refuse_options)
    async def asyncapi(request: AnyRequest) -> ASGIApp:
        return json_response(await dependencies.asyncapi.current(*_shown_actions(request.scope)))

    @route(["/", "/{rest:path}"], http_method=_SUBMITS)
    async def other(request: AnyRequest) -> ASGIApp:
        raise _method_error(request.scope)  # a submit does not get here: `DirectRoutes`

    access = dependencies.access
    app = PlainLitestar(
        [
            *_metadata_routes(access.metadata if access is not None else None),
            *status_routes(dependencies),
            *erasure_routes(dependencies),
            *signal_routes(dependencies),
            *schedule_routes(dependencies),
            *action_routes(dependencies),
            *undelivered_routes(dependencies),
            *payload_routes(dependencies),
            *upload_routes(dependencies),
            *docs_routes(dependencies.docs_page),
            *console_routes(dependencies.console_page),
            healthz,
            readyz,
            openapi,
            asyncapi,
            other,
        ],
        exception_handlers={
            ApiError: _handle_api_error,
            HTTPException: _handle_framework_error,
            Exception: _handle_unexpected_error,
        },
        logging_config=None,
        openapi_config=None,
    )
    routes: ASGIApp = DirectRoutes(app, dependencies)
    if access is not None:
        routes = AuthenticationMiddleware(
            routes,
            access.authenticators,
            challenge=access.challenge,
            open_paths=(*access.open_paths, *dependencies.console_page.raw_paths),
            status=access.status,
            limit=access.requests,
        )
    guarded: ASGIApp = RequestOriginMiddleware(
        routes,
        hosts=dependencies.hosts,
        origins=(*dependencies.allowed_origins, *dependencies.cors_origins),
        public_url=dependencies.public_url,
    )
    if dependencies.cors_origins:
        guarded = CorsMiddleware(guarded, origins=dependencies.cors_origins)
    recorder = dependencies.access_recorder
    return HeaderMiddleware(
        guarded,
        new_id=dependencies.new_request_id,
        count=dependencies.meter.count,
        log=dependencies.request_log,
        tracing=dependencies.tracing,
        denied=denial_reason if recorder is None else recorder.note_denied,
    )


class DirectRoutes:
    """ASGI app: it answers submits and reads of a status, and leaves all other requests to litestar.

    litestar's own work for a request takes as much processor time as all that opstream does for a read (ADR 0042).

    Args:
        app: litestar's.
        dependencies: of the routes.
    """

    def __init__(self, app: ASGIApp, dependencies: Dependencies) -> None:
        self._app = app
        self._dependencies = dependencies
        metadata = dependencies.access.metadata if dependencies.access is not None else None
        self._metadata_paths = metadata.paths if metadata is not None else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        answer = self._route(scope, receive) if scope["type"] == ScopeType.HTTP else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await answer
        except ApiError as error:
            if error.denial is not None:
                scope["state"][DENIAL_KEY] = Denial(error.denial, principal_of(scope))
            response = error_as_asgi(error)
        except Exception as error:  # noqa: BLE001 - logged, and a 500, as litestar's handler does it
            response = error_as_asgi(_unexpected_error(scope, error))
        await response(scope, receive, send)

    def _route(self, scope: HTTPScope, receive: Receive) -> Coroutine[Any, Any, EncodedResponse] | None:
        method, path = scope["method"], scope["path"]
        if method in READS:
            if not path.startswith(STATUS_PREFIX):
                return None
            target = path[len(STATUS_PREFIX) :]
            # An operation id has no ':' and no '/': what follows them is an action, or a path below the operation.
            is_operation = target and ":" not in target and "/" not in target
            if is_operation:
                logged = logged_request(scope)
                logged.route, logged.operation_id = STATUS_ROUTE, target
            return read_status(self._dependencies, target, scope, receive) if is_operation else None
        is_submit = method == METHOD and not is_own(path) and path not in self._metadata_paths
        if not is_submit or (path.startswith("/actions") and is_of_actions(self._dependencies, scope)):
            return None
        if is_of_uploads(scope):
            return None
        return _submit(self._dependencies, scope, receive)


class PlainLitestar(Litestar):
    """Litestar without its default plugins, which import pydantic and attrs wherever these are installed: 12 MiB."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins


async def _submit(dependencies: Dependencies, scope: HTTPScope, receive: Receive) -> EncodedResponse:
    """Parse, validate and append, respond."""
    headers = parse_headers(scope["headers"])
    submit: SubmitRequest | None = None
    access, principal = dependencies.access, principal_of(scope)
    try:
        submit = parse_submit(
            scope,
            headers,
            callers=dependencies.callers,
            callback_policy=dependencies.callback_policy,
            public_url=dependencies.public_url,
            new_operation_id=dependencies.new_operation_id,
        )
        if access is not None:
            submit = admit(submit, principal, access.operations.ids)
        submit = await dependencies.uploads.admit(submit)
        logged = logged_request(scope)
        logged.operation_id, logged.caller = submit.stored_id, submit.caller.identity
        if dependencies.submitter.knows(submit.kind):
            logged.route = submit_template(submit.kind, bool(submit.resource_id))
            logged.action = str(submit.kind)
        if dependencies.tracing.is_on:  # what comes of the request is linked to this span, not to the client's
            submit = msgspec.structs.replace(submit, trace=dependencies.tracing.active().trace or submit.trace)
        body = await read_body(receive, headers, dependencies.body_limit)
        if body is None:
            return empty_response(400)  # the client has disconnected, so nothing is recorded and nothing is sent
        if access is not None and principal is not None and access.ends.has_ended(principal):
            raise unauthenticated(access.challenge)  # a body may take minutes
        check_declared(headers, body)
        accepted = await dependencies.submitter.submit(submit, body)
        if accepted.operation.result_payload is not None or accepted.operation.confidential:
            operation = await dependencies.status.with_result(accepted.operation)
            accepted = msgspec.structs.replace(accepted, operation=operation)
    except ApiError as error:
        if submit is not None and submit.derived_id:
            error.with_id(submit.derived_id, submit.own_id)
        mark_rejected(error, headers)
        raise
    blocked_by = accepted.blocked_by if access is None else shown_blocker(principal, accepted.blocked_by)
    return _accepted_response(submit, accepted, blocked_by, _status_token(access, principal, headers, submit))


def _status_token(
    access: AccessControl | None, principal: Principal | None, headers: Headers, submit: SubmitRequest
) -> GivenToken | None:
    """Return the status token that a submit asks for, if it gets one."""
    seconds = status_token_seconds(headers) if access is not None else None
    if not seconds or principal is None or access is None or access.status is None:
        return None
    return access.status.give(principal, submit.own_id, seconds)


def _accepted_response(
    submit: SubmitRequest, accepted: Accepted, blocked_by: BlockedBy | None, token: GivenToken | None
) -> EncodedResponse:
    headers = {"Operation-Location": submit.status_url, OPERATION_ID: submit.key.operation_id}
    if token is not None:
        headers["Operation-Location"] += f"?{STATUS_TOKEN_PARAMETER}={token.text}"
        headers["Preference-Applied"] = f"status-token={token.seconds}"
    if submit.key.is_repeatable:
        headers[REPEATABILITY_RESULT] = "accepted"
    return monitor_response(
        accepted.operation,
        retry_after=accepted.retry_after,
        status=202,
        headers=headers,
        blocked_by=blocked_by,
    )


def _metadata_routes(metadata: ResourceMetadata | None) -> list[HTTPRouteHandler]:
    """Return the route of the document that says where to get a bearer token, if they are taken."""
    if metadata is None:
        return []

    @route(list(metadata.paths), http_method=list(HttpMethod))
    async def protected_resource(request: AnyRequest) -> ASGIApp:
        if request.method not in READS:
            raise method_not_allowed(ALLOW_READ)
        own_url = base_url(parse_headers(request.scope["headers"]), request.scope["scheme"])
        return json_response(metadata.document(own_url), headers={"Cache-Control": metadata.cache_control})

    return [protected_resource]


def _shown_actions(scope: Scope) -> tuple[Hashable, Callable[[Kind], bool]]:
    """Return which actions a document shows to a caller: those that it may submit; and a key of that selection."""
    principal = principal_of(scope)
    if principal is None:
        return None, _all_actions
    return principal.scopes.submits, principal.scopes.may_submit


def _all_actions(_kind: Kind) -> bool:
    return True


async def _refuse_options(request: AnyRequest) -> None:
    if request.method == HttpMethod.OPTIONS:
        raise method_not_allowed(ALLOW_READ)


def _handle_api_error(_request: AnyRequest, error: ApiError) -> Response[bytes]:
    return error_response(error)


def _handle_framework_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Translate litestar's own errors: no such route, another method, a broken `Host`."""
    if isinstance(error, MethodNotAllowedException):
        return error_response(_method_error(request.scope))
    if isinstance(error, NotFoundException):
        return error_response(not_found())
    if error.status_code == HTTP_400_BAD_REQUEST:
        return error_response(ApiError(ErrorCode.INVALID_HEADER, "the Host header is not valid", target="Host"))
    return _handle_unexpected_error(request, error)


def _method_error(scope: HTTPScope) -> ApiError:
    path = scope["path"]
    if _READ_PATH.fullmatch(path):
        return method_not_allowed(ALLOW_READ)
    if _STATUS_PATH.fullmatch(path):
        return method_not_allowed(ALLOW_STATUS)
    allow = allowed_of_schedules(path) or allowed_of_undelivered(path) or allowed_of_payloads(path)
    allow = allow or allowed_of_uploads(path)
    if allow is not None:
        return method_not_allowed(allow)
    if _ACT_PATH.fullmatch(path):
        return method_not_allowed(ALLOW_POST)
    try:
        parse_submit_path(scope["raw_path"])
    except ApiError as error:
        refused = error
    else:
        refused = method_not_allowed(ALLOW_POST)
    return mark_rejected(refused, {name for name, _ in scope["headers"]})


def _handle_unexpected_error(request: AnyRequest, error: Exception) -> Response[bytes]:
    return error_response(_unexpected_error(request.scope, error))


def _unexpected_error(scope: Scope, error: Exception) -> ApiError:
    request_id = scope["state"][REQUEST_ID_KEY]
    logger.error("request %s failed: %r", request_id, scope["path"], exc_info=error)
    message = f"the request failed because of an error in the service; its log has the cause under {request_id}"
    return ApiError(ErrorCode.INTERNAL_ERROR, message)
