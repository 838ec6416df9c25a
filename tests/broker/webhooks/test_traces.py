"""Traces of a whole operation on a real broker: request, append, attempt and webhook, and how they are linked."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from opentelemetry import trace

from opstream_api.http.callback_header import CallbackPolicy
from opstream_journal import Connection, Journal
from opstream_journal.provisioning.topology import Sizing
from opstream_runner import ActionContext, ActionError, action
from opstream_schemas.events import Requested
from opstream_schemas.operation.state import Status
from opstream_schemas.urls import HostRule
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker
from tests.support.runner.stage import Input, RunnerStage
from tests.support.system.wait import eventually
from tests.support.traces.memory import SpanMemory, linked_to, parent_of, traceparent_of
from tests.support.webhooks.receiver import WebhookReceiver, answer
from tests.support.webhooks.service import callbacks, delivering

pytestmark = pytest.mark.broker

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = "POST /book/{id}:upload-start"
ATTEMPT = "process book:upload-start"


async def traced_stage(link: Connection, memory: SpanMemory) -> RunnerStage:
    """A stage whose journal and runners trace."""
    journal = Journal(link, max_msg_size=Sizing().max_msg_size, clock=time.monotonic, tracing=memory.tracer)
    await journal.start()
    return RunnerStage(link, journal)


async def submit(api: Api, *headers: tuple[str, str]) -> str:
    """Submit the action once the API knows it, and return the operation's id."""

    async def accepted() -> Any:
        response = await api.submit("/book/42:upload-start", {}, dict(headers))
        return response if response.status_code == 202 else None

    response = await eventually(accepted)
    return str(response.json()["id"])


async def test_a_trace_leads_from_the_request_to_its_webhook(
    broker: Broker, link: Connection, receiver: WebhookReceiver
) -> None:
    """The request continues the client's trace and stores its own span. The attempt and each delivery have a trace of
    their own that is linked to it; appends are within what appends; the receiver gets the delivery's span."""
    memory = SpanMemory()
    stage = await traced_stage(link, memory)
    seen: list[tuple[str, int]] = []

    @action("book:upload-start")
    async def handler(request: Input, ctx: ActionContext) -> int:
        seen.append((ctx.traceparent, trace.get_current_span().get_span_context().span_id))
        return 1

    receiver.answers = [answer(500), answer(204)]
    policy = CallbackPolicy(hosts=(HostRule.parse(receiver.host),), is_http_allowed=True)
    dependencies = stage.dependencies(tracing=memory.tracer)
    async with (
        stage.runner([handler], dependencies=dependencies),
        serving(broker.url, tracing=memory.tracer, callbacks=policy) as api,
        delivering(link, callbacks(receiver.host), tracing=memory.tracer),
    ):
        operation_id = await submit(api, ("traceparent", CLIENT), ("Operation-Callback", receiver.url))
        await eventually(lambda: len(receiver.received) == 2)
        await eventually(lambda: len(memory.named("POST")) == 2)
        (requested, *_) = await stage.events(operation_id)

    request, attempt = memory.only(REQUEST), memory.only(ATTEMPT)
    assert parent_of(request) == "b7ad6b7169203331"
    assert isinstance(requested.data, Requested)
    assert requested.data.trace is not None
    assert requested.data.trace.traceparent == traceparent_of(request)
    attributes = dict(request.attributes or {})
    assert attributes["http.route"] == "/book/{id}:upload-start"
    assert (attributes["http.response.status_code"], attributes["http.request.method"]) == (202, "POST")

    assert (parent_of(attempt), linked_to(attempt)) == ("", [traceparent_of(request)])
    assert request.context is not None
    assert attempt.context is not None
    assert seen == [(traceparent_of(attempt), attempt.context.span_id)]
    appends = {span.attributes["opstream.event"]: parent_of(span) for span in memory.named("append OPERATIONS")}  # type: ignore[index] # all have some
    of_attempt = f"{attempt.context.span_id:016x}"
    assert appends == {
        "requested": f"{request.context.span_id:016x}",
        "started": of_attempt,
        "succeeded": of_attempt,
    }

    deliveries = memory.named("POST")
    assert [linked_to(span) for span in deliveries] == [[traceparent_of(request)]] * 2
    assert [parent_of(span) for span in deliveries] == ["", ""]
    assert [one.headers["traceparent"] for one in receiver.received] == [traceparent_of(span) for span in deliveries]
    assert [span.attributes["http.response.status_code"] for span in deliveries] == [500, 204]  # type: ignore[index] # as above
    assert [span.status.is_ok for span in deliveries] == [False, True]
    assert "token=abc" not in "".join(span.to_json() for span in deliveries)
    for span in (request, attempt, *deliveries):
        assert (span.attributes or {})["opstream.operation.id"] == operation_id
        assert (span.attributes or {})["opstream.action"] == "book:upload-start"


