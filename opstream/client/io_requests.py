"""What a flow requests of its driver. Flows decide and do no I/O; drivers (`sync`, `aio`) do I/O and decide nothing.

A flow is a generator: it yields one of these requests, and the driver sends it the outcome. So both clients share one
logic, and unit tests run it without a network and without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from .models import OperationEvent

T = TypeVar("T")


class BodySource(Protocol):
    """A body that is not in memory."""

    def pieces(self) -> Iterator[bytes]:
        """Read it from its begin, in pieces that are not empty. This may block."""
        ...

    def note_sent(self, size: int) -> None:
        """Hear that a piece of `size` bytes is handed to the network; in the thread of the caller."""
        ...


class SendRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Send one HTTP request. The outcome is a `ServiceResponse` or a `NoResponse`."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes = b""
    timeout: float
    """Seconds until the try is given up: for a whole response, or for the next bytes of a stream."""
    is_stream: bool = False
    """Keep an event stream open for `ReadStream`; the response has no content then."""
    is_download: bool = False
    """The same for any body of a 200 or 206."""
    is_foreign: bool = False
    """The URL is another service's: nothing goes there but `headers`, no credentials and no cookies of the client."""
    source: BodySource | None = None
    """The body, in place of `content`. `headers` has its length, and the time is then for each piece of it."""


class ServiceResponse(msgspec.Struct, frozen=True):
    """A response with any status."""

    status: int
    headers: Mapping[str, str]
    """Keys are case-insensitive."""
    content: bytes = b""


class NoResponse(msgspec.Struct, frozen=True):
    """No response, or only a part of one. The service may have carried out the request."""

    reason: str


class ReadStream(msgspec.Struct, frozen=True):
    """Read from the open stream. The outcome is bytes (empty at the end of the stream) or a `NoResponse`."""


class FetchToken(msgspec.Struct, frozen=True):
    """Get a token, which may take a while. The outcome is the token."""

    function: Callable[[], str]


class RunBlocking(msgspec.Struct, frozen=True):
    """Call a function that may block for a moment, such as a write to a file. The outcome is what it returns."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class CloseStream(msgspec.Struct, frozen=True):
    """Close the open stream."""


class Sleep(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class CallFunction(msgspec.Struct, frozen=True):
    """Call a function of the user's; the async driver awaits its result if that is awaitable."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class YieldEvent(msgspec.Struct, frozen=True):
    """Give an event to the user's loop."""

    event: OperationEvent


IoRequest: TypeAlias = (
    SendRequest | FetchToken | RunBlocking | ReadStream | CloseStream | Sleep | CallFunction | YieldEvent
)
Flow: TypeAlias = Generator[IoRequest, Any, T]
