"""Clients of azure-core, sync and async, with the same interface for tests.

    async with AsyncAzure(url) as azure:
        initial = await azure.submit("azure:say", {"text": "hello"}, {"Operation-Id": "1"})
        poller = azure.poller(initial)
        result = await azure.result(poller)

The pipelines have the policies of clients generated for Azure, with their defaults, and a last one that records the
traffic. They ignore the proxies of the environment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import (
    AsyncRedirectPolicy,
    AsyncRetryPolicy,
    ContentDecodePolicy,
    HeadersPolicy,
    HttpLoggingPolicy,
    RedirectPolicy,
    RequestIdPolicy,
    RetryPolicy,
    SansIOHTTPPolicy,
    UserAgentPolicy,
)
from azure.core.pipeline.transport import AsyncioRequestsTransport, RequestsTransport
from azure.core.polling import AsyncLROPoller, LROPoller
from azure.core.polling.async_base_polling import AsyncLROBasePolling
from azure.core.polling.base_polling import LROBasePolling, OperationResourcePolling
from azure.core.rest import HttpRequest

Answer = PipelineResponse[HttpRequest, Any]

UNTOLD: Final = 10.0
"""Seconds between polls without a `Retry-After`: far more than any action here asks for."""
PATIENCE: Final = 30.0
"""Seconds within which an operation must end."""


class RecordedExchange(msgspec.Struct, frozen=True):
    """A request and its response."""

    method: str
    url: str
    operation_id: str | None
    """The request's header."""
    status: int
    begun: float
    """Monotonic seconds at which the request was sent."""
    ended: float


class Traffic(SansIOHTTPPolicy[HttpRequest, Any]):
    """Records all exchanges, including retries."""

    def __init__(self) -> None:
        self.exchanges: list[RecordedExchange] = []
        self._begun: dict[int, float] = {}

    def on_request(self, request: PipelineRequest[HttpRequest]) -> None:
        """Called just before a request is sent."""
        self._begun[id(request.http_request)] = time.monotonic()

    def on_response(self, request: PipelineRequest[HttpRequest], response: Answer) -> None:
        """Called with the response."""
        sent = request.http_request
        exchange = RecordedExchange(
            method=sent.method,
            url=sent.url,
            operation_id=sent.headers.get("Operation-Id"),
            status=response.http_response.status_code,
            begun=self._begun.pop(id(sent)),
            ended=time.monotonic(),
        )
        self.exchanges.append(exchange)

    def polls(self, url: str) -> list[RecordedExchange]:
        """The GETs of a URL."""
        return [one for one in self.exchanges if (one.method, one.url) == ("GET", url)]


def result_of(answer: Answer) -> Any:
    """The `result` of a status, which is what a poller returns."""
    return answer.http_response.json()["result"]


def post(path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> HttpRequest:
    """A POST to a path or a whole URL."""
    return HttpRequest("POST", path, json=body, headers=dict(headers or {}))


class SyncAzure:
    """`PipelineClient` and `LROPoller`, each call in a thread of its own.

    Args:
        url: the service's base.
    """

    def __init__(self, url: str) -> None:
        self.traffic = Traffic()
        transport = RequestsTransport(use_env_settings=False)
        policies = [*_common(), RedirectPolicy(), RetryPolicy(), HttpLoggingPolicy(), self.traffic]
        self.client: PipelineClient[HttpRequest, Any] = PipelineClient(url, transport=transport, policies=policies)

    async def send(self, request: HttpRequest) -> Answer:
        """Send a request, relative to the base, as clients generated for Azure do."""
        request.url = self.client.format_url(request.url)
        return await asyncio.to_thread(self.client._pipeline.run, request)

    def poller(self, initial: Answer) -> LROPoller[Any]:
        """Start to poll, in a thread."""
        return LROPoller(self.client, initial, result_of, LROBasePolling(**_settings()))

    def resumed(self, token: str) -> LROPoller[Any]:
        """The poller of a continuation token."""
        method: LROBasePolling[Any, HttpRequest, Any] = LROBasePolling(**_settings())
        known = {"client": self.client, "deserialization_callback": result_of}
        return LROPoller.from_continuation_token(method, token, **known)

    async def result(self, poller: Any) -> Any:
        """Wait for the poller's end."""
        return await asyncio.to_thread(poller.result, PATIENCE)

    async def __aenter__(self) -> Self:
        self.client.__enter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.client.__exit__()


class AsyncAzure:
    """`AsyncPipelineClient` and `AsyncLROPoller`.

    Args:
        url: the service's base.
    """

    def __init__(self, url: str) -> None:
        self.traffic = Traffic()
        transport = AsyncioRequestsTransport(use_env_settings=False)
        policies = [*_common(), AsyncRedirectPolicy(), AsyncRetryPolicy(), HttpLoggingPolicy(), self.traffic]
        self.client: AsyncPipelineClient[HttpRequest, Any] = AsyncPipelineClient(
            url, transport=transport, policies=policies
        )

    async def send(self, request: HttpRequest) -> Answer:
        """Send a request, relative to the base, as clients generated for Azure do."""
        request.url = self.client.format_url(request.url)
        return await self.client._pipeline.run(request)

    def poller(self, initial: Answer) -> AsyncLROPoller[Any]:
        """Poll once the result is awaited."""
        return AsyncLROPoller(self.client, initial, result_of, AsyncLROBasePolling(**_settings()))

    def resumed(self, token: str) -> AsyncLROPoller[Any]:
        """The poller of a continuation token."""
        method: AsyncLROBasePolling[Any, HttpRequest, Any] = AsyncLROBasePolling(**_settings())
        known = {"client": self.client, "deserialization_callback": result_of}
        return AsyncLROPoller.from_continuation_token(method, token, **known)

    async def result(self, poller: Any) -> Any:
        """Poll to the end."""
        async with asyncio.timeout(PATIENCE):
            return await poller.result()

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)


def _common() -> list[Any]:
    return [RequestIdPolicy(), HeadersPolicy(), UserAgentPolicy("opstream-tests"), ContentDecodePolicy()]


def _settings() -> dict[str, Any]:
    """Settings of a polling method that polls the `Operation-Location` as its `Retry-After` says."""
    algorithm: OperationResourcePolling[HttpRequest, Any] = OperationResourcePolling("operation-location")
    return {"timeout": UNTOLD, "lro_algorithms": [algorithm]}
