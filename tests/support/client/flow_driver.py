"""Drives a client's flow without a network and without waiting: responses are scripted, time is a number.

world = World(reply(503, retry_after=2), reply(202, {"id": "1", "status": "NotStarted"}))
operation = world.run(world.flows.submit(...))
assert world.sleeps == [2.2]
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias, TypeVar

import httpx
import msgspec

from opstream.client.flows import Flows, Token
from opstream.client.io_requests import (
    CallFunction,
    CloseStream,
    FetchToken,
    Flow,
    NoResponse,
    ReadStream,
    SendRequest,
    ServiceResponse,
    Sleep,
    YieldEvent,
)
from opstream.client.models import OperationEvent
from opstream.client.responses import is_event_stream
from opstream.client.urls import ServiceUrls

T = TypeVar("T")
Outcome: TypeAlias = ServiceResponse | NoResponse | bytes

BASE = "http://api.test/ops"


class After(msgspec.Struct, frozen=True):
    """An outcome that comes after some seconds."""

    seconds: float
    outcome: Outcome


def reply(status: int, body: Any = None, **headers: Any) -> ServiceResponse:
    """A response; `retry_after=2` means the header `Retry-After: 2`. A body of type `bytes` is not encoded as JSON."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return ServiceResponse(status, httpx.Headers(named), b"" if body is None else content)


def refusal(status: int, code: str, message: str = "no", **more: Any) -> ServiceResponse:
    """A response with the contract's error body."""
    headers = {"retry_after": more.pop("retry_after")} if "retry_after" in more else {}
    return reply(status, {"error": {"code": code, "message": message, **more}}, **headers)


class World:
    """The scripted outside world of a flow.

    Args:
        outcomes: of its requests and reads, in order.
        jitter: the result of each random draw.
        token: the client's.
    """

    def __init__(self, *outcomes: Outcome | After, jitter: float = 1.0, token: Token | None = None) -> None:
        self.now = 1000.0
        self.sent: list[SendRequest] = []
        self.sleeps: list[float] = []
        self.delivered: list[OperationEvent] = []
        self.troubles: list[str] = []
        self.opened = 0
        self._outcomes = deque(outcomes)
        self.flows = Flows(
            ServiceUrls(BASE),
            headers={"User-Agent": "test"},
            clock=lambda: self.now,
            jitter=lambda: jitter,
            new_id=lambda: "made-id",
            on_retry=lambda trouble, _: self.troubles.append(trouble),
            token=token,
        )

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end."""
        outcome: Any = None
        while True:
            try:
                request = flow.send(outcome)
            except StopIteration as end:
                value: T = end.value
                return value
            outcome = self._perform(request)

    def asked(self, name: str) -> list[str | None]:
        """The values of a header in all requests."""
        return [httpx.Headers(dict(send.headers)).get(name) for send in self.sent]

    @property
    def is_used_up(self) -> bool:
        """True once all outcomes are used."""
        return not self._outcomes

    def _perform(self, request: object) -> Any:
        match request:
            case SendRequest():
                self.sent.append(request)
                outcome = self._next(request)
                self.opened += isinstance(outcome, ServiceResponse) and request.is_stream and is_event_stream(outcome)
                return outcome
            case ReadStream():
                assert self.opened == 1
                return self._next(None)
            case CloseStream():
                self.opened -= 1
            case Sleep(seconds):
                assert seconds >= 0
                self.sleeps.append(round(seconds, 6))
                self.now += seconds
            case CallFunction(function, arguments):
                return function(*arguments)
            case FetchToken(function):
                return function()
            case YieldEvent(event):
                self.delivered.append(event)
        return None

    def _next(self, send: SendRequest | None) -> Outcome:
        assert self._outcomes, f"nothing is scripted for {send}"
        outcome = self._outcomes.popleft()
        if isinstance(outcome, After):
            self.now += outcome.seconds
            outcome = outcome.outcome
        return outcome
