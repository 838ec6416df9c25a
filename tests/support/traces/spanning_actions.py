"""An isolated action that makes a span of its own with OpenTelemetry, as an author's code does."""

from __future__ import annotations

import logging

import msgspec
from opentelemetry import trace

from opstream_runner import ActionContext, action


class Spanned(msgspec.Struct):
    """What the handler saw."""

    traceparent: str


class NoInput(msgspec.Struct):
    """Any JSON object."""


@action("span:isolated", isolation="process")
def isolated(request: NoInput, ctx: ActionContext) -> Spanned:
    """Make a span."""
    with trace.get_tracer("shop").start_as_current_span("count the books"):
        logging.getLogger("shop").warning("counting")
    return Spanned(traceparent=ctx.traceparent)