async def test_a_failed_attempt_is_a_failed_span(link: Connection) -> None:
    """Each attempt has a span of its own, linked to the same request, with the code of its error."""
    memory = SpanMemory()
    stage = await traced_stage(link, memory)

    @action("book:upload-start", max_attempts=2, backoff=0.05)
    async def handler(request: Input, ctx: ActionContext) -> int:
        if ctx.attempt == 1:
            raise RuntimeError("the printer is on fire")
        raise ActionError("OutOfPaper", "there is none")

    async with stage.runner([handler], dependencies=stage.dependencies(tracing=memory.tracer)):
        await stage.request("op-1")
        assert (await stage.ended("op-1")).status is Status.FAILED
        await eventually(lambda: len(memory.named(ATTEMPT)) == 2)
    attempts = [dict(span.attributes or {}) for span in memory.named(ATTEMPT)]
    assert [one["opstream.attempt"] for one in attempts] == [1, 2]
    assert [one["error.type"] for one in attempts] == ["500", "OutOfPaper"]
    assert "printer" not in "".join(span.to_json() for span in memory.named(ATTEMPT))


async def test_a_plain_handler_is_within_its_attempt(link: Connection) -> None:
    """Its thread has the attempt's span as the active one, so what it makes is nested there."""
    memory = SpanMemory()
    stage = await traced_stage(link, memory)
    seen: list[int] = []

    @action("book:upload-start")
    def handler(request: Input, ctx: ActionContext) -> int:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return 1

    async with stage.runner([handler], dependencies=stage.dependencies(tracing=memory.tracer)):
        await stage.request("op-1")
        await stage.ended("op-1")
        await eventually(lambda: memory.named(ATTEMPT))
    context = memory.only(ATTEMPT).context
    assert context is not None
    assert seen == [context.span_id]


async def test_without_tracing_a_trace_is_passed_on_as_before(
    broker: Broker, link: Connection, journal: Journal, receiver: WebhookReceiver
) -> None:
    """The client's header is stored and given to the action, and a receiver gets none."""
    stage = RunnerStage(link, journal)
    seen: list[str] = []

    @action("book:upload-start")
    async def handler(request: Input, ctx: ActionContext) -> int:
        seen.append(ctx.traceparent)
        return 1

    policy = CallbackPolicy(hosts=(HostRule.parse(receiver.host),), is_http_allowed=True)
    async with (
        stage.runner([handler]),
        serving(broker.url, callbacks=policy) as api,
        delivering(link, callbacks(receiver.host)),
    ):
        operation_id = await submit(api, ("traceparent", CLIENT), ("Operation-Callback", receiver.url))
        await eventually(lambda: receiver.received)
        (requested, *_) = await stage.datas(operation_id)
    assert isinstance(requested, Requested)
    assert msgspec.to_builtins(requested.trace) == {"traceparent": CLIENT}
    assert seen == [CLIENT]
    assert "traceparent" not in receiver.received[0].headers


async def test_probes_make_no_spans(broker: Broker, link: Connection) -> None:
    """What is asked every few seconds would hide everything else; another request, of no route, has a bounded name."""
    memory = SpanMemory()
    async with serving(broker.url, tracing=memory.tracer) as api:
        for path in ("/healthz", "/readyz", "/what/is/this"):
            await api.client.get(path)
        await eventually(lambda: memory.named("GET /{path}"))
    assert (memory.named("GET /healthz"), memory.named("GET /readyz"), memory.named("GET")) == ([], [], [])
