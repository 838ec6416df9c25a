"""The routes of what did not reach others: `/webhooks/deliveries` and `/subscribers/parked` (docs/webhooks.md).

What they do is in `undelivered/`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from opstream_api.access.authentication import CHALLENGE, principal_of
from opstream_api.dependencies import Dependencies
from opstream_api.errors import ApiError, journal_error, method_not_allowed, not_found, unauthenticated
from opstream_api.http.request_log import logged_request
from opstream_api.http.requests import (
    base_url,
    check_content_type,
    check_declared,
    check_query,
    parse_headers,
    read_body,
)
from opstream_api.http.responses import empty_response, json_response
from opstream_api.undelivered.administrator import Administrator
from opstream_journal import JournalError
from opstream_schemas.errors import ErrorCode

_DELIVERIES: Final = "/webhooks/deliveries"
_DELIVERY: Final = "/webhooks/deliveries/{operation_id:str}/{target:str}"
_PARKED: Final = "/subscribers/parked"
_LETTER: Final = "/subscribers/parked/{durable:str}/{target:str}"
_LIST_PATHS: Final = frozenset({_DELIVERIES, _PARKED})
_ACT_PATH: Final = re.compile(r"/webhooks/deliveries/[^/]+/[^/]+:redeliver|/subscribers/parked/[^/]+/[^/]+:retry")
_READS: Final = frozenset({"GET", "HEAD"})
_ALLOW_READ: Final = "GET, HEAD"
_ALLOW_POST: Final = "POST"
_EVERY: Final = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.POST, HttpMethod.OPTIONS]
_AFTER: Final = "after"
_MAX_SEQUENCE: Final = 2**63 - 1
_SEQUENCE: Final = re.compile(r"[1-9][0-9]{0,18}")
_AFTER_RECORD: Final = re.compile(r"[1-9][0-9]{0,17}")
_AFTER_LETTER: Final = re.compile(r"([A-Za-z0-9-]{1,64})\.([1-9][0-9]{0,17})")
_encode: Final = msgspec.json.Encoder().encode

AnyRequest = Request[Any, Any, Any]


def undelivered_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handlers of `/webhooks/deliveries`, `/subscribers/parked` and the paths below them."""

    @route(_DELIVERIES, http_method=_EVERY)
    async def deliveries(request: AnyRequest) -> ASGIApp:
        return await _answer(_list_deliveries(dependencies, request))

    @route(_DELIVERY, http_method=_EVERY)
    async def delivery(request: AnyRequest) -> ASGIApp:
        return await _answer(_redeliver(dependencies, request))

    @route(_PARKED, http_method=_EVERY)
    async def parked(request: AnyRequest) -> ASGIApp:
        return await _answer(_list_parked(dependencies, request))

    @route(_LETTER, http_method=_EVERY)
    async def letter(request: AnyRequest) -> ASGIApp:
        return await _answer(_retry(dependencies, request))

    return [deliveries, delivery, parked, letter]


def allowed_of_undelivered(path: str) -> str | None:
    """Return the methods of a path of these routes, for `Allow`; None for any other path."""
    if path in _LIST_PATHS:
        return _ALLOW_READ
    return _ALLOW_POST if _ACT_PATH.fullmatch(path) else None


async def _answer(work: Coroutine[Any, Any, ASGIApp]) -> ASGIApp:
    try:
        return await work
    except JournalError as error:
        raise journal_error(error) from error


