"""Tracing with OpenTelemetry's SDK. Import it only where tracing is on: it needs the extra `otel`.

Spans are sent by a thread of the SDK, in batches, and dropped when they are too many: nothing waits for a collector.
The SDK reads the standard variables (`OTEL_…`). Attributes are those of the semantic conventions for HTTP and
messaging, besides `opstream.…`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Final, Self

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from opstream_schemas.events import Trace
from opstream_schemas.logs.json_formatter import ActiveSpan
from opstream_schemas.names import Kind
from opstream_schemas.subjects import OPERATIONS_STREAM

from .tracer import METHODS, NO_SPAN, NO_TRACING, DeliveryRequest, Span, Tracer

logger = logging.getLogger(__name__)

EXPORTER_MODULE: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
CLOSE_SECONDS: Final = 2.0
"""Seconds that the end of a process may wait for the last spans to be sent."""
TRACESTATE_LIMIT: Final = 512
"""Characters of a `tracestate` that is passed on, as with those of clients."""

_NEW_TRACE: Final = Context()
_W3C: Final = TraceContextTextMapPropagator()


class InvalidTracing(Exception):
    """The variables ask for what this process can't do; the message says what to write instead."""


class CollectorExporter(SpanExporter):
    """Sends spans to a collector, with one warning an outage.

    Args:
        make: makes the exporter of OpenTelemetry; called by the thread that sends, for the first spans.
        level: of the line about an outage.
    """

    def __init__(self, make: Callable[[], SpanExporter], *, level: int = logging.WARNING) -> None:
        self._make = make
        self._level = level
        self._exporter: SpanExporter | None = None
        self._is_failing = False
        self._reasons = _Reasons()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Those that can't be sent in the time of `OTEL_EXPORTER_OTLP_TIMEOUT` are dropped."""
        try:
            if self._exporter is None:
                self._exporter = self._make()
                logging.getLogger(EXPORTER_MODULE).addFilter(self._reasons)
            self._reasons.first = ""
            result = self._exporter.export(spans)
            reason = self._reasons.first
        except Exception as error:  # noqa: BLE001 - whatever the exporter raises, the next spans are tried again
            result, reason = SpanExportResult.FAILURE, repr(error)
        if result is SpanExportResult.SUCCESS:
            if self._is_failing:
                logger.log(min(self._level, logging.INFO), "spans are sent to the collector again")
            self._is_failing = False
        elif not self._is_failing:
            self._is_failing = True
            text = "spans are dropped, because the collector does not take them: %s; check OTEL_EXPORTER_OTLP_ENDPOINT"
            logger.log(self._level, text, reason or "no reason is known")
        return result

    def shutdown(self) -> None:
        """Send nothing more, and stop what is being tried."""
        if self._exporter is not None:
            self._exporter.shutdown()
        logging.getLogger(EXPORTER_MODULE).removeFilter(self._reasons)


class _Reasons(logging.Filter):
    """Keeps why an export failed, in place of the exporter's own lines for each of its tries. The first says most."""

    first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False


class OtelSpan(Span):
    """A span of OpenTelemetry.

    Args:
        span: that span.
        is_own: False for a span that another process ends.
    """

    __slots__ = ("_is_own", "_span", "_token")

    def __init__(self, span: otel_trace.Span, *, is_own: bool = True) -> None:
        self._span = span
        self._is_own = is_own
        self._token: object = None

    def __enter__(self) -> Self:
        self._token = otel_context.attach(otel_trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)  # type: ignore[arg-type] # made by `__enter__`
        if self._is_own:
            if kind is not None:
                self.fail(kind.__name__)
            self._span.end()

    @property
    def trace(self) -> Trace | None:
        """See `Span`."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, otel_trace.set_span_in_context(self._span, _NEW_TRACE))
        if "traceparent" not in carrier:
            return None
        state = carrier.get("tracestate", "")
        return Trace(traceparent=carrier["traceparent"], tracestate=state if len(state) <= TRACESTATE_LIMIT else "")

    @property
    def ids(self) -> tuple[str, str]:
        """See `Span`."""
        found = self._span.get_span_context()
        return f"{found.trace_id:032x}", f"{found.span_id:016x}"

    def rename(self, name: str) -> None:
        """See `Span`."""
        self._span.update_name(name)

    def note(self, name: str, value: str | int) -> None:
        """See `Span`."""
        self._span.set_attribute(name, value)

    def fail(self, error_type: str) -> None:
        """See `Span`."""
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)


class OtelTracer(Tracer):
    """Makes spans with a provider of OpenTelemetry.

    Args:
        provider: the provider; its processors send the spans.
    """

    is_on: ClassVar[bool] = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("opstream")

    def request_span(self, method: str, scheme: str, parent: Trace | None) -> Span:
        """See `Tracer`. The path is missing by intent: it may name what is nobody's business (ADR 0049)."""
        known = method if method in METHODS else "_OTHER"
        attributes = {"http.request.method": known, "url.scheme": scheme}
        if known != method:
            attributes["http.request.method_original"] = method[:32]
        name = known if known == method else "HTTP"
        return OtelSpan(self._tracer.start_span(name, _context_of(parent), kind=SpanKind.SERVER, attributes=attributes))

    def append_span(self, kind: Kind, operation_id: str, event: str, event_id: str) -> Span:
        """See `Tracer`."""
        if not otel_trace.get_current_span().get_span_context().is_valid:
            return NO_SPAN
        attributes = {
            **_messaging("append", "send", kind, operation_id),
            "messaging.message.id": event_id,
            "opstream.event": event,
        }
        name = f"append {OPERATIONS_STREAM}"
        return OtelSpan(self._tracer.start_span(name, kind=SpanKind.PRODUCER, attributes=attributes))

    def attempt_span(self, kind: Kind, operation_id: str, attempt: int, request: Trace | None) -> Span:
        """See `Tracer`."""
        attributes: dict[str, str | int] = {
            **_messaging("process", "process", kind, operation_id),
            "opstream.attempt": attempt,
        }
        return OtelSpan(
            self._tracer.start_span(
                f"process {kind}",
                _NEW_TRACE,
                kind=SpanKind.CONSUMER,
                attributes=attributes,
                links=_links_to(request),
            )
        )

    def delivery_span(self, sent: DeliveryRequest, request: Trace | None) -> Span:
        """See `Tracer`."""
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "url.full": sent.url,
            "server.address": sent.host,
            "server.port": sent.port,
            **({"http.request.resend_count": sent.attempt - 1} if sent.attempt > 1 else {}),
            "opstream.endpoint": sent.endpoint,
            **_operation(sent.kind, sent.operation_id),
        }
        return OtelSpan(
            self._tracer.start_span(
                "POST", _NEW_TRACE, kind=SpanKind.CLIENT, attributes=attributes, links=_links_to(request)
            )
        )

    def outer_span(self, trace: Trace) -> Span:
        """See `Tracer`."""
        return OtelSpan(otel_trace.get_current_span(_context_of(trace)), is_own=False)

    def active(self) -> Span:
        """See `Tracer`."""
        return OtelSpan(otel_trace.get_current_span(), is_own=False)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """See `Tracer`."""
        ActiveSpan.ids = None
        # In a thread that is left alone: the SDK waits for a collector that does not answer.
        thread = threading.Thread(target=self._provider.shutdown, name="end of tracing", daemon=True)
        thread.start()
        thread.join(seconds)


