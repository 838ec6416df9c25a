# ruff: noqa: ANN401 - inputs and results are any JSON
"""The synchronous client. `aio` has the one for asyncio; `flows` has the logic of both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
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
from .schedules.calls import ScheduleCalls
from .signals.signal_flow import SignalFlow, SignalState
from .transport import CHECK_SERVICE, CONNECTION_LIMITS, build_request, make_flows, no_response, service_response

T = TypeVar("T")


class OperationsClient:
    """Submits actions to an opstream service and follows their operations.

        with OperationsClient("http://127.0.0.1:8080") as client:
            operation = client.submit("book/42:upload-start", {"title": "Moby Dick", "files": []})
            started = client.result(operation, UploadStarted)

    Each call tries until it gets a response or its `timeout` is over. That is safe, since every submit carries an
    operation id. Threads may share a client. It does not follow redirects.

    Args:
        url: of the service: `https://HOST` or `https://HOST/PATH`; with `USER:PASSWORD@` for Basic authentication.
        headers: sent with every request, e.g. `Authorization`.
        http: an httpx client to send with, e.g. one with its own certificates or proxies; it stays open.
        on_retry: called before each further try, with the problem and the seconds until that try.
        token: credentials for `Authorization: Bearer`, sent to this service only: a text, or a function that returns
            one, such as `TokenCommand`; it is called again once after a 401.

    Raises:
        InvalidRequest: the URL or the token is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        http: httpx.Client | None = None,
        on_retry: OnRetry | None = None,
        token: Token | None = None,
    ) -> None:
        self._flows = make_flows(url, headers, on_retry, token)
        self._is_own = http is None
        self._http = httpx.Client(limits=CONNECTION_LIMITS) if http is None else http

    def submit(
        self,
        target: str,
        action_input: Any = msgspec.UNSET,
        *,
        operation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Operation:
        """Submit an action.

        Args:
            target: `resource/id:action` or `resource:action`; the id is not percent-encoded.
            action_input: anything that msgspec encodes as JSON: a dict, a Struct, a dataclass; `msgspec.Raw` for JSON
                text. By default an empty object.
            operation_id: an id of your own (`[A-Za-z0-9_-]{1,64}`); stored before the call, it prevents a second
                operation even after a crash. By default a new UUIDv7.
            headers: added to this request, e.g. `traceparent`.
            labels: words of your own about the operation, 16 at most, by which lists find it, e.g. `{"team": "press"}`.
            timeout: seconds until it must be recorded; None for no limit.

        Returns:
            The operation. It may have ended already if the same request was submitted before.

        Raises:
            InvalidRequest: the request can't be sent.
            RequestRefused: the request is wrong; nothing was recorded.
            ServiceUnavailable: it may have been recorded or not. Submit it again with the error's `operation_id`.
            UnexpectedAnswer: the response is not opstream's, or is broken.
        """
        return self._drive(
            self._flows.submit(
                target, action_input, operation_id=operation_id, headers=headers, labels=labels, timeout=timeout
            )
        )

    def status(self, operation: Operation | str, *, timeout: float | None = 60.0) -> Operation:
        """The operation's current state.

        Args:
            operation: the operation or its id.
            timeout: seconds until there must be a response; None for no limit.

        Raises:
            RequestRefused: `OperationNotFound`: it does not exist, or its retention is over.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        return self._drive(self._flows.status(operation, timeout=timeout))

    def page(self, query: str = "", *, timeout: float | None = 60.0) -> OperationPage:
        """A page of a list of operations (docs/list.md).

        Args:
            query: percent-encoded, as `urllib.parse.urlencode({"filter": "status eq 'Failed'"})` writes it, or the
                `next_query` of the page before; empty for all operations.
            timeout: seconds until there must be a response; None for no limit.

        Raises:
            RequestRefused: `InvalidParameter`: the query is wrong; `IndexOff`: the service has no index.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        return self._drive(ListFlows(self._flows).page(query, timeout=timeout))

    def count(self, query: str = "", *, timeout: float | None = 60.0) -> OperationCount:
        """How many operations there are (docs/list.md).

        Args:
            query: percent-encoded, as `urllib.parse.urlencode({"filter": "status eq 'Failed'", "by": "kind"})` writes
                it; empty for all operations.
            timeout: seconds until there must be a response; None for no limit.

        Raises:
            RequestRefused, ServiceUnavailable, UnexpectedAnswer: as `page`.
        """
        return self._drive(ListFlows(self._flows).count(query, timeout=timeout))

    @property
    def schedules(self) -> ScheduleCalls:
        """What can be done with schedules."""
        return ScheduleCalls(self._flows, self._drive)

    def wait(
        self, operation: Operation | str, *, timeout: float | None = None, on_change: OnChange | None = None
    ) -> Operation:
        """Wait until the operation has ended, with any outcome.

        Asks the service to delay its response (`Prefer: wait`), and otherwise polls as its `Retry-After` says.
        Tries again while the service is unavailable.

        Args:
            operation: the operation or its id.
            timeout: seconds; None for no limit.
            on_change: called with the operation each time its state has changed.

        Raises:
            WaitTimeout: the operation has not ended; it goes on.
            RequestRefused: `OperationNotFound`.
            UnexpectedAnswer: the response is not opstream's, or is broken.
        """
        return self._drive(self._flows.wait(operation, timeout=timeout, on_change=on_change))

    @overload
    def result(
        self,
        operation: Operation | str,
        result_type: type[T],
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> T: ...
    @overload
    def result(
        self,
        operation: Operation | str,
        result_type: Any = Any,
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Any: ...
    def result(
        self,
        operation: Operation | str,
        result_type: Any = Any,
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Any:
        """Wait until the operation has succeeded, and return its result.

        Args:
            operation: the operation or its id.
            result_type: any type that msgspec can decode into; by default plain JSON values.
            timeout: seconds; None for no limit.
            on_change: as for `wait`.

        Raises:
            OperationFailed, OperationCanceled: the operation did not succeed.
            WaitTimeout: the operation has not ended; it goes on.
            RequestRefused: `OperationNotFound`.
            UnexpectedAnswer: as for `wait`, or the result is not of that type.
        """
        return self._drive(self._flows.result(operation, result_type, timeout=timeout, on_change=on_change))

    def cancel(self, operation: Operation | str, *, reason: str = "", timeout: float | None = 60.0) -> Operation:
        """Request that the operation stops. A running one becomes Canceled only when it has stopped: see `wait`.

        Args:
            operation: the operation or its id.
            reason: for the operation's history.
            timeout: seconds until the request must be recorded; None for no limit.

        Raises:
            RequestRefused: `OperationFinished`: the operation has succeeded or failed; `OperationNotFound`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response. Canceling twice is safe.
        """
        return self._drive(self._flows.cancel(operation, reason=reason, timeout=timeout))

    def signal(
        self,
        operation: Operation | str,
        name: str,
        payload: Any = None,
        *,
        request_id: str | None = None,
        timeout: float | None = 60.0,
    ) -> SignalState:
        """Send a signal; return what became of it. The same `request_id` is the same signal (docs/signals.md).

        Raises:
            RequestRefused: `InvalidInput`, `SignalTooLate`, `OperationFinished`, …
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        return self._drive(
            SignalFlow(self._flows).send(operation, name, payload, request_id=request_id, timeout=timeout)
        )

    def retry(self, operation: Operation | str, *, timeout: float | None = 60.0) -> Operation:
        """Request that an operation that failed or was canceled is done again, with the same input.

        Args:
            operation: the operation or its id.
            timeout: seconds until the request must be recorded; None for no limit.

        Returns:
            Its follow-up, a new operation of this caller. Each operation has one, so a repeated call returns the same.

        Raises:
            RequestRefused: `OperationNotRetriable`: it has not ended, or has succeeded; `OperationNotFound`;
                `UnknownAction`; `InvalidInput`: the action takes its input no more.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response. Retrying twice is safe.
        """
        return self._drive(self._flows.retry(operation, timeout=timeout))

    def bulk(
        self, act: str, query: str, *, reason: str = "", operation_id: str | None = None, timeout: float | None = 60.0
    ) -> Operation:
        """Request that all operations are retried, or canceled, that a filter selects. The service needs an index.

        Args:
            act: `retry` or `cancel`.
            query: percent-encoded: `filter`, and if you like `perSecond`, as of `urllib.parse.urlencode`.
            reason: of a cancel.
            operation_id: as of `submit`.
            timeout: seconds until the request must be recorded; None for no limit.

        Returns:
            The bulk operation, which does it: see `wait`.

        Raises:
            RequestRefused: `IndexOff`, `InvalidParameter`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        flow = ListFlows(self._flows).bulk(act, query, reason=reason, operation_id=operation_id, timeout=timeout)
        return self._drive(flow)

    def preview(self, act: str, query: str, *, timeout: float | None = 60.0) -> BulkPreview:
        """What `bulk` would select: a dry run, which begins nothing. Arguments and errors are those of `bulk`."""
        return self._drive(ListFlows(self._flows).preview(act, query, timeout=timeout))

    def events(
        self, operation: Operation | str, *, follow: bool = False, after: int = 0, timeout: float | None = 60.0
    ) -> Generator[OperationEvent, None, None]:
        """The operation's events, oldest first, each once.

        Args:
            operation: the operation or its id.
            follow: continue until the operation has ended; a broken stream is resumed after the last event.
            after: skip the events up to this position.
            timeout: seconds without data from the service until the call fails; None for no limit.

        Raises:
            RequestRefused: `OperationNotFound`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        flow = self._flows.follow if follow else self._flows.history
        return self._iterate(flow(operation, after=after, timeout=timeout))

    def close(self) -> None:
        """Close the connections."""
        if self._is_own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, flow: Flow[T]) -> T:
        outcome: Any = None
        with contextlib.closing(_SyncDriver(self._http)) as driver:
            while True:
                try:
                    request = flow.send(outcome)
                except StopIteration as end:
                    ended: T = end.value
                    return ended
                outcome = driver.perform(request)

    def _iterate(self, flow: Flow[None]) -> Generator[OperationEvent, None, None]:
        with contextlib.closing(_SyncDriver(self._http)) as driver:
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
        until = time.monotonic() + send.timeout
        try:
            response = self._http.send(build_request(self._http, send), stream=True, follow_redirects=False)
            self._response = response
            if send.is_stream and is_event_stream(service_response(response)):
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
