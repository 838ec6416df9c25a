# ruff: noqa: ANN401, ASYNC109 - inputs and results are any JSON; a `timeout` bounds the tries of a call
"""The client for asyncio. `OperationsClient` in `sync` documents each call; `flows` has the logic of both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import httpx
import msgspec

from .drivers.async_driver import drive, iterate
from .erasure.erase_flow import EraseFlow
from .files.download_flow import DownloadFlow
from .files.upload_flow import UploadFlow
from .files.upload_source import OnProgress
from .flows import OnChange, OnRetry, Token
from .io_requests import Flow
from .lists.flows import ListFlows
from .models import BulkPreview, Operation, OperationCount, OperationEvent, OperationPage, Upload
from .schedules.calls import AsyncScheduleCalls
from .signals.signal_flow import SignalFlow, SignalState
from .transport import CONNECTION_LIMITS, make_flows

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
        uploads: Sequence[Upload] = (),
        timeout: float | None = 60.0,
    ) -> Operation:
        """`OperationsClient.submit`."""
        return await self._drive(
            self._flows.submit(
                target,
                action_input,
                operation_id=operation_id,
                headers=headers,
                labels=labels,
                uploads=uploads,
                timeout=timeout,
            )
        )

    async def upload(
        self,
        source: str | PathLike[str] | bytes,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
        operation_id: str | None = None,
        timeout: float | None = 60.0,
        on_progress: OnProgress | None = None,
    ) -> Upload:
        """`OperationsClient.upload`."""
        flow = UploadFlow(self._flows).upload(
            source,
            name=name,
            media_type=media_type,
            operation_id=operation_id,
            timeout=timeout,
            on_progress=on_progress,
        )
        return await self._drive(flow)

    async def download(
        self,
        operation: Operation | str,
        name: str,
        path: str | PathLike[str],
        *,
        timeout: float | None = 60.0,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """`OperationsClient.download`."""
        flow = DownloadFlow(self._flows).download(operation, name, path, timeout=timeout, on_progress=on_progress)
        return await self._drive(flow)

    async def erase(self, operation: Operation | str, *, reason: str = "", timeout: float | None = 60.0) -> None:
        """`OperationsClient.erase`."""
        await self._drive(EraseFlow(self._flows).erase(operation, reason=reason, timeout=timeout))

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
        return iterate(self._http, flow(operation, after=after, timeout=timeout))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._is_own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _drive(self, flow: Flow[T]) -> T:
        return await drive(self._http, flow)
