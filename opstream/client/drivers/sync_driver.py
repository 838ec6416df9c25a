# ruff: noqa: ANN401 - an outcome is whatever its request asks for
"""Does the I/O requests of a flow, one after another, in the caller's thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
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


def drive(http: httpx.Client, flow: Flow[T]) -> T:
    """Return what a flow returns, once its requests are done."""
    outcome: Any = None
    with contextlib.closing(_SyncDriver(http)) as driver:
        while True:
            try:
                request = flow.send(outcome)
            except StopIteration as end:
                ended: T = end.value
                return ended
            outcome = driver.perform(request)


def iterate(http: httpx.Client, flow: Flow[None]) -> Generator[OperationEvent, None, None]:
    """Yield the events of a flow."""
    with contextlib.closing(_SyncDriver(http)) as driver:
        outcome: Any = None
        while True:
            try:
                request = flow.send(outcome)
            except StopIteration:
                return
            outcome = driver.perform(request)
            if isinstance(request, YieldEvent):
                yield request.event


class _SyncDriver:
    """Performs the I/O requests of one flow."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def perform(self, request: IoRequest) -> Any:
        match request:
            case SendRequest():
                return self._send(request)
            case ReadStream():
                return self._read()
            case CloseStream():
                return self.close()
            case FetchToken(function):
                return function()
            case RunBlocking(function, arguments):
                return function(*arguments)
            case Sleep(seconds):
                return time.sleep(seconds)
            case CallFunction(function, arguments):
                return function(*arguments)
            case YieldEvent():
                return None

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _send(self, send: SendRequest) -> ServiceResponse | NoResponse:
        body = None if send.source is None else _pieces(send.source)
        try:
            request = build_request(self._http, send, body)
            until = time.monotonic() + send.timeout
            response = self._http.send(request, **sending_options(send))
            self._response = response
            if body is not None:
                until = time.monotonic() + send.timeout
            if keeps_open(send, service_response(response)):
                self._chunks = response.iter_bytes()
                return service_response(response)
            pieces: list[bytes] = []
            for piece in response.iter_bytes():  # httpx's own timeout restarts with each piece
                pieces.append(piece)
                if time.monotonic() > until:
                    self.close()
                    return NoResponse(f"no response in time: {CHECK_SERVICE}")
            self.close()
            return service_response(response, b"".join(pieces))
        except httpx.RequestError as error:
            self.close()
            return no_response(error)

    def _read(self) -> bytes | NoResponse:
        try:
            return b"" if self._chunks is None else next(self._chunks, b"")
        except httpx.RequestError as error:
            return no_response(error)


def _pieces(source: BodySource) -> Iterator[bytes]:
    for piece in source.pieces():
        source.note_sent(len(piece))
        yield piece
