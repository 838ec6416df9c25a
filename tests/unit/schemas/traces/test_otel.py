"""Spans of OpenTelemetry: what they say, what a missing collector costs, and that off means that nothing is loaded."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from opstream_schemas.events import Trace
from opstream_schemas.logs.json_formatter import ActiveSpan, JsonLogFormatter
from opstream_schemas.names import Kind
from opstream_schemas.traces.otel import (
    CollectorExporter,
    InvalidTracing,
    OtelTracer,
    active_ids,
    is_disabled,
    start_tracing,
)
from opstream_schemas.traces.tracer import NO_SPAN, NO_TRACING, DeliveryRequest
from tests.support.traces.collector import collecting
from tests.support.traces.memory import SpanMemory, linked_to, parent_of, traceparent_of

pytestmark = pytest.mark.unit

KIND = Kind("book", "upload-start")
CLIENT = Trace(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="vendor=1")
SENT = DeliveryRequest(
    url="https://shop.example/hook",
    host="shop.example",
    port=443,
    endpoint="shop",
    attempt=2,
    operation_id="op-1",
    kind=KIND,
)


def test_a_request_continues_the_trace_of_its_client() -> None:
    """Its span has the client's as its parent, and passes the client's tracestate on."""
    memory = SpanMemory()
    with memory.tracer.request_span("POST", "http", CLIENT) as span:
        passed = span.trace
    ended = memory.only("POST")
    assert ended.kind is SpanKind.SERVER
    assert parent_of(ended) == "b7ad6b7169203331"
    assert passed == Trace(traceparent=traceparent_of(ended), tracestate="vendor=1")
    assert traceparent_of(ended)[:36] == CLIENT.traceparent[:36]


def test_a_made_up_method_is_no_name_of_a_span() -> None:
    """A client can't make as many names of spans as it likes, nor a long attribute."""
    memory = SpanMemory()
    with memory.tracer.request_span("X" * 1000, "http", None):
        pass
    ended = memory.only("HTTP")
    assert dict(ended.attributes or {}) == {
        "http.request.method": "_OTHER",
        "http.request.method_original": "X" * 32,
        "url.scheme": "http",
    }


def test_an_append_is_a_part_of_what_appends() -> None:
    """Within a span an append has one of its own; without any, none: a trace of one append says nothing."""
    memory = SpanMemory()
    assert memory.tracer.append_span(KIND, "op-1", "requested", "e-1") is NO_SPAN
    with memory.tracer.request_span("POST", "http", None), memory.tracer.append_span(KIND, "op-1", "requested", "e-1"):
        pass
    append, request = memory.only("append OPERATIONS"), memory.only("POST")
    assert request.context is not None
    assert parent_of(append) == f"{request.context.span_id:016x}"
    assert append.kind is SpanKind.PRODUCER
    attributes = dict(append.attributes or {})
    assert attributes["opstream.operation.id"] == "op-1"
    assert attributes["messaging.destination.name"] == "OPERATIONS"


@pytest.mark.parametrize("name", ["process book:upload-start", "POST"])
def test_what_follows_is_linked_and_not_nested(name: str) -> None:
    """An attempt and a delivery have a trace of their own, linked to the request, also within an active span."""
    memory = SpanMemory()
    with memory.tracer.request_span("GET", "http", None):
        if name == "POST":
            span = memory.tracer.delivery_span(SENT, CLIENT)
        else:
            span = memory.tracer.attempt_span(KIND, "op-1", 1, CLIENT)
        with span:
            pass
    ended = memory.only(name)
    assert parent_of(ended) == ""
    assert linked_to(ended) == [CLIENT.traceparent]


@pytest.mark.parametrize("trace", [None, Trace(traceparent="nonsense")])
def test_without_a_trace_there_is_no_link(trace: Trace | None) -> None:
    """A request that was recorded without a trace, or with what is none, is linked to nothing."""
    memory = SpanMemory()
    with memory.tracer.attempt_span(KIND, "op-1", 1, trace):
        pass
    assert linked_to(memory.only("process book:upload-start")) == []


def test_an_error_marks_the_span() -> None:
    """What raises within a span is named by its type, and its text, which may be foreign, is not recorded."""
    memory = SpanMemory()
    with pytest.raises(ValueError, match="secret"), memory.tracer.attempt_span(KIND, "op-1", 1, None):
        raise ValueError("secret")
    ended = memory.only("process book:upload-start")
    assert (ended.attributes or {})["error.type"] == "ValueError"
    assert not ended.status.is_ok
    assert "secret" not in ended.to_json()


def test_lines_of_the_log_have_the_ids_of_the_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a span a line of JSON has its ids, which no field of a record can replace; outside it has none."""
    monkeypatch.setattr(ActiveSpan, "ids", active_ids)
    memory, formatter = SpanMemory(), JsonLogFormatter()
    record = logging.makeLogRecord({"msg": "it works", "trace_id": "made up"})
    with memory.tracer.attempt_span(KIND, "op-1", 1, None) as span:
        inside = json.loads(formatter.format(record))
    assert (inside["trace_id"], inside["span_id"]) == span.ids
    assert "span_id" not in json.loads(formatter.format(record))


class SilentExporter(SpanExporter):
    """An exporter whose collector never answers."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.answer = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.has_begun.set()
        self.answer.wait()
        return SpanExportResult.FAILURE


