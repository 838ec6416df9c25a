"""`opstream webhooks` as a process: it is killed, with its broker, during its work, and it reloads its file."""

from __future__ import annotations

import asyncio
import re
import signal
from functools import partial
from pathlib import Path

import msgspec
import pytest

from opstream_journal import Connection, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.webhook_delivery import DeliveryAttempt, DeliveryOutcome
from opstream_webhooks.receiver_limits import SLOTS_PER_RECEIVER
from tests.support.broker.server import Broker
from tests.support.cli.terminal import Terminal
from tests.support.journal.journals import KIND, linked, opened
from tests.support.system.echo_actions import MODULE
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import SECRET, answer, never, receiving
from tests.support.webhooks.service import callbacks, delivering, ended, outcomes, records, utc_now, write_hooks

pytestmark = pytest.mark.e2e

READY = "endpoints: "
COUNT = 12
PROCESSES = ("hub", "runner")


def environment(pid: int) -> bytes:
    """The environment that a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_kills_lose_nothing(tmp_path: Path) -> None:
    """SIGKILL the service while receivers hold its requests, and the broker while deliveries wait for another attempt:
    each succeeds in the end, always under the same id, and the records say so."""
    with Broker() as broker:
        options = ("--nats", broker.url, "--callback-secret", SECRET, "--allow-http", "--allow-private", "127.0.0.0/8")
        options += ("--log-level", "debug")
        async with linked(broker.url) as link, receiving() as receiver:
            await provision(link, Sizing())
            journal = await opened(link)
            receiver.answers = [answer(204), never]  # without a success a new host gets one attempt at a time
            command = ("webhooks", *options, "--callback-host", receiver.host)
            with Process(*command) as first:
                first.wait_for(READY)
                for number in range(COUNT):
                    await ended(journal, f"op-{number}", callback=receiver.url)
                # Wait until all are read: an unread one would get a response that is meant for the second process.
                await eventually(lambda: receiver.open == SLOTS_PER_RECEIVER == len(receiver.received) - 1)
                first.send(signal.SIGKILL)
                first.wait(5)
            receiver.answers = [*[answer(500)] * 3, answer(204)]
            with Process(*command) as second:
                second.wait_for(READY)
                await eventually(lambda: _has(link, "retrying", 3), within=20)
                broker.kill()
                broker.start()
                await eventually(lambda: _are_delivered(link), within=25, poll=0.2)
                second.send(signal.SIGTERM)
                assert second.wait(10) == 0
                assert "Traceback" not in second.output
            for number in range(COUNT):
                assert len({one.webhook_id for one in receiver.of(f"op-{number}")}) == 1
            shown = run("deliveries", "--nats", broker.url, "op-1")
            assert {msgspec.json.decode(line)["operationId"] for line in shown.stdout.splitlines()} == {"op-1"}
            failed = run("deliveries", "--nats", broker.url, "--failed")
            assert {msgspec.json.decode(line)["outcome"] for line in failed.stdout.splitlines()} == {"retrying"}
            with Terminal("deliveries", "--nats", broker.url, "op-1") as terminal:
                assert terminal.wait(10) == 0
                heading, *rest = re.sub(r"\x1b\[\d*m", "", terminal.output).splitlines()
            assert heading.split() == ["began", "(UTC)", "endpoint", "try", "outcome"]
            assert all(len(line) < 80 for line in rest)
            assert SECRET not in second.output + first.output
            assert "token=abc" not in second.output + first.output


async def test_a_signal_reloads_the_file(tmp_path: Path) -> None:
    """SIGHUP reloads the file, and a broken file changes nothing."""
    with Broker() as broker:
        async with linked(broker.url) as link, receiving() as receiver:
            await provision(link, Sizing())
            journal = await opened(link)
            path = write_hooks(tmp_path)
            command = ("webhooks", "--nats", broker.url, "--config", str(path), "--allow-http")
            with Process(*command, "--allow-private", "127.0.0.1/32") as service:
                service.wait_for("endpoints: none; callbacks to: none")
                write_hooks(tmp_path, late=receiver.url)
                service.send(signal.SIGHUP)
                service.wait_for(r"endpoints: late \(http://127")
                path.write_text("broken")
                service.send(signal.SIGHUP)
                service.wait_for("the endpoints are not changed: .* is not TOML")
                await ended(journal, "a")
                await eventually(lambda: receiver.received)
                service.send(signal.SIGTERM)
                assert service.wait(10) == 0


async def test_redeliver() -> None:
    """`opstream redeliver` delivers what was given up, and what waits for its next attempt, at once and once, under the
    same id, but not what succeeded. It reports expired events with exit status 1."""
    with Broker() as broker:
        async with linked(broker.url) as link, receiving() as receiver:
            await provision(link, Sizing())
            journal = await opened(link)
            command = ("redeliver", "--nats", broker.url)
            receiver.answers = [answer(204), answer(410), answer(500), answer(204)]
            async with delivering(link, callbacks(receiver.host), delays=(600,)):
                for number, outcome in enumerate(("delivered", "gave-up", "retrying"), start=1):
                    await ended(journal, f"op-{number}", callback=receiver.url)
                    await eventually(partial(_has, link, outcome, 1))
                again = await asyncio.to_thread(run, *command, "--endpoint", "callback")
                assert (again.returncode, again.stderr) == (0, "")
                assert again.stdout.splitlines() == ["op-2 callback: sent again", "op-3 callback: sent again"]
                await eventually(lambda: _has(link, "delivered", 3))
                nothing = await asyncio.to_thread(run, *command, "op-1", "op-2", "op-2")
                assert (nothing.returncode, nothing.stdout) == (0, "")
                assert "no failed delivery is recorded there" in nothing.stderr
                # The attempt that op-3 was waiting for is not made in addition.
                await eventually(lambda: _is_queue_empty(link))
            first, second = receiver.of("op-2")
            assert first.webhook_id == second.webhook_id
            assert (len(receiver.of("op-1")), len(receiver.of("op-3"))) == (1, 2)
            (record,) = [one for one in await records(link, "op-2") if one.outcome == "gave-up"]
            await DeliveryStore(link).record(msgspec.structs.replace(record, operation_id="forgotten"))
            lost = await asyncio.to_thread(run, *command, "forgotten")
            assert lost.returncode == 1
            assert "forgotten callback: its events have expired" in lost.stderr
            assert "opstream: error: 1 of 1 can't be sent again" in lost.stderr


async def test_nothing_to_show() -> None:
    """If no attempt is recorded, the command says so in one line on a terminal."""
    with Broker() as broker:
        async with linked(broker.url) as link:
            await provision(link, Sizing())
        with Terminal("deliveries", "--nats", broker.url, "--failed") as terminal:
            assert terminal.wait(10) == 0
            assert terminal.output.splitlines() == [
                "opstream: no attempt to deliver an outcome failed in the last 30 days"
            ]


async def test_a_request_can_t_steer_the_terminal() -> None:
    """`opstream redeliver` prints a foreign request's type without its control characters."""
    with Broker() as broker:
        async with linked(broker.url) as link:
            await provision(link, Sizing())
            journal = await opened(link)
            operation = await ended(journal, "op", callback="http://a.example/")
            attempt = DeliveryAttempt(
                operation_id="op",
                action=str(KIND),
                event="succeeded",
                endpoint="callback",
                attempt=1,
                at=utc_now(),
                duration=0.1,
                outcome=DeliveryOutcome.GAVE_UP,
            )
            await DeliveryStore(link).record(attempt)
            subject = subjects.event_subject("op", KIND, "requested")
            stored = await rpc.get_last(link, subjects.OPERATIONS_STREAM, subject)
            assert stored is not None
            foreign = stored.data.replace(b"requested.v1", b"\\u001b[2Jrequested.v9")
            await rpc.publish(link, subject, foreign, {})
        with Terminal("redeliver", "--nats", broker.url, operation.id) as terminal:
            assert terminal.wait(10) == 1
            assert "unknown to this version" in terminal.output
            assert "\x1b" not in terminal.output


