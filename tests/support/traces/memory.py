"""Spans in memory: a tracer whose spans a test reads, each by its name."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from opstream_schemas.traces.otel import OtelTracer


class SpanMemory:
    """A tracer, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OtelTracer(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        """The ended spans with a name, oldest first."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        """The only ended span with a name."""
        (span,) = self.named(name)
        return span


def traceparent_of(span: ReadableSpan) -> str:
    """The W3C header that names a span."""
    assert span.context is not None
    return _header(span.context)


def parent_of(span: ReadableSpan) -> str:
    """The id of its parent in hexadecimal digits; empty for the first one of a trace."""
    return "" if span.parent is None else f"{span.parent.span_id:016x}"


def linked_to(span: ReadableSpan) -> list[str]:
    """The W3C headers of the spans that it is linked to."""
    return [_header(link.context) for link in span.links]


def _header(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
