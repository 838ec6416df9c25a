"""The route of signals: `POST /status/{operation-id}:signal/{name}` (docs/signals.md).

What a signal does to an operation is in `signals/`.
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from opstream_api.access.authentication import principal_of
from opstream_api.access.operation_access import FoundOperation
from opstream_api.access.principal import Principal
from opstream_api.access.signal_access import SIGNAL_VERB
from opstream_api.dependencies import Dependencies
from opstream_api.errors import ApiError, method_not_allowed, not_found, unauthenticated
from opstream_api.http.request_log import logged_request
from opstream_api.http.requests import check_content_type, check_declared, check_query, parse_headers, read_body
from opstream_api.http.responses import empty_response, monitor_response
from opstream_api.http.submit_request import REPEATABILITY_RESULT, mark_rejected, uses_repeatability
from opstream_api.signals.signal_desk import TakenSignal
from opstream_api.signals.signal_request import parse_signal, parse_signal_name
from opstream_schemas.signals.signal_book import MAX_PAYLOAD

SIGNAL_STATE: Final = "Signal-State"
"""Header of an answer: what became of the signal (`SignalState`)."""

_PATH: Final = "/status/{target:str}/{name:str}"
_ALLOW: Final = "POST"
_EVERY: Final = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.POST, HttpMethod.OPTIONS]

AnyRequest = Request[Any, Any, Any]


def signal_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handler of the paths of signals."""

    @route(_PATH, http_method=_EVERY)
    async def signal(request: AnyRequest) -> ASGIApp:
        target: str = request.path_params["target"]
        if not target.endswith(SIGNAL_VERB):
            raise not_found()
        if request.method != HttpMethod.POST:
            raise method_not_allowed(_ALLOW)
        try:
            return await _signal(dependencies, target.removesuffix(SIGNAL_VERB), request)
        except ApiError as error:
            raise mark_rejected(error, {name for name, _ in request.scope["headers"]}) from error

    return [signal]


async def _signal(dependencies: Dependencies, operation_id: str, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    caller = dependencies.callers.resolve(scope["client"], headers)
    logged = logged_request(scope)
    logged.operation_id, logged.caller = operation_id, caller.identity
    name = parse_signal_name(request.path_params["name"])
    check_content_type(headers)
    body = await read_body(request.receive, headers, min(dependencies.body_limit, MAX_PAYLOAD))
    if body is None:
        return empty_response(400)  # the client has disconnected
    check_declared(headers, body)
    principal, access = principal_of(scope), dependencies.access
    found, by, wait = FoundOperation(operation_id, operation_id), caller.identity, 0
    if access is not None:
        if principal is None or access.ends.has_ended(principal):
            raise unauthenticated(access.challenge)  # a body may take minutes
        found = await access.operations.find_to_signal(principal, operation_id)
        by, wait = principal.subject, principal.opens_wait
        logged.operation_id, logged.caller = found.stored_id, by
    asked = parse_signal(name, headers, body, by=by, is_proven=access is not None and bool(by), wait=wait)
    with found.shown_as_own():
        taken = await dependencies.signals.send(found.stored_id, asked)
    answer = {SIGNAL_STATE: str(taken.state)}
    if uses_repeatability(headers):
        answer[REPEATABILITY_RESULT] = "accepted"
    if not _may_read(dependencies, principal, found):
        return empty_response(204, answer)
    taken = taken._replace(operation=await dependencies.status.with_result(taken.operation))
    return _shown(dependencies, taken, answer)


def _may_read(dependencies: Dependencies, principal: Principal | None, found: FoundOperation) -> bool:
    """Return True if a sender may see the status: who may only send a signal hears no more than that it was taken."""
    if dependencies.access is None:
        return True
    scopes = principal.scopes if principal is not None else None
    return scopes is not None and (scopes.reads_all or (scopes.reads and not found.is_foreign))


def _shown(dependencies: Dependencies, taken: TakenSignal, headers: dict[str, str]) -> ASGIApp:
    retry_after = dependencies.status.retry_after(taken.operation)
    return monitor_response(taken.operation, retry_after=retry_after, headers=headers)
