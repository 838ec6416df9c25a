"""Everything is lost: all processes are killed, and all disks of the broker emptied. A backup brings back what it has.

The backup was made under load, so it has operations that run, that wait for a retry, a lock or a slot of a rate, and
that have a delivery under way. What came after it is gone.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from typing import ClassVar, Final

import httpx
import msgspec

from opstream_journal import connect
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from tests.disaster.cluster import CATCHING_UP
from tests.disaster.scenario import Scenario
from tests.disaster.stage import Stage
from tests.support.chaos.checks import _exclusions
from tests.support.disaster.system import WITNESS
from tests.support.system.invariants import breaches
from tests.support.system.processes import run
from tests.support.system.services import BROKER
from tests.support.system.wait import eventually

_ENDS: Final = frozenset({"succeeded", "failed", "canceled"})
_BACKUPS: Final = "backups"
_KEY: Final = "journal.key"
_LOOKS: Final = 5
"""Each waits for 20 seconds at most until all have ended."""
_DELIVERED: Final = 90.0


class Backed(msgspec.Struct):
    """What the restored journal has, before any service runs."""

    all: set[str]
    ended: set[str]
    patient: set[str]
    """What runs until a client cancels it."""

    @property
    def open(self) -> set[str]:
        """The operations without an end."""
        return self.all - self.ended


class LostStore(Scenario):
    """A backup is made under load, all processes are killed, and the broker's disk is emptied."""

    name = "lost-store"
    has_webhooks = True
    options: ClassVar[tuple[str, ...]] = ()
    """Of the restore."""

    async def play(self, stage: Stage) -> None:
        stage.has_spare_timers = True  # the restore arms the deadlines of all that is open, also if it ends at once
        public = stage.folder / "journal.pub"
        public.write_text(run("keygen", str(stage.folder / _KEY)).stdout)
        async with stage.load():
            await stage.work()
            printed = await stage.run("backup", _BACKUPS, "--sign", _KEY)
            await stage.work()
        folder = next(line for line in printed.splitlines() if line.startswith(_BACKUPS))
        self.destroy(stage)
        await self.start_broker(stage)
        stage.is_restored = True
        await stage.run("restore", folder, "--key", public.name, *self.options)
        backed = await self.read_backed(stage)
        stage.say(f"the backup has {len(backed.all)} operations, {len(backed.open)} of them open")
        stage.expect(backed.open, "no operation was open in the backup: this proves little")
        await stage.system.settle()
        await self.cancel_patient(stage, backed)
        await self.check_backed(stage, backed)
        # What was open in the backup went on twice, once before and once after: clients saw the first time.
        stage.gone = set(stage.told) - backed.ended
        async with stage.load():
            await stage.work()
        await stage.check()

    def destroy(self, stage: Stage) -> None:
        """Kill everything, and empty all disks."""
        for name in (*stage.system.names, WITNESS):
            stage.system.kill(name)
        stage.system.kill(BROKER)
        shutil.rmtree(stage.system.store)
        stage.say("all is lost")

    async def start_broker(self, stage: Stage) -> None:
        """Start the broker on an empty disk."""
        stage.operator("start the broker on an empty disk")
        stage.system.start(BROKER)
        await stage.system.ready(BROKER)

    async def read_backed(self, stage: Stage) -> Backed:
        """Read the restored journal."""
        found = Backed(set(), set(), set())
        connection = await connect([stage.system.nats], "test", connect_timeout=10)
        try:
            bounds = await stream_bounds(connection, subjects.OPERATIONS_STREAM)
            async for batch in scan_stream(
                connection, subjects.OPERATIONS_STREAM, first=bounds.first, last=bounds.last
            ):
                for event in _events(message.subject for message in batch):
                    found.all.add(event.operation_id)
                    if event.event in _ENDS:
                        found.ended.add(event.operation_id)
                    if event.kind.action == "patient":
                        found.patient.add(event.operation_id)
        finally:
            await connection.close()
        return found

    async def cancel_patient(self, stage: Stage, backed: Backed) -> None:
        """Ask once more to cancel what runs for ever: the backup may be older than the client's request."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            for operation_id in sorted(backed.open & backed.patient):
                answer = await http.post(
                    f"{stage.system.apis[0]}/status/{operation_id}:cancel", json={"reason": "again"}
                )
                is_done = answer.status_code == 200 or answer.json()["error"]["code"] == "OperationFinished"
                stage.expect(is_done, f"cancel of {operation_id}: {answer.status_code} {answer.text}")

    async def check_backed(self, stage: Stage, backed: Backed) -> None:
        """Check that every operation of the backup ends once, had its resource alone, and is delivered."""
        left = await stage.left()
        for _ in range(_LOOKS):
            if not left.open:
                break
            left = await stage.left()
        missing = backed.all - left.operations.keys()
        stage.expect(not missing, f"{len(missing)} operations of the backup are not there: {sorted(missing)[:5]}")
        for one in left.open:
            stage.breach(f"{one}: it was in the backup, and has not ended")
        left.evidence.is_restored = stage.is_restored
        stage.result.breaches += [*breaches(left.evidence), *_exclusions(left, [])]
        assert stage.receiver is not None
        receiver = stage.receiver

        def undelivered() -> set[str]:
            return backed.all - {msgspec.json.decode(one.body)["subject"] for one in receiver.received}

        try:
            await eventually(lambda: not undelivered(), within=_DELIVERED, poll=0.2)
        except AssertionError:
            stage.breach(f"webhooks never delivered {len(undelivered())} ends: {sorted(undelivered())[:5]}")


class LostCluster(LostStore):
    """The same with three servers, which all lose their disks; the backup is restored to all three."""

    name = "lost-cluster"
    has_cluster = True

    def destroy(self, stage: Stage) -> None:
        for name in (*stage.system.names, WITNESS):
            stage.system.kill(name)
        for node in stage.cluster.nodes:
            node.kill()
            shutil.rmtree(node.store)
        stage.say("all is lost")

    async def start_broker(self, stage: Stage) -> None:
        stage.operator("start three servers on empty disks")
        for node in stage.cluster.nodes:
            node.start(wait=False)
        await asyncio.to_thread(stage.cluster.wait_healthy, CATCHING_UP)


def _events(found: Iterator[str]) -> Iterator[subjects.EventSubject]:
    for subject in found:
        try:
            yield subjects.parse_event_subject(subject)
        except InvalidName:
            continue  # a wake-up, or a deadline
