# ruff: noqa: ANN401, ASYNC109 - inputs and results are any JSON; a `timeout` bounds the tries of a call
"""The client for asyncio. `OperationsClient` in `sync` documents each call; `flows` has the logic of both."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Self, TypeVar, overload

import httpx
import msgspec

from .flows import OnChange, OnRetry, Token
from .io_requests import (
    CallFunction,
    CloseStream,
    FetchToken,
    Flow,
    IoRequest,
    NoResponse,
    ReadStream,
    SendRequest,
    ServiceResponse,
    Sleep,
    YieldEvent,
)
from .lists.flows import ListFlows
from .models import BulkPreview, Operation, OperationCount, OperationEvent, OperationPage
from .responses import is_event_stream
from .schedules.calls import AsyncScheduleCalls
from .signals.signal_flow import SignalFlow, SignalState
from .transport import CHECK_SERVICE, CONNECTION_LIMITS, build_request, make_flows, no_response, service_response

T = TypeVar("T")


class AsyncOperationsClient:
    """`OperationsClient` for asyncio: the same calls with the same arguments and errors, awaited.

        async with AsyncOperationsClient("http://127.0.0.1:8080") as client:
            operation = await client.submit("book/42:upload-start", {"title": "Moby Dick", "files": []})
            started = await client.result(operation, UploadStarted)

    `on_change` and `on_retry` may be async functions. Cancelling a call does not cancel the operation.

    Args:
        url, headers, on_retry, token: as for `OperationsClient`. A function for the token runs in a thread.
        http: an `httpx.AsyncClient` to send with; it stays open.

    Raises:
        InvalidRequest: the URL is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        http: httpx.AsyncClient | None = None,
        on_retry: OnRetry | None = None,
        token: Token | None = None,
    ) -> None:
        self._flows = make_flows(url, headers, on_retry, token)
        self._is_own = http is None
        self._http = httpx.AsyncClient(limits=CONNECTION_LIMITS) if http is None else http

    async def submit(
        self,
        target: str,
        action_input: Any = msgspec.UNSET,
        *,
        operation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Operation:
        """`OperationsClient.submit`."""
        return await self._drive(
            self._flows.submit(
                target, action_input, operation_id=operation_id, headers=headers, labels=labels, timeout=timeout
            )
        )

    async def status(
        self,
        operation: Operation | str,
        *,
        timeout: float | None = 60.0,
    ) -> Operation:
        """`OperationsClient.status`."""
        return await self._drive(self._flows.status(operation, timeout=timeout))

    async def wait(
        self,
        operation: Operation | str,
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Operation:
        """`OperationsClient.wait`."""
        return await self._drive(self._flows.wait(operation, timeout=timeout, on_change=on_change))

    @overload
    async def result(
        self,
        operation: Operation | str,
        result_type: type[T],
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> T: ...
    @overload
    async def result(
        self,
        operation: Operation | str,
        result_type: Any = Any,
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Any: ...
    async def result(
        self,
        operation: Operation | str,
        result_type: Any = Any,
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Any:
        """`OperationsClient.result`."""
        return await self._drive(self._flows.result(operation, result_type, timeout=timeout, on_change=on_change))

    async def page(self, query: str = "", *, timeout: float | None = 60.0) -> OperationPage:
        """`OperationsClient.page`."""
        return await self._drive(ListFlows(self._flows).page(query, timeout=timeout))

    async def count(self, query: str = "", *, timeout: float | None = 60.0) -> OperationCount:
        """`OperationsClient.count`."""
        return await self._drive(ListFlows(self._flows).count(query, timeout=timeout))

    @property
    def schedules(self) -> AsyncScheduleCalls:
        """What can be done with schedules."""
        return AsyncScheduleCalls(self._flows, self._drive)

    async def cancel(
        self,
        operation: Operation | str,
        *,
        reason: str = "",
        timeout: float | None = 60.0,
    ) -> Operation:
        """`OperationsClient.cancel`."""
        return await self._drive(self._flows.cancel(operation, reason=reason, timeout=timeout))

    async def signal(
        self,
        operation: Operation | str,
        name: str,
        payload: Any = None,
        *,
        request_id: str | None = None,
        timeout: float | None = 60.0,
    ) -> SignalState:
        """`OperationsClient.signal`."""
        flow = SignalFlow(self._flows).send(operation, name, payload, request_id=request_id, timeout=timeout)
        return await self._drive(flow)

    async def retry(self, operation: Operation | str, *, timeout: float | None = 60.0) -> Operation:
        """`OperationsClient.retry`."""
        return await self._drive(self._flows.retry(operation, timeout=timeout))

    async def bulk(
        self, act: str, query: str, *, reason: str = "", operation_id: str | None = None, timeout: float | None = 60.0
    ) -> Operation:
        """`OperationsClient.bulk`."""
        flow = ListFlows(self._flows).bulk(act, query, reason=reason, operation_id=operation_id, timeout=timeout)
        return await self._drive(flow)

    async def preview(self, act: str, query: str, *, timeout: float | None = 60.0) -> BulkPreview:
        """`OperationsClient.preview`."""
        return await self._drive(ListFlows(self._flows).preview(act, query, timeout=timeout))

    def events(
        self, operation: Operation | str, *, follow: bool = False, after: int = 0, timeout: float | None = 60.0
    ) -> AsyncGenerator[OperationEvent, None]:
        """`OperationsClient.events`, for `async for`."""
        flow = self._flows.follow if follow else self._flows.history
        return self._iterate(flow(operation, after=after, timeout=timeout))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._is_own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _drive(self, flow: Flow[T]) -> T:
        outcome: Any = None
        async with contextlib.aclosing(_AsyncDriver(self._http)) as driver:
            while True:
                try:
                    request = flow.send(outcome)
                except StopIteration as end:
                    ended: T = end.value
                    return ended
                outcome = await driver.perform(request)

    async def _iterate(self, flow: Flow[None]) -> AsyncGenerator[OperationEvent, None]:
        outcome: Any = None
        async with contextlib.aclosing(_AsyncDriver(self._http)) as driver:
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
            async with asyncio.timeout(send.timeout):  # httpx's own timeout restarts with each byte
                response = await self._http.send(build_request(self._http, send), stream=True, follow_redirects=False)
                self._response = response
                if send.is_stream and is_event_stream(service_response(response)):
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