def test_a_silent_collector_blocks_nothing() -> None:
    """While an export hangs, more spans than the queue holds end, and closing comes back."""
    silent = SilentExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    processor = BatchSpanProcessor(
        CollectorExporter(lambda: silent), max_queue_size=50, max_export_batch_size=10, schedule_delay_millis=1
    )
    provider.add_span_processor(processor)
    tracer = OtelTracer(provider)
    try:
        for _ in range(20):
            with tracer.attempt_span(KIND, "op-1", 1, None):
                pass
        assert silent.has_begun.wait(10)
        for _ in range(200):
            with tracer.attempt_span(KIND, "op-1", 1, None):
                pass
        tracer.close(0.01)
        assert not silent.answer.is_set()
    finally:
        silent.answer.set()
        _await_end()  # else its line about the outage comes in another test


def _await_end() -> None:
    """Wait for the threads that `close` has left alone."""
    for thread in threading.enumerate():
        if thread.name == "end of tracing":
            thread.join(10)
            assert not thread.is_alive()


def test_an_outage_of_the_collector_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Each export fails, the log has one warning with the reason, and one line when the collector is back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}/v1/traces"
    exporter = CollectorExporter(lambda: OTLPSpanExporter(endpoint=endpoint, timeout=0.2))
    memory = SpanMemory()
    with memory.tracer.attempt_span(KIND, "op-1", 1, None):
        pass
    spans = memory.named("process book:upload-start")
    with caplog.at_level(logging.INFO):
        assert [exporter.export(spans) for _ in range(3)] == [SpanExportResult.FAILURE] * 3
        (warning,) = caplog.records
        assert warning.levelno == logging.WARNING
        assert "Failed to export" in warning.getMessage()
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in warning.getMessage()
        with collecting(port) as collector:
            assert exporter.export(spans) is SpanExportResult.SUCCESS
        assert [one.levelno for one in caplog.records] == [logging.WARNING, logging.INFO]
    assert [span.name for span in collector.spans] == ["process book:upload-start"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_SDK_DISABLED": "true"}, True),
        ({"OTEL_SDK_DISABLED": "TRUE "}, True),
        ({"OTEL_SDK_DISABLED": "1"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, True),
    ],
)
def test_standard_variables_switch_it_off(variables: dict[str, str], expected: bool) -> None:
    """As OpenTelemetry's specification says: only `true` disables the SDK."""
    assert is_disabled(variables) is expected
    if expected:
        assert start_tracing("test", environment=variables) is NO_TRACING


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
    ],
)
def test_what_it_can_not_send_is_refused(variables: dict[str, str]) -> None:
    """The error names the variable and what to write."""
    with pytest.raises(InvalidTracing, match=rf"{next(iter(variables))} is .*: write"):
        start_tracing("test", environment=variables)


def run_python(program: str, **variables: str) -> list[str]:
    """The lines that a program prints in a new process."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=known | variables
    )
    return result.stdout.splitlines()


def test_nothing_is_loaded_while_it_is_off() -> None:
    """With all services imported and tracing off, no module of OpenTelemetry is, although it is installed."""
    lines = run_python(
        """import sys
import opstream_api.main, opstream_runner.main, opstream_webhooks.main, opstream_runner.handler.child_main
from opstream.cli.tracing_session import tracing_session
with tracing_session("api", is_traced=False) as tracer:
    print(tracer.is_on)
print([name for name in sys.modules if name.startswith("opentelemetry")])"""
    )
    assert lines == ["False", "[]"]


def test_the_spans_of_a_process_arrive() -> None:
    """The end of a session sends what is left, under the name of the service that the command gives."""
    with collecting() as collector:
        run_python(
            """from opstream.cli.tracing_session import tracing_session
with tracing_session("api", is_traced=True) as tracer:
    with tracer.request_span("GET", "http", None): pass""",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        )
    assert collector.services == {"opstream-api"}
    assert [span.name for span in collector.spans] == ["GET"]


def test_the_sampler_is_that_of_the_variables() -> None:
    """With `always_off` nothing is sent, and a request passes on that it was not sampled."""
    with collecting() as collector:
        lines = run_python(
            """from opstream.cli.tracing_session import tracing_session
with tracing_session("api", is_traced=True) as tracer:
    with tracer.request_span("GET", "http", None) as span: print(span.trace.traceparent[-2:])""",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_TRACES_SAMPLER="always_off",
        )
    assert int(lines[0], 16) & 1 == 0
    assert collector.spans == []


def test_without_the_extra_the_error_names_it() -> None:
    """Where OpenTelemetry is not installed, the command says what to install."""
    lines = run_python(
        """import sys
sys.modules["opentelemetry"] = None
from opstream.cli.tracing_session import check_installed, tracing_session
from opstream.terminal.console import CommandError
def session():
    with tracing_session("api", is_traced=True): print("it began")
for one in (session, check_installed):
    try: one()
    except CommandError as error: print(error)"""
    )
    assert len(lines) == 2
    assert all("pip install 'opstream[otel]'" in line for line in lines)
