"""The routes of actions as things: what is at `/actions` and the paths below it (docs/actions.md).

What they do is in `actions/desk.py`. No name is reserved for them: a submit of an application whose resource is called
`actions` stays one, also of an action `pause`.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope

from opstream_journal import JournalError
from opstream_journal.actions.action_overview import ActionOverview
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.names import Kind

from .access.authentication import CHALLENGE, principal_of
from .actions.desk import ActionDesk, ActionReader
from .dependencies import Dependencies
from .errors import journal_error, method_not_allowed, not_found, unauthenticated
from .http.request_log import logged_request
from .http.requests import Headers, check_content_type, check_declared, check_query, parse_headers, read_body
from .http.responses import empty_response, json_response
from .http.submit_request import parse_submit_path

RESOURCE: Final = "actions"
"""The first part of these paths."""
_ALL: Final = f"/{RESOURCE}"
_ONE: Final = f"/{RESOURCE}/{{target:str}}"
_ACT: Final = re.compile(rb"/actions/([a-z0-9-]{1,40}:[a-z0-9-]{1,40}):(pause|resume|withdraw)")
_ACTS: Final = {"pause": AdminAct.PAUSED, "resume": AdminAct.RESUMED, "withdraw": AdminAct.WITHDRAWN}
_EVERY: Final = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.POST, HttpMethod.OPTIONS]
_READS: Final = frozenset({"GET", "HEAD"})
_ALLOW_READ: Final = "GET, HEAD"
_encode: Final = msgspec.json.Encoder().encode

AnyRequest = Request[Any, Any, Any]


def is_of_actions(dependencies: Dependencies, scope: HTTPScope) -> bool:
    """Return True if a path is one of these, and no submit. In another spelling it is none of them."""
    raw_path = scope["raw_path"]
    if raw_path == _ALL.encode():
        return True
    found = _ACT.fullmatch(raw_path)
    return found is not None and not dependencies.submitter.knows(Kind(RESOURCE, found[2].decode()))


def action_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handlers of `/actions` and the paths below it."""

    @route(_ALL, http_method=_EVERY)
    async def actions(request: AnyRequest) -> ASGIApp:
        if not is_of_actions(dependencies, request.scope):
            raise not_found()
        if request.method not in _READS:
            raise method_not_allowed(_ALLOW_READ)
        return await _list(dependencies, request)

    @route(_ONE, http_method=_EVERY)
    async def action(request: AnyRequest) -> ASGIApp:
        found = _ACT.fullmatch(request.scope["raw_path"])
        if found is None:
            parse_submit_path(request.scope["raw_path"])  # which refuses what is no path of a submit, either
            raise method_not_allowed("POST")
        if request.method != "POST":
            raise method_not_allowed("POST")
        return await _act(dependencies, Kind.parse(found[1].decode()), found[2].decode(), request)

    return [actions, action]


async def _list(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    check_query(request.scope["query_string"])
    desk, reader, _ = _desk(dependencies, request)
    try:
        found = await desk.find_all(reader)
    except JournalError as error:
        raise journal_error(error) from error
    shown = [_shown(desk, one, is_operator=reader.is_operator) for one in found]
    return json_response(_encode({"value": shown}), headers={"Cache-Control": "no-cache"})


async def _act(dependencies: Dependencies, kind: Kind, act: str, request: AnyRequest) -> ASGIApp:
    check_query(request.scope["query_string"])
    desk, reader, headers = _desk(dependencies, request)
    check_content_type(headers)
    body = await read_body(request.receive, headers, dependencies.body_limit)
    if body is None:
        return empty_response(400)  # the client has disconnected
    check_declared(headers, body)
    access, principal = dependencies.access, reader.principal
    if access is not None and principal is not None and access.ends.has_ended(principal):
        raise unauthenticated(access.challenge)  # a body may take minutes
    try:
        if act == "withdraw":
            found, detail = await desk.withdraw(reader, kind, body)
        elif act == "pause":
            detail = (await desk.pause(reader, kind, body)).reason
        else:
            detail = await desk.resume(reader, kind, body)
        if dependencies.access_recorder is not None:
            dependencies.access_recorder.note_act(_ACTS[act], principal, str(kind), by=reader.identity, detail=detail)
        if act != "withdraw":
            found = await desk.find(reader, kind)
    except JournalError as error:
        raise journal_error(error) from error
    return json_response(_encode(_shown(desk, found, is_operator=True)))


def _desk(dependencies: Dependencies, request: AnyRequest) -> tuple[ActionDesk, ActionReader, Headers]:
    headers = parse_headers(request.scope["headers"])
    principal = principal_of(request.scope)
    if dependencies.access is not None and (principal is None or not principal.subject):
        raise unauthenticated(CHALLENGE)  # the door has let it pass, so this is a mistake of ours, and stays safe
    if dependencies.actions is None:
        raise not_found()
    identity = dependencies.callers.resolve(request.scope["client"], headers).identity
    reader = ActionReader(identity, principal)
    logged_request(request.scope).caller = reader.name
    return dependencies.actions, reader, headers


def _shown(desk: ActionDesk, one: ActionOverview, *, is_operator: bool) -> dict[str, Any]:
    """Return an action as a caller reads it. Only an operator sees what waits of all callers, how
    busy runners are and where: it would tell a tenant the load of others."""
    shown: dict[str, Any] = {
        "action": one.action,
        "summary": desk.summary(Kind.parse(one.action)),
        "version": one.version,
        "runnerCount": len(one.runners),
        "runnerVersions": sorted({runner.version for runner in one.runners}),
    }
    if one.paused is not None:
        shown["paused"] = one.paused if is_operator else msgspec.structs.replace(one.paused, by="")
    if is_operator:
        shown["slots"] = sum(runner.slots for runner in one.runners)
        shown["freeSlots"] = sum(runner.free for runner in one.runners)
        if one.last_runner_at is not None:
            shown["lastRunnerAt"] = one.last_runner_at
        shown["runners"] = one.runners
        shown["waiting"] = one.waiting
        if one.queues is not msgspec.UNSET:
            shown["queues"] = one.queues
    return shown
