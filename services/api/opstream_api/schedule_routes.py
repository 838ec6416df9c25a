"""The routes of schedules: what is at the paths below `/schedules` (docs/schedules.md).

What they do is in `schedules/desk.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from opstream_journal import JournalError, JournalFull
from opstream_schemas.errors import ErrorCode
from opstream_schemas.schedules.schedule import MAX_PREVIEW, next_moments
from opstream_schemas.schedules.schedule_event import ScheduleAct, ScheduleState

from .access.authentication import CHALLENGE, principal_of
from .dependencies import Dependencies
from .errors import ApiError, journal_error, method_not_allowed, not_found, unauthenticated
from .http.request_log import logged_request
from .http.requests import Headers, base_url, check_content_type, check_declared, check_query, parse_headers, read_body
from .http.responses import empty_response, json_response, monitor_response
from .http.submit_request import OPERATION_ID
from .schedules.asker import Asker
from .schedules.desk import ScheduleDesk, schedules_full

logger = logging.getLogger(__name__)

_ALL: Final = "/schedules"
_ONE: Final = "/schedules/{target:str}"
_HISTORY: Final = "/schedules/{name:str}/history"
_EVERY: Final = [
    HttpMethod.GET,
    HttpMethod.HEAD,
    HttpMethod.PUT,
    HttpMethod.POST,
    HttpMethod.DELETE,
    HttpMethod.OPTIONS,
]
_READS: Final = frozenset({"GET", "HEAD"})
_ALLOW_READ: Final = "GET, HEAD"
_ALLOW_ONE: Final = "GET, HEAD, PUT, DELETE"
_COUNT: Final = "count"
_DEFAULT_COUNT: Final = 10
_encode: Final = msgspec.json.Encoder().encode

AnyRequest = Request[Any, Any, Any]


def schedule_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handlers of `/schedules` and the paths below it."""

    @route(_ALL, http_method=_EVERY)
    async def schedules(request: AnyRequest) -> ASGIApp:
        return await _answer(_list(dependencies, request))

    @route(_ONE, http_method=_EVERY)
    async def schedule(request: AnyRequest) -> ASGIApp:
        name, colon, action = request.path_params["target"].rpartition(":")
        if not colon:
            return await _answer(_one(dependencies, action, request))
        work = _ACTIONS.get(action)
        if work is None:
            raise not_found()
        return await _answer(work(dependencies, name, request))

    @route(_HISTORY, http_method=_EVERY)
    async def schedule_history(request: AnyRequest) -> ASGIApp:
        return await _answer(_history(dependencies, request.path_params["name"], request))

    return [schedules, schedule, schedule_history]


def allowed_of_schedules(path: str) -> str | None:
    """Return the methods of a path of schedules, for `Allow`; None for any other path."""
    if path == _ALL:
        return _ALLOW_READ
    name, _, rest = path.removeprefix(f"{_ALL}/").partition("/")
    if not path.startswith(f"{_ALL}/") or rest not in {"", "history"}:
        return None
    _, colon, action = name.rpartition(":")
    if rest or action == "preview":
        return _ALLOW_READ
    if not colon:
        return _ALLOW_ONE
    return "POST" if action in _ACTIONS else None


async def _answer(work: Coroutine[Any, Any, ASGIApp]) -> ASGIApp:
    try:
        return await work
    except JournalFull as error:
        raise _full(error) from error
    except JournalError as error:
        raise journal_error(error) from error


def _full(error: JournalFull) -> ApiError:
    logger.error("schedules are refused: %s", error)
    return schedules_full()


