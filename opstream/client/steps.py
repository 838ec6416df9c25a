"""What a flow asks its driver to do. Flows decide and never do I/O; the drivers (`sync`, `aio`) do it and never decide.

A flow is a generator: it yields one of these steps and is sent the outcome. So the logic exists once for both clients,
and tests run it without a network and without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

from .models import OperationEvent

T = TypeVar("T")


class SendRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Send one HTTP request. The outcome is a `Reply` or a `NoResponse`."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes = b""
    timeout: float
    """Seconds after which the try is given up: of a whole answer, and of a stream without a byte."""
    is_stream: bool = False
    """Keep an answer that is an event stream open, for `ReadStream`; the reply has no content then."""


class ServiceResponse(msgspec.Struct, frozen=True):
    """An answer of whatever status."""

    status: int
    headers: Mapping[str, str]
    """By name in any case."""
    content: bytes = b""


class NoResponse(msgspec.Struct, frozen=True):
    """No answer, or only a part of one. The service may have done what it was asked."""

    reason: str


class ReadStream(msgspec.Struct, frozen=True):
    """Read on in the open stream. The outcome is bytes (none: the stream has ended) or a `NoResponse`."""


class CloseStream(msgspec.Struct, frozen=True):
    """Close the open stream."""


class Sleep(msgspec.Struct, frozen=True):
    """Do nothing for a time."""

    seconds: float


class CallFunction(msgspec.Struct, frozen=True):
    """Call a function of the user's; the async driver awaits what it returns if that can be awaited."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class YieldEvent(msgspec.Struct, frozen=True):
    """Hand an event to the user, who iterates."""

    event: OperationEvent


IoRequest: TypeAlias = SendRequest | ReadStream | CloseStream | Sleep | CallFunction | YieldEvent
Flow: TypeAlias = Generator[IoRequest, Any, T]
