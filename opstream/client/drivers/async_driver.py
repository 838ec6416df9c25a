# ruff: noqa: ANN401 - an outcome is whatever its request asks for
"""Does the I/O requests of a flow in the caller's event loop; what blocks runs in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import httpx

from opstream.client.io_requests import (
    BodySource,
    CallFunction,
    CloseStream,
    FetchToken,
    Flow,
    IoRequest,
    NoResponse,
    ReadStream,
    RunBlocking,
    SendRequest,
    ServiceResponse,
    Sleep,
    YieldEvent,
)
from opstream.client.models import OperationEvent
from opstream.client.responses import keeps_open
from opstream.client.transport import CHECK_SERVICE, build_request, no_response, sending_options, service_response

T = TypeVar("T")


async def drive(http: httpx.AsyncClient, flow: Flow[T]) -> T:
    """Return what a flow returns, once its requests are done."""
    outcome: Any = None
    async with contextlib.aclosing(_AsyncDriver(http)) as driver:
        while True:
            try:
                request = flow.send(outcome)
            except StopIteration as end:
                ended: T = end.value
                return ended
            outcome = await driver.perform(request)


async def iterate(http: httpx.AsyncClient, flow: Flow[None]) -> AsyncGenerator[OperationEvent, None]:
    """Yield the events of a flow."""
    outcome: Any = None
    async with contextlib.aclosing(_AsyncDriver(http)) as driver:
        while True:
            try:
                request = flow.send(outcome)
            except StopIteration:
                return
            outcome = await driver.perform(request)
            if isinstance(request, YieldEvent):
                yield request.event


class _AsyncDriver:
    """Performs the I/O requests of one flow."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, request: IoRequest) -> Any:
        match request:
            case SendRequest():
                return await self._send(request)
            case ReadStream():
                return await self._read()
            case CloseStream():
                return await self.aclose()
            case FetchToken(function):
                return await asyncio.to_thread(function)
            case RunBlocking(function, arguments):
                return await asyncio.to_thread(function, *arguments)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case CallFunction(function, arguments):
                result = function(*arguments)
                return await result if inspect.isawaitable(result) else result
            case YieldEvent():
                return None

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None

    async def _send(self, send: SendRequest) -> ServiceResponse | NoResponse:
        try:
            limit = send.timeout if send.source is None else None
            async with asyncio.timeout(limit):  # httpx's own timeout restarts with each byte
                request = build_request(self._http, send, None if send.source is None else _pieces(send.source))
                response = await self._http.send(request, **sending_options(send))
                self._response = response
                if keeps_open(send, service_response(response)):
                    self._chunks = response.aiter_bytes()
                    return service_response(response)
                content = await response.aread()
            await self.aclose()
            return service_response(response, content)
        except TimeoutError:
            await self.aclose()
            return NoResponse(f"no response in time: {CHECK_SERVICE}")
        except httpx.RequestError as error:
            await self.aclose()
            return no_response(error)

    async def _read(self) -> bytes | NoResponse:
        try:
            return b"" if self._chunks is None else await anext(self._chunks, b"")
        except httpx.RequestError as error:
            return no_response(error)


async def _pieces(source: BodySource) -> AsyncIterator[bytes]:
    pieces = source.pieces()
    while piece := await asyncio.to_thread(next, pieces, b""):
        source.note_sent(len(piece))
        yield piece
