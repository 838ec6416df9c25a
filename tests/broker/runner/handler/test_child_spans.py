"""Spans of an author's code in a process of its own: they are nested in the attempt's, and arrive at the collector."""

from __future__ import annotations

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.names import Kind
from tests.support.runner.stage import RunnerStage
from tests.support.system.wait import eventually
from tests.support.traces import spanning_actions
from tests.support.traces.collector import collecting
from tests.support.traces.memory import SpanMemory, traceparent_of

pytestmark = pytest.mark.broker

KIND = Kind("span", "isolated")


async def test_an_isolated_handler_continues_the_attempt(
    link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its context names the attempt's span, its own span has that one as its parent, and the name of the service is
    that of the standard variable."""
    memory, stage = SpanMemory(), RunnerStage(link, journal)
    dependencies = stage.dependencies(tracing=memory.tracer)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        async with stage.runner(collect_actions([spanning_actions]), dependencies=dependencies):
            await stage.request("op-1", kind=KIND)
            operation = await stage.ended("op-1", within=30)
            await eventually(lambda: collector.spans)
            await eventually(lambda: memory.named("process span:isolated"))
    attempt = memory.only("process span:isolated")
    assert operation.result is not None
    assert msgspec.json.decode(operation.result) == {"traceparent": traceparent_of(attempt)}
    (span,) = collector.named("count the books")
    assert attempt.context is not None
    assert span.trace_id.hex() == f"{attempt.context.trace_id:032x}"
    assert span.parent_span_id.hex() == f"{attempt.context.span_id:016x}"
    assert collector.services == {"shop"}


async def test_a_child_without_a_collector_ends_as_usual(
    link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome of the handler is that of the attempt, whatever becomes of its spans."""
    memory, stage = SpanMemory(), RunnerStage(link, journal)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    async with stage.runner(
        collect_actions([spanning_actions]), dependencies=stage.dependencies(tracing=memory.tracer)
    ):
        await stage.request("op-1", kind=KIND)
        operation = await stage.ended("op-1", within=30)
    assert operation.result is not None
    assert operation.attempt == 1
    assert caplog.text == ""
