"""Translates between the flows and httpx: requests, responses, errors. Does no I/O itself."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, Final

import httpx
import uuid_utils

from opstream._version import __version__

from .errors import InvalidRequest
from .flows import Flows, OnRetry, Token
from .io_requests import NoResponse, SendRequest, ServiceResponse
from .urls import ServiceUrls

CONNECTION_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100)
"""Each wait for an operation holds a connection, so the number of connections has no limit."""

CHECK_SERVICE: Final = "check that the service runs there, and that the URL is right"
"""What to do when nothing answers at a URL, or something else than HTTP. Commands put their own words in its place."""

_CONNECT_TIMEOUT: Final = 5.0
"""Seconds."""


def make_flows(
    url: str, headers: Mapping[str, str] | None, on_retry: OnRetry | None, token: Token | None = None
) -> Flows:
    """The flows of a client.

    Raises:
        InvalidRequest: the URL or the token is not valid, or there is a second `Authorization` beside the token.
    """
    service = ServiceUrls(url)
    own = {"User-Agent": f"opstream/{__version__}"}
    others = [name for name in headers or () if name.lower() == "authorization"]
    if token is not None and (service.authorization or others):
        raise InvalidRequest("there are a token and other credentials: leave one of them out")
    if service.authorization:
        own["Authorization"] = service.authorization
    return Flows(
        service,
        headers={**own, **(headers or {})},
        clock=time.monotonic,
        jitter=random.random,
        new_id=new_operation_id,
        on_retry=on_retry,
        token=token,
    )


def new_operation_id() -> str:
    """A UUIDv7: unique, and later ids sort after earlier ones."""
    return str(uuid_utils.uuid7())


def build_request(
    http: httpx.Client | httpx.AsyncClient,
    send: SendRequest,
    pieces: Iterable[bytes] | AsyncIterable[bytes] | None = None,
) -> httpx.Request:
    """The httpx request for a `SendRequest`; `pieces` are those of its source."""
    timeout = httpx.Timeout(send.timeout, connect=min(send.timeout, _CONNECT_TIMEOUT))
    content = send.content or None if pieces is None else pieces
    if send.is_foreign:  # without what the client adds to each of its own: headers and cookies
        extensions = {"timeout": timeout.as_dict()}
        return httpx.Request(send.method, send.url, headers=dict(send.headers), extensions=extensions)
    return http.build_request(send.method, send.url, headers=dict(send.headers), content=content, timeout=timeout)


def sending_options(send: SendRequest) -> dict[str, Any]:
    """The options with which httpx sends a request: without the client's own credentials to another service."""
    return {"stream": True, "follow_redirects": False, **({"auth": None} if send.is_foreign else {})}


def service_response(response: httpx.Response, content: bytes = b"") -> ServiceResponse:
    """The response for the flow; `content` is what has been read of it."""
    return ServiceResponse(response.status_code, response.headers, content)


def no_response(error: httpx.RequestError) -> NoResponse:
    """The outcome of a failed try for the flow."""
    text = str(error) or type(error).__name__
    match error:
        case httpx.PoolTimeout():
            return NoResponse("no connection in time")
        case httpx.ConnectTimeout():
            return NoResponse(f"no connection in time: {CHECK_SERVICE}")
        case httpx.TimeoutException():
            return NoResponse(f"no response in time: {CHECK_SERVICE}")
        case httpx.ConnectError() if "CERTIFICATE" in text:
            return NoResponse(f"no TLS connection: {text}: SSL_CERT_FILE may name the authorities to trust")
        case httpx.ConnectError() if "SSL" in text:
            return NoResponse(f"no TLS connection: {text}: {CHECK_SERVICE}; a service without TLS needs http://")
        case httpx.ConnectError():
            return NoResponse(f"no connection: {text}: {CHECK_SERVICE}")
        case httpx.RemoteProtocolError() if not text.startswith("peer closed"):  # that is a response which was cut
            return NoResponse(f"no HTTP response: {text}: {CHECK_SERVICE}; a service with TLS needs https://")
        case _:
            return NoResponse(f"the connection broke: {text}")