async def _list_deliveries(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    asker = _asker(dependencies, request, _READS, _ALLOW_READ)
    after = _parameter(request.scope["query_string"])
    if after is not None and _AFTER_RECORD.fullmatch(after) is None:
        raise _invalid_after("the number that nextLink has")
    page = await dependencies.undelivered.deliveries.undelivered(asker, int(after or "1"))
    following = str(page.next_sequence) if page.next_sequence else ""
    return _page(dependencies, request, page.items, following)


async def _list_parked(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    asker = _asker(dependencies, request, _READS, _ALLOW_READ)
    after = _parameter(request.scope["query_string"])
    found = None if after is None else _AFTER_LETTER.fullmatch(after)
    if after is not None and found is None:
        raise _invalid_after("a durable and a sequence, as nextLink has them")
    page = await dependencies.undelivered.dead_letters.parked(
        asker, ("", 0) if found is None else (found[1], int(found[2]))
    )
    following = "" if page.last is None else f"{page.last[0]}.{page.last[1]}"
    return _page(dependencies, request, page.items, following)


async def _redeliver(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    endpoint = _target(request, ":redeliver")
    asker = _asker(dependencies, request, {"POST"}, _ALLOW_POST)
    check_query(request.scope["query_string"])
    if not await _has_body_arrived(dependencies, request, asker):
        return empty_response(400)  # the client has disconnected
    operation_id = request.path_params["operation_id"]
    logged_request(request.scope).operation_id = operation_id
    await dependencies.undelivered.deliveries.redeliver(asker, operation_id, endpoint)
    return empty_response(204)


async def _retry(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    text = _target(request, ":retry")
    asker = _asker(dependencies, request, {"POST"}, _ALLOW_POST)
    check_query(request.scope["query_string"])
    if not _is_sequence(text):
        raise not_found()
    if not await _has_body_arrived(dependencies, request, asker):
        return empty_response(400)
    await dependencies.undelivered.dead_letters.retry(asker, request.path_params["durable"], int(text))
    return empty_response(204)


def _target(request: AnyRequest, verb: str) -> str:
    """Return what stands before the verb of a path."""
    target: str = request.path_params["target"]
    if not target.endswith(verb):
        raise not_found()
    return target.removesuffix(verb)


def _asker(dependencies: Dependencies, request: AnyRequest, methods: Collection[str], allow: str) -> Administrator:
    if request.method not in methods:
        raise method_not_allowed(allow)
    principal, access = principal_of(request.scope), dependencies.access
    if access is None:
        return Administrator(None, None)
    if principal is None or not principal.subject:
        raise unauthenticated(CHALLENGE)  # the door has let it pass, so this is a mistake of ours, and stays safe
    logged_request(request.scope).caller = principal.subject
    return Administrator(principal, access.operations)


async def _has_body_arrived(dependencies: Dependencies, request: AnyRequest, asker: Administrator) -> bool:
    """Read the body, which says nothing. Return False if the client has disconnected."""
    headers = parse_headers(request.scope["headers"])
    check_content_type(headers)
    body = await read_body(request.receive, headers, dependencies.body_limit)
    if body is None:
        return False
    check_declared(headers, body)
    access = dependencies.access
    if access is not None and asker.principal is not None and access.ends.has_ended(asker.principal):
        raise unauthenticated(access.challenge)  # a body may take minutes
    return True


def _parameter(query: bytes) -> str | None:
    """Return the parameter `after`; None without one."""
    check_query(b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] != b"after"))
    found = [value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == _AFTER]
    if len(found) > 1:
        raise _invalid_after("sent once")
    return found[0] if found else None


def _page(dependencies: Dependencies, request: AnyRequest, items: Sequence[msgspec.Struct], following: str) -> ASGIApp:
    shown: dict[str, Any] = {"value": items}
    if following:
        scope = request.scope
        base = dependencies.public_url or base_url(parse_headers(scope["headers"]), scope["scheme"])
        shown["nextLink"] = f"{base}{scope['path']}?{_AFTER}={following}"
    return json_response(_encode(shown), headers={"Cache-Control": "no-cache"})


def _is_sequence(text: str) -> bool:
    return _SEQUENCE.fullmatch(text) is not None and int(text) <= _MAX_SEQUENCE


def _invalid_after(what: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_PARAMETER, f"{_AFTER} must be {what}", target=_AFTER)