async def _list(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    _check_method(request, _READS, _ALLOW_READ)
    check_query(request.scope["query_string"])
    desk, asker, _ = _desk(dependencies, request)
    return json_response(_encode({"value": [_shown(state) for state in await desk.find_all(asker)]}))


async def _one(dependencies: Dependencies, name: str, request: AnyRequest) -> ASGIApp:
    _check_method(request, {*_READS, "PUT", "DELETE"}, _ALLOW_ONE)
    check_query(request.scope["query_string"])
    desk, asker, headers = _desk(dependencies, request)
    if request.method in _READS:
        return json_response(_encode(_shown(await desk.read(asker, name))))
    body = await _body(dependencies, request, headers)
    if body is None:
        return empty_response(400)  # the client has disconnected
    if request.method == "DELETE":
        await desk.delete(asker, name)
        return empty_response(204)
    state, is_new = await desk.set(asker, name, body)
    return json_response(_encode(_shown(state)), status=201 if is_new else 200)


async def _preview(dependencies: Dependencies, name: str, request: AnyRequest) -> ASGIApp:
    _check_method(request, _READS, _ALLOW_READ)
    desk, asker, _ = _desk(dependencies, request)
    count = _preview_count(request.scope["query_string"])
    return json_response(_encode({"value": await desk.preview(asker, name, count)}))


async def _history(dependencies: Dependencies, name: str, request: AnyRequest) -> ASGIApp:
    _check_method(request, _READS, _ALLOW_READ)
    check_query(request.scope["query_string"])
    desk, asker, _ = _desk(dependencies, request)
    return json_response(_encode({"value": await desk.history(asker, name)}))


async def _trigger(dependencies: Dependencies, name: str, request: AnyRequest) -> ASGIApp:
    _check_method(request, {"POST"}, "POST")
    check_query(request.scope["query_string"])
    desk, asker, headers = _desk(dependencies, request)
    base = dependencies.public_url or base_url(headers, request.scope["scheme"])
    if await _body(dependencies, request, headers) is None:
        return empty_response(400)
    accepted, operation_id = await desk.trigger(asker, name)
    location = {"Operation-Location": f"{base}/status/{operation_id}", OPERATION_ID: operation_id}
    operation = await dependencies.status.with_result(accepted.operation)
    return monitor_response(operation, retry_after=accepted.retry_after, status=202, headers=location)


async def _backfill(dependencies: Dependencies, name: str, request: AnyRequest) -> ASGIApp:
    _check_method(request, {"POST"}, "POST")
    check_query(request.scope["query_string"])
    desk, asker, headers = _desk(dependencies, request)
    body = await _body(dependencies, request, headers)
    if body is None:
        return empty_response(400)
    made = await desk.backfill(asker, name, body)
    shown = [
        {"dueAt": one.due_at, **({"operationId": one.operation_id} if one.operation_id else {"detail": one.detail})}
        for one in made
    ]
    return json_response(_encode({"value": shown}))


async def _pause(dependencies: Dependencies, name: str, request: AnyRequest, *, is_paused: bool) -> ASGIApp:
    _check_method(request, {"POST"}, "POST")
    check_query(request.scope["query_string"])
    desk, asker, headers = _desk(dependencies, request)
    if await _body(dependencies, request, headers) is None:
        return empty_response(400)
    return json_response(_encode(_shown(await desk.pause(asker, name, is_paused=is_paused))))


_ACTIONS: Final[dict[str, Callable[[Dependencies, str, AnyRequest], Coroutine[Any, Any, ASGIApp]]]] = {
    "preview": _preview,
    "trigger": _trigger,
    "backfill": _backfill,
    "pause": partial(_pause, is_paused=True),
    "resume": partial(_pause, is_paused=False),
}


def _desk(dependencies: Dependencies, request: AnyRequest) -> tuple[ScheduleDesk, Asker, Headers]:
    headers = parse_headers(request.scope["headers"])
    principal = principal_of(request.scope)
    if dependencies.access is not None and (principal is None or not principal.subject):
        raise unauthenticated(CHALLENGE)  # the door has let it pass, so this is a mistake of ours, and stays safe
    if dependencies.schedules is None:
        raise not_found()
    identity = dependencies.callers.resolve(request.scope["client"], headers).identity
    logged = logged_request(request.scope)
    logged.caller = identity if principal is None else principal.subject
    return dependencies.schedules, Asker(identity, principal), headers


async def _body(dependencies: Dependencies, request: AnyRequest, headers: Headers) -> bytes | None:
    check_content_type(headers)
    body = await read_body(request.receive, headers, dependencies.body_limit)
    if body is not None:
        check_declared(headers, body)
        principal, access = principal_of(request.scope), dependencies.access
        if access is not None and principal is not None and access.ends.has_ended(principal):
            raise unauthenticated(access.challenge)  # a body may take minutes
    return body


def _preview_count(query: bytes) -> int:
    found = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    texts = [value for name, value in found if name == _COUNT]
    check_query(b"&".join(part for part in query.split(b"&") if not part.startswith(b"count=")))
    if not texts:
        return _DEFAULT_COUNT
    if len(texts) > 1 or not (texts[0].isascii() and texts[0].isdigit() and 1 <= int(texts[0]) <= MAX_PREVIEW):
        message = f"{_COUNT} must be a whole number from 1 to {MAX_PREVIEW}"
        raise ApiError(ErrorCode.INVALID_PARAMETER, message, target=_COUNT)
    return int(texts[0])


def _check_method(request: AnyRequest, methods: Collection[str], allow: str) -> None:
    if request.method not in methods:
        raise method_not_allowed(allow)


def _shown(state: ScheduleState) -> dict[str, Any]:
    """Return a schedule as a client reads it: as it was written, and how it stands."""
    changed = state.changed
    plain = msgspec.structs.replace(changed.definition, input=msgspec.Raw(b"null"))
    shown: dict[str, Any] = {
        "name": changed.name,
        "status": "Active" if changed.is_active else "Paused",
        **msgspec.json.decode(_encode(plain)),
        "input": changed.definition.input,
        "createdAt": changed.created_at,
        "changedAt": changed.at,
    }
    if changed.caller:
        shown["caller"] = changed.caller
    if changed.act == ScheduleAct.PAUSED:
        shown["pausedBecause"] = changed.detail
    if changed.is_active and (coming := next_moments(changed.definition, state.done_until(datetime.now(UTC)), 1)):
        shown["nextAt"] = coming[0]
    if state.last is not None:
        shown["last"] = state.last
    return shown
