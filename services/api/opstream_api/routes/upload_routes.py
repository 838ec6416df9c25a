"""The routes of uploads: `POST /payloads`, and `PUT /payloads/{operation-id}/{name}` (docs/payloads.md).

No name is reserved for them: a submit of an application whose resource is called `payloads` stays one.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope

from opstream_api.access.authentication import CHALLENGE, principal_of
from opstream_api.access.principal import Principal
from opstream_api.access.scopes import SUBMIT
from opstream_api.access.tokens.status_token import STATUS_TOKEN_PARAMETER
from opstream_api.access.uploads.upload_token import owner_mark
from opstream_api.dependencies import Dependencies
from opstream_api.errors import ApiError, forbidden, method_not_allowed, unauthenticated
from opstream_api.http.request_log import logged_request
from opstream_api.http.requests import (
    ClientGone,
    Headers,
    base_url,
    check_content_type,
    check_declared,
    check_query,
    parse_headers,
    read_body,
    single_value,
    stream_body,
)
from opstream_api.http.responses import empty_response, json_response
from opstream_api.http.submit_request import OPERATION_ID, parse_idempotency_key
from opstream_api.payloads.upload_desk import UploadTarget
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.event_types.claims import check_file_name, check_media_type
from opstream_schemas.names import check_operation_id

_ALL: Final = "/payloads"
_ONE: Final = "/payloads/{operation_id:str}/{name:str}"
_ONE_PATH: Final = re.compile(r"/payloads/[^/]+/[^/]+")
_EVERY: Final = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.POST, HttpMethod.PUT, HttpMethod.OPTIONS]
_BODY_LIMIT: Final = 4_096
_MEDIA_TYPE: Final = "application/octet-stream"
_PRIVATE: Final = {"Cache-Control": "no-store"}

AnyRequest = Request[Any, Any, Any]


class WantedPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /payloads`."""

    name: str


class GivenPlace(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Where a client sends a file."""

    operation_id: str
    """For the header `Operation-Id` of the submit."""
    name: str
    href: str
    """The URL for the `PUT`."""
    max_size: int
    """Bytes."""
    expires_at: str = ""
    """Until when the upload may begin; absent without authentication, where the URL has no token."""


_encode: Final = msgspec.json.Encoder().encode
_decode_wanted: Final = msgspec.json.Decoder(WantedPlace).decode


def is_of_uploads(scope: HTTPScope) -> bool:
    """Return True if a `POST` is to one of these paths, and is no submit."""
    return scope["raw_path"] == _ALL.encode() or _ONE_PATH.fullmatch(scope["path"]) is not None


def allowed_of_uploads(path: str) -> str | None:
    """Return the methods of a path of these routes, for `Allow`; None for any other path."""
    if path == _ALL:
        return "POST"
    return "PUT" if _ONE_PATH.fullmatch(path) else None


def upload_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handlers of `/payloads` and the paths below it."""

    @route(_ALL, http_method=_EVERY)
    async def places(request: AnyRequest) -> ASGIApp:
        if request.method != HttpMethod.POST:
            raise method_not_allowed("POST")
        return await _give_place(dependencies, request)

    @route(_ONE, http_method=_EVERY)
    async def upload(request: AnyRequest) -> ASGIApp:
        if request.method != HttpMethod.PUT:
            raise method_not_allowed("PUT")
        return await _take(dependencies, request)

    return [places, upload]


async def _give_place(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    key = parse_idempotency_key(headers, dependencies.new_operation_id)
    check_content_type(headers)
    body = await read_body(request.receive, headers, _BODY_LIMIT)
    if body is None:
        return empty_response(400)  # the client has disconnected
    check_declared(headers, body)
    try:
        name = check_file_name(_decode_wanted(body).name)
    except (msgspec.MsgspecError, InvalidName) as error:
        message = f'the body must be {{"name": …}} with the name of the file: {error}'
        raise ApiError(ErrorCode.INVALID_INPUT, message, target="name") from error
    principal, access = principal_of(scope), dependencies.access
    target = _target(dependencies, principal, headers, scope, key.operation_id, name)
    await dependencies.uploads.check_open(target)
    base = dependencies.public_url or base_url(headers, scope["scheme"])
    href, until = f"{base}/payloads/{key.operation_id}/{quote(name)}", ""
    if access is not None and access.status is not None and principal is not None:
        token, expires_at = access.status.uploads.give(principal, key.operation_id, name)
        href, until = f"{href}?{STATUS_TOKEN_PARAMETER}={token}", expires_at.isoformat().replace("+00:00", "Z")
    place = GivenPlace(
        operation_id=key.operation_id, name=name, href=href, max_size=dependencies.uploads.limit, expires_at=until
    )
    answer = {**_PRIVATE, "Location": href, OPERATION_ID: key.operation_id}
    return json_response(_encode(place), status=201, headers=answer)


async def _take(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    try:
        operation_id = check_operation_id(request.path_params["operation_id"])
        name = check_file_name(request.path_params["name"])
    except InvalidName as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target="name") from error
    try:
        media_type = check_media_type((single_value(headers, "Content-Type") or _MEDIA_TYPE).lower())
    except InvalidName as error:
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, str(error), target="Content-Type") from error
    principal, access = principal_of(scope), dependencies.access
    target = _target(dependencies, principal, headers, scope, operation_id, name)
    await dependencies.uploads.check_open(target)
    pieces = stream_body(request.receive, headers, dependencies.uploads.limit)
    try:
        uploaded = await dependencies.uploads.take(target, pieces, media_type)
    except ClientGone:
        return empty_response(400)  # nothing is stored, and nobody reads the answer
    if access is not None and (principal is None or access.ends.has_ended(principal)):
        raise unauthenticated(access.challenge)  # a body may take hours
    return json_response(_encode(uploaded), status=201, headers=_PRIVATE)


def _target(
    dependencies: Dependencies,
    principal: Principal | None,
    headers: Headers,
    scope: HTTPScope,
    operation_id: str,
    name: str,
) -> UploadTarget:
    """Return for which operation a file is, and whose that will be.

    Raises:
        ApiError: `Forbidden`: the caller may submit nothing; `Unauthenticated`.
    """
    access, logged = dependencies.access, logged_request(scope)
    if access is None:
        caller = dependencies.callers.resolve(scope["client"], headers).identity
        logged.operation_id, logged.caller = operation_id, caller
        return UploadTarget(operation_id=operation_id, stored_id=operation_id, owner=owner_mark(caller), name=name)
    if principal is None:
        raise unauthenticated(CHALLENGE)  # the door has let it pass, so this is a mistake of ours, and stays safe
    if not (principal.uploads_for or principal.scopes.submits):
        raise forbidden(SUBMIT, "upload files for operations")
    stored_id = access.operations.ids.stored_id(principal.tenant, operation_id)
    logged.operation_id = stored_id
    owner = principal.uploads_for or owner_mark(principal.subject)
    return UploadTarget(operation_id=operation_id, stored_id=stored_id, owner=owner, name=name)