async def test_up_runs_it_too(workplace: Path) -> None:
    """`opstream up` passes the options to the hub, and the secret by the environment, and only to the hub: users'
    actions run in another process."""
    async with receiving() as receiver:
        options = ("--callback-host", receiver.host, "--allow-http", "--allow-private", "127.0.0.1/32")
        given = ("--callback-secret", SECRET, "--webhooks-config", str(write_hooks(workplace, all=receiver.url)))
        ports = ("--port", "0", "--nats-port", "0", "--data-dir", "data")
        with Process("up", *ports, "--actions", MODULE, *options, *given, cwd=workplace) as up:
            ready = await asyncio.to_thread(up.wait_for, r"^opstream is ready: API (\S+), broker (\S+)$")
            assert all(SECRET not in line for line in up.descendants().values())
            has_secret = {name: SECRET.encode() in environment(up.child(f"-m opstream {name} ")) for name in PROCESSES}
            assert has_secret == {"hub": True, "runner": False}
            asking = ("run", "echo/1:say", "--input", '{"text": "hello"}', "--detach", "--url", ready[1])
            asked = await asyncio.to_thread(run, *asking, "--operation-id", "asked", "--callback", receiver.url)
            assert asked.returncode == 0, asked.stderr
            await eventually(lambda: len(receiver.received) == 2, within=15)
            assert {one.verified()["subject"] for one in receiver.received} == {"asked"}
            up.send(signal.SIGTERM)
            assert up.wait(20) == 0


async def _is_queue_empty(link: Connection) -> bool:
    """Return True if no delivery waits for an attempt."""
    return (await link.nc.jetstream().stream_info(subjects.WEBHOOKS_STREAM)).state.messages == 0


async def _are_delivered(link: Connection) -> bool:
    """Return True if each operation has a successful attempt; some may have two, so a count would be wrong."""
    try:
        delivered = {one.operation_id for one in await records(link) if one.outcome == "delivered"}
    except JournalUnavailable:
        return False
    return delivered == {f"op-{number}" for number in range(COUNT)}


async def _has(link: Connection, outcome: str, count: int) -> bool:
    try:
        return (await outcomes(link)).count(outcome) >= count
    except JournalUnavailable:
        return False  # the broker is starting
