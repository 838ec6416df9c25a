"""What services call to trace, and what they get while tracing is off: objects that do nothing.

A caller asks `is_on` first wherever the arguments cost anything. Names and attributes of spans follow OpenTelemetry's
semantic conventions for HTTP and messaging (`otel.py`).
"""

# ruff: noqa: ARG002 - what does nothing uses none of its arguments

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Final, Self

import msgspec

from opstream_schemas.events import Trace
from opstream_schemas.names import Kind

METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""The methods of HTTP that spans name. All others are one, since a client can make up as many as it likes."""


class DeliveryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a span says of one HTTP request to a receiver of webhooks."""

    url: str
    """Without its query, which may hold a secret."""
    host: str
    port: int
    endpoint: str
    attempt: int
    """1 for the first."""
    operation_id: str
    kind: Kind


class Span:
    """A span that records nothing; a context manager, within which the span is the active one."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @property
    def trace(self) -> Trace | None:
        """The W3C Trace Context that others get to continue or link; None without one."""
        return None

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of trace and span in hexadecimal digits; empty without them."""
        return "", ""

    def rename(self, name: str) -> None:
        """Give the span its final name."""

    def note(self, name: str, value: str | int) -> None:
        """Set an attribute."""

    def fail(self, error_type: str) -> None:
        """Mark the span as failed, with a word of few values that says how."""


NO_SPAN: Final = Span()


class Tracer:
    """Tracing that is off. Each method returns what has no effect.

    Attributes:
        is_on: whether spans are made.
    """

    is_on: ClassVar[bool] = False

    def request_span(self, method: str, scheme: str, parent: Trace | None) -> Span:
        """Return the span of an HTTP request that this process answers, in the trace of its client if there is one."""
        return NO_SPAN

    def append_span(self, kind: Kind, operation_id: str, event: str, event_id: str) -> Span:
        """Return the span of storing an event, within the active span; without an active one it records nothing."""
        return NO_SPAN

    def attempt_span(self, kind: Kind, operation_id: str, attempt: int, request: Trace | None) -> Span:
        """Return the span of an attempt, in a trace of its own that is linked to the request's."""
        return NO_SPAN

    def delivery_span(self, sent: DeliveryRequest, request: Trace | None) -> Span:
        """Return the span of an attempt to deliver a webhook, in a trace of its own that is linked to the request's."""
        return NO_SPAN

    def outer_span(self, trace: Trace) -> Span:
        """Return the span of another process, to be the active one in this process. It does not end here."""
        return NO_SPAN

    def active(self) -> Span:
        """Return the active span."""
        return NO_SPAN

    def close(self, seconds: float = 0.0) -> None:
        """Send what was not sent yet, for so many seconds at most."""


NO_TRACING: Final = Tracer()
