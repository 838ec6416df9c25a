"""All actions at one moment, and `opstream actions`, which shows them: real runners, real queues."""

from __future__ import annotations

import asyncio
import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from opstream.cli.commands.actions import table_row
from opstream_journal import Connection, Journal
from opstream_journal.actions.action_overview import ActionOverview
from opstream_journal.jetstream import rpc
from opstream_journal.stores.action_catalog import overview
from opstream_projector.queues.queue_gauges import QueueGauges
from opstream_schemas.logs.access_log import ActRecord, decode_access_record
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND
from tests.support.runner.stage import HandlerGate, RunnerStage, gated
from tests.support.system.processes import COMMAND, environment
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def only(link: Connection) -> ActionOverview:
    """Return the only action."""
    (found,) = await overview(link)
    return found


async def test_runners_and_what_waits(link: Connection, journal: Journal) -> None:
    """It has each runner with its slots, and what waits for which reason; after the last one, when that was there."""
    stage, gate = RunnerStage(link, journal), HandlerGate()
    before = datetime.now(UTC).replace(microsecond=0)
    assert await overview(link) == []
    async with stage.runner([gated(gate)], concurrency=1):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request("op-2", "op-3")

        async def is_there() -> Any:
            found = await only(link)
            return found if found.runners and found.waiting else None

        found = await eventually(is_there)
        assert (found.action, found.version) == (str(KIND), 1)
        assert [(one.runner, one.slots, one.pid) for one in found.runners] == [("runner-1", 1, os.getpid())]
        assert [(one.reason, one.number) for one in found.waiting] == [("FreeRunner", 2)]
        gate.open()
        for one in ("op-2", "op-3"):
            await stage.ended(one)
    await stage.request("op-4")
    found = await only(link)
    assert (found.runners, [(one.reason, one.number) for one in found.waiting]) == ((), [("Runner", 1)])
    assert found.last_runner_at is not None
    assert before <= found.last_runner_at <= datetime.now(UTC) + timedelta(seconds=1)


async def test_a_killed_runner_is_none_for_the_metrics(
    link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message stays with it as far as the broker knows; its record has gone, so what waits, waits for a runner."""
    stage, gate = RunnerStage(link, journal), HandlerGate()
    gauges = QueueGauges(link)
    await gauges.start()
    async with stage.runner([gated(gate)], concurrency=1):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request("op-2")
        await gauges.refresh_catalog()

        async def reasons() -> set[str]:
            await gauges.read()
            return {reason for (_, reason), wait in gauges.waits.items() if wait.number}

        assert await reasons() == {"FreeRunner"}
        # No runner pulls, since its only slot is taken: for the broker this is what a kill looks like, but for the
        # record, which is too old from now on.
        monkeypatch.setattr("opstream_journal.queues.runner_records.LIFETIME", -60.0)
        assert await reasons() == {"Runner"}
        gate.open()
    await gauges.stop()


async def test_the_command(broker: Broker, link: Connection, journal: Journal) -> None:
    """It prints one JSON object for each action, and without one it says what to do."""
    command = [*COMMAND, "actions", "--nats", broker.url]

    async def run() -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, env=environment(), timeout=60, check=False
        )

    bare = await run()
    assert (bare.returncode, bare.stdout) == (0, "")
    assert "no runner has announced an action: 'opstream runner --actions …' does" in bare.stderr
    async with RunnerStage(link, journal).runner([gated(HandlerGate())]):
        shown = await run()
    assert (shown.returncode, shown.stderr) == (0, "")
    (line,) = shown.stdout.splitlines()
    found = msgspec.json.decode(line, type=ActionOverview)
    assert (found.action, found.version, len(found.runners)) == (str(KIND), 1, 1)


async def test_pause_and_resume_by_command(broker: Broker, link: Connection, journal: Journal) -> None:
    """It pauses an action at the broker, without an API; the list shows it, with who and why, and so does the access
    log. What it can't do it says, with the next step."""
    nats = ("--nats", broker.url)

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "actions", *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, env=environment(), timeout=60, check=False
        )

    unknown = await run("pause", str(KIND), *nats)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert f"no runner has ever announced {KIND}" in unknown.stderr
    async with RunnerStage(link, journal).runner([gated(HandlerGate())]):
        paused = await run("pause", str(KIND), "--for", "2h", "--reason", "moving", *nats)
        assert (paused.returncode, paused.stderr) == (0, "")
        assert paused.stdout.startswith(f"{KIND} is paused until 20")
        shown = (await only(link)).paused
        assert shown is not None
        assert (shown.reason, "@" in shown.by) == ("moving", True)
        assert shown.since is not None
        assert shown.until == shown.since + timedelta(hours=2)
        listed = msgspec.json.decode((await run(*nats)).stdout, type=ActionOverview)
        assert listed.paused == shown
        resumed = await run("resume", str(KIND), *nats)
        assert (resumed.returncode, resumed.stderr) == (0, "")
        assert (await only(link)).paused is None
    for act, detail in (("paused", "moving"), ("resumed", "")):
        stored = await rpc.get_last(link, "ACCESS_LOG", f"access_log.act.{act}")
        assert stored is not None
        record = decode_access_record(stored.data)
        assert isinstance(record, ActRecord)
        assert (record.target, record.detail, record.by) == (str(KIND), detail, shown.by)

    async def withdrawn() -> subprocess.CompletedProcess[str] | None:
        done = await run("withdraw", str(KIND), "--reason", "wrong", *nats)
        return None if done.returncode else done

    done = await eventually(withdrawn, within=30)  # once the pull of the runner that has gone counts no more
    assert done is not None
    assert done.stdout.startswith(f"{KIND} version 1 is withdrawn")
    assert await overview(link) == []
    assert (await run("withdraw", str(KIND), *nats)).returncode == 1
    misplaced = await run(*nats, "pause", str(KIND))
    assert (misplaced.returncode, misplaced.stdout) == (2, "")
    assert "unexpected extra arguments" in misplaced.stderr


async def test_the_queues_of_priorities(link: Connection, journal: Journal) -> None:
    """An action with priorities shows what waits in each queue, also on the page of metrics; any other shows none."""
    stage, gate = RunnerStage(link, journal), HandlerGate()
    gauges = QueueGauges(link)
    await gauges.start()
    async with stage.runner([gated(gate, priority="normal")], concurrency=1):
        await stage.request_with("normal", "running")
        await gate.entered(1)
        await stage.request_with("high", "op-1", "op-2", "op-3")
        await stage.request_with("normal", "op-4")

        async def is_there() -> Any:
            found = await only(link)
            return found if found.queues and [one.number for one in found.queues] == [3, 4, 0] else None

        found = await eventually(is_there)
        assert [one.priority for one in found.queues] == ["high", "normal", "low"]
        # All of them are in the first queue; those of high priority are in another one besides, and count once.
        assert [(one.reason, one.number) for one in found.waiting] == [("FreeRunner", 4)]
        await gauges.read()
        queued = next(one for one in gauges.instruments if one.name == "opstream_queued")
        numbers = {sample.labels[1]: sample.value for sample in queued.samples()}
        assert numbers == {"high": 3, "normal": 4, "low": 0}
        line = table_row(found, datetime.now(UTC), has_colour=False, width=None)
        assert line.endswith("4 for FreeRunner; 3 high; 4 normal")
        gate.open()
        for one in ("op-1", "op-2", "op-3", "op-4"):
            await stage.ended(one)
    async with stage.runner([gated(gate)]):
        assert "queues" not in msgspec.to_builtins(await only(link))
