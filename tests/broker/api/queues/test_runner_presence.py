"""Submits of an action that no runner takes: accepted, and warned about in the API's log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from opstream_api.queues import runner_presence
from opstream_journal import Connection, Journal, announce_action
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_schemas.names import Kind
from tests.support.api.service import UPLOAD, Api, serving
from tests.support.broker.server import Broker
from tests.support.runner.stage import HandlerGate, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

BODY: dict[str, str] = {}
OFFERED = gated(HandlerGate())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A check with each submit, and a second look at once."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(runner_presence, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(runner_presence, "SECOND_LOOK", 0.01)


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service that knows one action, whose consumer its runner has left behind."""
    await announce_action(link, OFFERED.spec)
    await ensure_runner_consumer(link, OFFERED.spec)
    async with serving(broker.url) as api:
        yield api


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of the lines about runners."""
    return [(one.levelno, one.getMessage()) for one in caplog.records if one.name == runner_presence.__name__]


async def test_without_a_runner(api: Api, link: Connection, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """Submits without a living runner are accepted, with one warning for all of them that says what to do; once a
    runner has come, a line says so."""
    for _ in range(5):
        assert (await api.submit(body=BODY)).status_code == 202
    await eventually(lambda: lines(caplog))
    ((level, text),) = lines(caplog)
    assert level == logging.WARNING
    assert text.startswith(f"{UPLOAD} is submitted, and no runner takes it: its operations (")
    assert "'opstream runner --actions …'" in text
    gate = HandlerGate()
    gate.open()
    stage = RunnerStage(link, journal)
    async with stage.runner([gated(gate)]):

        async def is_noted() -> bool:
            assert (await api.submit(body=BODY)).status_code == 202
            return (logging.INFO, f"a runner takes {UPLOAD}") in [
                (level, line.partition(",")[0]) for level, line in lines(caplog)
            ]

        await eventually(is_noted)
    assert len(lines(caplog)) == 2


async def test_with_a_runner(
    api: Api, link: Connection, journal: Journal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a runner there is no warning, neither while it waits nor while all its slots are taken."""
    looks: list[Kind] = []
    count = runner_presence.RunnerPresence._count_untaken

    async def counted(self: runner_presence.RunnerPresence, kind: Kind, *, is_fresh: bool) -> int | None:
        untaken = await count(self, kind, is_fresh=is_fresh)
        looks.append(kind)
        return untaken

    monkeypatch.setattr(runner_presence.RunnerPresence, "_count_untaken", counted)
    gate = HandlerGate()
    async with RunnerStage(link, journal).runner([gated(gate)], concurrency=1):
        assert (await api.submit(body=BODY)).status_code == 202
        await gate.entered(1)
        await eventually(lambda: len(looks) == 1)
        assert (await api.submit(body=BODY)).status_code == 202
        await eventually(lambda: len(looks) == 2)
        gate.open()
    assert lines(caplog) == []


async def test_how_often_it_looks(
    api: Api, link: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker is asked once in a period for each action, however many submits there are."""
    monkeypatch.setattr(runner_presence, "CHECK_INTERVAL", 3600.0)
    asked: list[str] = []
    call = rpc.call

    async def noted(connection: Connection, subject: str, *args: object, **options: object) -> object:
        asked.append(subject)
        return await call(connection, subject, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rpc, "call", noted)
    for _ in range(20):
        assert (await api.submit(body=BODY)).status_code == 202
    await eventually(lambda: lines(caplog))
    assert sum("CONSUMER.INFO" in subject for subject in asked) == 2
