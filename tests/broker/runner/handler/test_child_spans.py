"""Spans of steps, and of an author's code in a process of its own: they are nested in the attempt's."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner import ActionContext, action
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.runner.stage import RunnerStage
from tests.support.system.wait import eventually
from tests.support.traces import spanning_actions
from tests.support.traces.collector import collecting
from tests.support.traces.memory import SpanMemory, parent_of, traceparent_of

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
            await eventually(lambda: len(collector.spans) == 2)
            await eventually(lambda: memory.named("process span:isolated"))
    attempt = memory.only("process span:isolated")
    assert operation.result is not None
    assert msgspec.json.decode(operation.result) == {"traceparent": traceparent_of(attempt)}
    (span,) = collector.named("count the books")
    assert attempt.context is not None
    assert span.trace_id.hex() == f"{attempt.context.trace_id:032x}"
    assert span.parent_span_id.hex() == f"{attempt.context.span_id:016x}"
    assert collector.services == {"shop"}
    (step,) = collector.named("step shelve")
    assert step.parent_span_id.hex() == f"{attempt.context.span_id:016x}"


async def test_steps_have_spans(link: Connection, journal: Journal) -> None:
    """Each step that runs has a span within that of its attempt, with its name; one that fails says with what. A
    step whose result is recorded has none."""

    def ship(attempt: int) -> int:
        if attempt == 1:
            raise OSError("no ship")
        return attempt

    @action("span:steps", lease=1.0, backoff=0.01)
    async def handler(_: spanning_actions.NoInput, ctx: ActionContext) -> int:
        await ctx.step("charge", asyncio.sleep, 0)
        return int(await ctx.step("ship", ship, ctx.attempt))

    memory, stage = SpanMemory(), RunnerStage(link, journal)
    async with stage.runner([handler], dependencies=stage.dependencies(tracing=memory.tracer)):
        await stage.request("op-1", kind=Kind("span", "steps"))
        assert (await stage.ended("op-1", within=20)).status is Status.SUCCEEDED
        await eventually(lambda: len(memory.named("process span:steps")) == 2)
    attempts = [f"{one.context.span_id:016x}" for one in memory.named("process span:steps") if one.context]
    spans = [*memory.named("step charge"), *memory.named("step ship")]
    assert [parent_of(one) for one in spans] == [attempts[0], attempts[0], attempts[1]]
    assert [dict(one.attributes or {}) for one in spans] == [
        {"opstream.step": "charge", "opstream.operation.id": "op-1"},
        {"opstream.step": "ship", "opstream.operation.id": "op-1", "error.type": "OSError"},
        {"opstream.step": "ship", "opstream.operation.id": "op-1"},
    ]
    assert [one.status.is_ok for one in spans] == [True, False, True]


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
