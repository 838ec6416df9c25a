# ruff: noqa: ANN401 - inputs and results are whatever becomes JSON
"""The client for ordinary code. See `aio` for the one for asyncio; `flows` has the logic of both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Self, TypeVar, overload

import httpx
import msgspec

from .flows import OnChange, OnRetry
from .models import Operation, OperationEvent
from .responses import is_event_stream
from .steps import (
    CallFunction,
    CloseStream,
    Flow,
    IoRequest,
    NoResponse,
    ReadStream,
    SendRequest,
    ServiceResponse,
    Sleep,
    YieldEvent,
)
from .transport import CONNECTION_LIMITS, build_request, make_flows, no_response, service_response

T = TypeVar("T")


class OperationsClient:
    """Submits actions to an opstream service and follows their operations.

        with OperationsClient("http://127.0.0.1:8080") as client:
            operation = client.submit("book/42:upload-start", {"title": "Moby Dick", "files": []})
            started = client.result(operation, UploadStarted)

    Each call goes on trying until it is answered or its `timeout` is over. That is safe: a submit always carries an
    operation id. Threads may share a client. Redirects are not followed.

    Args:
        url: of the service: `https://HOST` or `https://HOST/PATH`; `USER:PASSWORD@` in it for Basic authentication.
        headers: sent with every request, e.g. `Authorization`.
        http: an httpx client to send with, e.g. for certificates or proxies of one's own; it stays open.
        on_retry: called before each further try with the trouble and the seconds until then.

    Raises:
        InvalidRequest: the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        http: httpx.Client | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        self._flows = make_flows(url, headers, on_retry)
        self._is_own = http is None
        self._http = httpx.Client(limits=CONNECTION_LIMITS) if http is None else http

    def submit(
        self,
        target: str,
        action_input: Any = msgspec.UNSET,
        *,
        operation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Operation:
        """Ask for an action.

        Args:
            target: `resource/id:action` or `resource:action`; the id as it is, not percent-encoded.
            action_input: anything that msgspec writes as JSON: a dict, a Struct, a dataclass; `msgspec.Raw` for JSON
                that is written already. An empty object without it.
            operation_id: one's own id for the operation (`[A-Za-z0-9_-]{1,64}`), e.g. kept before the call so that
                even a crash can't submit twice; a new UUIDv7 without it.
            headers: further headers of this request, e.g. `traceparent`.
            timeout: seconds until it is recorded; None for no end.

        Returns:
            The operation; it has already ended if this very request was submitted before.

        Raises:
            InvalidRequest: it can't be sent.
            RequestRefused: it is wrong; nothing was recorded.
            ServiceUnavailable: nobody knows whether it was recorded. Submit it again with the error's `operation_id`.
            UnexpectedAnswer: what answers is not opstream, or is broken.
        """
        return self._drive(
            self._flows.submit(target, action_input, operation_id=operation_id, headers=headers, timeout=timeout)
        )

    def status(self, operation: Operation | str, *, timeout: float | None = 60.0) -> Operation:
        """The operation as it is now.

        Args:
            operation: or its id.
            timeout: seconds until there is an answer; None for no end.

        Raises:
            RequestRefused: `OperationNotFound`: there is none, or its retention is over.
            ServiceUnavailable, UnexpectedAnswer: there was no usable answer.
        """
        return self._drive(self._flows.status(operation, timeout=timeout))

    def wait(
        self, operation: Operation | str, *, timeout: float | None = None, on_change: OnChange | None = None
    ) -> Operation:
        """Wait until the operation has ended, however it ends.

        Asks the service to hold the request (`Prefer: wait`) and otherwise polls no faster than its `Retry-After` says.
        A service that is away meanwhile is asked again.

        Args:
            operation: or its id.
            timeout: seconds; None for as long as it takes.
            on_change: called with the operation whenever its state differs from the one before.

        Raises:
            WaitTimeout: it goes on.
            RequestRefused: `OperationNotFound`.
            UnexpectedAnswer: what answers is not opstream, or is broken.
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
            operation: or its id.
            result_type: what the result becomes: any type that msgspec decodes into; plain JSON values without it.
            timeout: seconds; None for as long as it takes.
            on_change: as for `wait`.

        Raises:
            OperationFailed, OperationCanceled: it ended otherwise.
            WaitTimeout: it goes on.
            RequestRefused: `OperationNotFound`.
            UnexpectedAnswer: as for `wait`, or the result is not of that type.
        """
        return self._drive(self._flows.result(operation, result_type, timeout=timeout, on_change=on_change))

    def cancel(self, operation: Operation | str, *, reason: str = "", timeout: float | None = 60.0) -> Operation:
        """Ask for the operation to stop. One that runs is Canceled only once it has stopped: see `wait`.

        Args:
            operation: or its id.
            reason: for its history.
            timeout: seconds until the wish is recorded; None for no end.

        Raises:
            RequestRefused: `OperationFinished`: it has succeeded or failed; `OperationNotFound`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable answer. Canceling twice is safe.
        """
        return self._drive(self._flows.cancel(operation, reason=reason, timeout=timeout))

    def events(
        self, operation: Operation | str, *, follow: bool = False, after: int = 0, timeout: float | None = 60.0
    ) -> Generator[OperationEvent, None, None]:
        """What happened to the operation, oldest first, each event once.

        Args:
            operation: or its id.
            follow: go on until the operation has ended; a stream that is cut is resumed where it was.
            after: leave out the events up to this position.
            timeout: seconds without any sign of the service before it is given up; None for never.

        Raises:
            RequestRefused: `OperationNotFound`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable answer.
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
        with contextlib.closing(_SyncDriver(self._http)) as hands:
            while True:
                try:
                    step = flow.send(outcome)
                except StopIteration as end:
                    ended: T = end.value
                    return ended
                outcome = hands.perform(step)

    def _iterate(self, flow: Flow[None]) -> Generator[OperationEvent, None, None]:
        with contextlib.closing(_SyncDriver(self._http)) as hands:
            outcome: Any = None
            while True:
                try:
                    step = flow.send(outcome)
                except StopIteration:
                    return
                outcome = hands.perform(step)
                if isinstance(step, YieldEvent):
                    yield step.event


class _SyncDriver:
    """Does the steps of one flow."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def perform(self, step: IoRequest) -> Any:
        match step:
            case SendRequest():
                return self._send(step)
            case ReadStream():
                return self._read()
            case CloseStream():
                return self.close()
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
            for piece in response.iter_bytes():  # httpx's own time limit starts anew with each
                pieces.append(piece)
                if time.monotonic() > until:
                    self.close()
                    return NoResponse("no answer in time")
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
