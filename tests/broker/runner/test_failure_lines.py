"""What the runner's log says about operations that fail, that are retried, and whose heartbeats fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from opstream_journal import Connection, Journal
from opstream_runner import Action, ActionContext, ActionError, RetryAfter, action
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND
from tests.support.runner.stage import HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


def raising(error: Callable[[], Exception], **options: Any) -> Action[..., Any]:
    """An action that always raises."""

    @action(str(KIND), **{"backoff": 0.01, "backoff_max": 0.01, **options})
    async def handler(request: Input, ctx: ActionContext) -> int:
        raise error()

    return handler


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What the runner has logged at a level about op-1, without tracebacks."""
    return [one.getMessage() for one in caplog.records if one.levelno == level and "op-1" in one.getMessage()]


async def failed(stage: RunnerStage, caplog: pytest.LogCaptureFixture, one: Action[..., Any]) -> Operation:
    """Run op-1 to its failure; the runner has stopped then."""
    caplog.set_level(logging.INFO)
    async with stage.runner([one]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert operation.status is Status.FAILED
    return operation


async def test_a_failure_that_the_author_meant(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """`ActionError` leaves one warning: the operation, its action, the attempt and the code. Its message, which may
    quote the input, is for the client only."""
    await failed(stage, caplog, raising(lambda: ActionError("OutOfStock", "there is none left", target="isbn")))
    (line,) = lines(caplog, logging.WARNING)
    assert line == "operation op-1 of book:upload-start failed in attempt 1: OutOfStock"
    assert "there is none left" not in caplog.text
    (record,) = [one for one in caplog.records if one.getMessage() == line]
    fields = vars(record)
    assert (fields["operationId"], fields["action"], fields["attempt"]) == ("op-1", "book:upload-start", 1)
    assert fields["code"] == "OutOfStock"


async def test_a_code_of_many_lines(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """A code is one line without control characters, cut to a length that a log can hold."""
    await failed(stage, caplog, raising(lambda: ActionError("A\n\x1b[2JB" + "é" * 100, "one")))
    (line,) = lines(caplog, logging.WARNING)
    assert line.startswith("operation op-1 of book:upload-start failed in attempt 1: A  [2JBé")
    assert line.isprintable()
    assert len(line.encode()) < 150
    assert line.endswith("…")


async def test_attempts_that_are_used_up(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is an INFO line with the error and the time of the next attempt, the last one a warning."""
    await failed(stage, caplog, raising(lambda: RetryAfter(0.01, "throttled"), max_attempts=3))
    retries = [line for line in lines(caplog, logging.INFO) if "the next follows" in line]
    assert [line.partition(";")[0] for line in retries] == [
        f"operation op-1 of book:upload-start: attempt {attempt} failed: 503" for attempt in (1, 2)
    ]
    (line,) = lines(caplog, logging.WARNING)
    assert line == "operation op-1 of book:upload-start failed in attempt 3: 503"


async def test_input_that_can_not_be_decoded(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """A request whose input is not the handler's leaves a warning with `InvalidInput`."""

    @action(str(KIND))
    async def handler(request: int, ctx: ActionContext) -> int:
        return request

    caplog.set_level(logging.INFO)
    async with stage.runner([handler]):
        await stage.request("op-1")
        await stage.ended("op-1")
        await stage.settled()
    (line,) = lines(caplog, logging.WARNING)
    assert line.startswith("operation op-1 of book:upload-start failed in attempt 1: InvalidInput")


async def test_a_deadline_that_passed_in_the_queue(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """An operation that fails before it could begin leaves a warning, too."""
    caplog.set_level(logging.INFO)
    await stage.request("op-1", deadline=-5.0)
    async with stage.runner([gated(HandlerGate())]):
        await stage.ended("op-1")
        await stage.settled()
    (line,) = lines(caplog, logging.WARNING)
    assert line.startswith("operation op-1 of book:upload-start failed before its first attempt: DeadlineExceeded: ")


async def test_an_operation_that_is_lost_with_its_runner(
    stage: RunnerStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner that finds the last attempt lost warns with `RunnerLost`."""

    async def die(*_: object) -> None:
        raise asyncio.CancelledError  # the dispatcher's task ends and sends nothing, as in a killed process

    monkeypatch.setattr("opstream_runner.attempt.attempt.Attempt.run", die)
    await failed(stage, caplog, gated(HandlerGate(), lease=1, max_attempts=1))
    (line,) = lines(caplog, logging.WARNING)
    assert line.startswith("operation op-1 of book:upload-start failed in attempt 1: RunnerLost: ")


async def test_a_message_of_ours(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """Where opstream wrote the message of the error, the line has it."""
    await failed(stage, caplog, raising(lambda: KeyError("card 4242"), max_attempts=1))
    (line,) = lines(caplog, logging.WARNING)
    assert line.startswith(
        "operation op-1 of book:upload-start failed in attempt 1: 500: the action ended with an unex"
    )
    assert "4242" not in line


async def test_an_operation_that_is_canceled(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """Its end is one line at INFO, of the runner that stopped it."""
    caplog.set_level(logging.INFO)
    gate = HandlerGate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request_cancel("op-1")
        assert (await stage.ended("op-1", within=20)).status is Status.CANCELED
        await stage.settled()
    found = [line for level in (logging.INFO, logging.WARNING) for line in lines(caplog, level) if "cancel" in line]
    assert found == ["operation op-1 of book:upload-start was canceled in attempt 1"]


async def test_no_line_for_what_succeeds(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """An operation that succeeds leaves no line at INFO or above."""
    gate = HandlerGate()
    gate.open()
    caplog.set_level(logging.INFO)
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await stage.ended("op-1")
        await stage.settled()
    assert not [line for level in (logging.INFO, logging.WARNING, logging.ERROR) for line in lines(caplog, level)]


async def test_a_lease_that_is_given_up(broker: Broker, stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """A lease that could not be verified in its time is given up with a warning, at once."""
    caplog.set_level(logging.INFO)
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=3.0)]):
        await stage.request("op-1")
        await gate.entered(1)
        broker.pause()
        try:
            await eventually(lambda: "a lease is given up" in caplog.text, within=20)
        finally:
            broker.resume()
        gate.open()
        await stage.ended("op-1", within=20)
    (line,) = [line for line in lines(caplog, logging.WARNING) if "given up" in line]
    assert "no heartbeat for 3" in line


async def test_heartbeats_that_work_again(broker: Broker, stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """An attempt whose heartbeats failed for less than its lease goes on, and says once that they work again."""
    caplog.set_level(logging.INFO)
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=12.0)]):
        await stage.request("op-1")
        await gate.entered(1)
        broker.pause()
        try:
            await eventually(lambda: "heartbeat fails" in caplog.text, within=20)
        finally:
            broker.resume()
        await eventually(lambda: "heartbeats work again" in caplog.text, within=20)
        gate.open()
        assert (await stage.ended("op-1")).attempt == 1
    assert len([line for line in lines(caplog, logging.WARNING) if "heartbeat" in line]) == 1
    assert len([one for one in caplog.records if one.getMessage().startswith("heartbeats work again, after")]) == 1


async def test_the_lines_of_many_leases(broker: Broker, stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that freezes for longer than the leases of five operations is one warning of each kind, with a cause."""
    caplog.set_level(logging.INFO)
    gate = HandlerGate()
    ids = [f"op-{number}" for number in range(1, 6)]
    async with stage.runner([gated(gate, lease=3.0)], concurrency=5) as runner:
        for one in ids:
            await stage.request(one)
        await gate.entered(5)
        (dispatcher,) = runner._dispatchers.values()
        broker.pause()
        try:
            await eventually(lambda: not dispatcher._attempts, within=30)
        finally:
            broker.resume()
        gate.open()
        for one in ids:
            await stage.ended(one, within=30)
    found = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len([line for line in found if line.startswith("a heartbeat fails: ")]) <= 1
    assert len([line for line in found if line.startswith("a lease is given up ")]) == 1
    assert not [line for line in found if "records no outcome" in line or line.rstrip().endswith(":")]
