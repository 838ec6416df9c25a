"""`DELETE /status/{operation-id}`: erases a confidential operation (docs/confidential.md)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from opstream_api.access.authentication import CHALLENGE, principal_of
from opstream_api.access.operation_access import FoundOperation
from opstream_api.dependencies import Dependencies
from opstream_api.errors import ApiError, method_not_allowed, not_found, unauthenticated
from opstream_api.http.request_log import logged_request
from opstream_api.http.requests import check_query, parse_headers
from opstream_api.http.responses import empty_response
from opstream_schemas.errors import ErrorCode
from opstream_schemas.event_types.erasure import REASON_LIMIT
from opstream_schemas.logs.access_log import AdminAct

REASON: Final = "reason"
"""The query parameter that says why."""

_PATH: Final = "/status/{target:str}"
_ACTS: Final = frozenset({"cancel", "retry"})
"""What follows the `:` of paths that take POST only."""

AnyRequest = Request[Any, Any, Any]


def erasure_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handler of DELETE; the other methods of the path are in `status_routes`."""

    @route(
        _PATH, http_method=[HttpMethod.DELETE], status_code=200
    )  # litestar lets no handler of a 204 answer by itself
    async def erase(request: AnyRequest) -> ASGIApp:
        target: str = request.path_params["target"]
        operation_id, colon, action = target.partition(":")
        if colon:
            raise method_not_allowed("POST") if action in _ACTS else not_found()
        return await _erase(dependencies, operation_id, request)

    return [erase]


async def _erase(dependencies: Dependencies, operation_id: str, request: AnyRequest) -> ASGIApp:
    """Erase an operation, and answer 204: at once, and as often as it is asked for.

    Raises:
        ApiError: as `ErasureDesk.erase`; `InvalidParameter`; `Forbidden`.
    """
    scope = request.scope
    reason = _parse_reason(scope["query_string"])
    headers = parse_headers(scope["headers"])
    caller = dependencies.callers.resolve(scope["client"], headers)
    logged = logged_request(scope)
    logged.operation_id, logged.caller = operation_id, caller.identity
    principal = principal_of(scope)
    found, by = FoundOperation(operation_id, operation_id), caller.identity
    if dependencies.access is not None:
        if principal is None:
            raise unauthenticated(CHALLENGE)  # the door has let it pass, so this is a mistake of ours, and stays safe
        found, by = await dependencies.access.operations.find_to_erase(principal, operation_id), principal.subject
        logged.operation_id, logged.caller = found.stored_id, by
    with found.shown_as_own():
        await dependencies.erasure.erase(found.stored_id, by=by, reason=reason)
    if found.is_foreign and principal is not None and dependencies.access_recorder is not None:
        dependencies.access_recorder.note_act(AdminAct.ERASED, principal, found.stored_id)
    return empty_response(204)


def _parse_reason(query: bytes) -> str:
    given = [value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == REASON]
    check_query(b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] != REASON.encode()))
    reason = "".join(given)
    if len(given) > 1 or len(reason.encode()) > REASON_LIMIT:
        message = f"{REASON} must be one text of at most {REASON_LIMIT} bytes"
        raise ApiError(ErrorCode.INVALID_PARAMETER, message, target=REASON)
    return reason
