"""Between the flows and httpx: requests, answers, troubles, and what both clients are made with. Does no I/O itself."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Final

import httpx
import uuid_utils

from opstream._version import __version__

from .flows import Flows, OnRetry
from .steps import NoResponse, SendRequest, ServiceResponse
from .urls import ServiceUrls

CONNECTION_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100)
"""Each operation that is waited for holds a connection, so none may have to wait for another's."""

_CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a connection to be made."""


def make_flows(url: str, headers: Mapping[str, str] | None, on_retry: OnRetry | None) -> Flows:
    """The flows of a client.

    Raises:
        InvalidRequest: the URL is none.
    """
    service = ServiceUrls(url)
    own = {"User-Agent": f"opstream/{__version__}"}
    if service.authorization:
        own["Authorization"] = service.authorization
    return Flows(
        service,
        headers={**own, **(headers or {})},
        clock=time.monotonic,
        jitter=random.random,
        new_id=new_operation_id,
        on_retry=on_retry,
    )


def new_operation_id() -> str:
    """A UUIDv7: unique, and in the order of time."""
    return str(uuid_utils.uuid7())


def build_request(http: httpx.Client | httpx.AsyncClient, send: SendRequest) -> httpx.Request:
    """The request of a step."""
    timeout = httpx.Timeout(send.timeout, connect=min(send.timeout, _CONNECT_TIMEOUT))
    content = send.content or None
    return http.build_request(send.method, send.url, headers=dict(send.headers), content=content, timeout=timeout)


def service_response(response: httpx.Response, content: bytes = b"") -> ServiceResponse:
    """An answer of which `content` has been read."""
    return ServiceResponse(response.status_code, response.headers, content)


def no_response(error: httpx.RequestError) -> NoResponse:
    """What a failed try looks like."""
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return NoResponse("no connection in time")
        case httpx.TimeoutException():
            return NoResponse("no answer in time")
        case httpx.ConnectError():
            return NoResponse(f"no connection: {error}")
        case _:
            return NoResponse(f"the connection broke: {error or type(error).__name__}")