def start_tracing(
    service: str, *, environment: Mapping[str, str] = os.environ, is_child: bool = False, timeout: float | None = None
) -> Tracer:
    """Begin to trace, as the standard variables say.

    The provider becomes that of the process, so spans of an author's code are sent, too.

    Args:
        service: the name of the service where `OTEL_SERVICE_NAME` has none.
        environment: where the SDK reads its variables.
        is_child: True for a process that ends soon. It makes its exporter when there are spans, and is quiet about an
            outage, which its parent logs.
        timeout: seconds for sending one batch; None for `OTEL_EXPORTER_OTLP_TIMEOUT`.

    Returns:
        Tracing that is off if `OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER` say so.

    Raises:
        ImportError: the exporter is not installed.
        InvalidTracing: the variables ask for another exporter or protocol.
    """
    if is_disabled(environment):
        return NO_TRACING
    _check_variables(environment)
    if importlib.util.find_spec(EXPORTER_MODULE) is None:
        raise ImportError(EXPORTER_MODULE)

    def make() -> SpanExporter:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(timeout=timeout)

    exporter = CollectorExporter(make, level=logging.DEBUG if is_child else logging.WARNING)
    if not is_child:
        importlib.import_module(EXPORTER_MODULE)  # now, since later it would keep requests waiting
    # It logs each span for which its queue has no room.
    logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    otel_trace.set_tracer_provider(provider)
    ActiveSpan.ids = active_ids
    return OtelTracer(provider)


def is_disabled(environment: Mapping[str, str]) -> bool:
    """Return True if the standard variables switch tracing off."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return is_off or environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _check_variables(environment: Mapping[str, str]) -> None:
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in {"", "otlp"}:
        raise InvalidTracing(f"OTEL_TRACES_EXPORTER is {exporter!r}: write otlp, or none to send nothing")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name, "").strip().lower()
        if protocol not in {"", "http/protobuf"}:
            raise InvalidTracing(f"{name} is {protocol!r}: write http/protobuf, and the port of it, usually 4318")


def active_ids() -> dict[str, str]:
    """Return the members of a line of the log that name the active span; none without one."""
    found = otel_trace.get_current_span().get_span_context()
    return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"} if found.is_valid else {}


def _context_of(trace: Trace | None) -> Context:
    if trace is None:
        return _NEW_TRACE
    carrier = {"traceparent": trace.traceparent, **({"tracestate": trace.tracestate} if trace.tracestate else {})}
    return _W3C.extract(carrier, _NEW_TRACE)


def _links_to(request: Trace | None) -> list[Link]:
    found = otel_trace.get_current_span(_context_of(request)).get_span_context()
    return [Link(found)] if found.is_valid else []


def _operation(kind: Kind, operation_id: str) -> dict[str, str]:
    return {"opstream.operation.id": operation_id, "opstream.action": str(kind)}


def _messaging(name: str, operation_type: str, kind: Kind, operation_id: str) -> dict[str, str]:
    return {
        "messaging.system": "nats",
        "messaging.operation.name": name,
        "messaging.operation.type": operation_type,
        "messaging.destination.name": OPERATIONS_STREAM,
        **_operation(kind, operation_id),
    }
