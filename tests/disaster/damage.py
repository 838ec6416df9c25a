"""Disasters of the disk's content: bytes of the journal flip, or its end is cut off.

On one broker, events are really gone then. opstream must say so, and destroy no copy; an operator restores a backup, as
docs/running.md asks. On one server of three nothing is gone; an operator empties that server's store.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import ClassVar, Final

import httpx
import msgspec

from opstream_schemas import subjects
from tests.disaster.cluster import CATCHING_UP
from tests.disaster.deletion import jetstream
from tests.disaster.scenario import Scenario
from tests.disaster.stage import Stage
from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.chaos.state import FinalState, _bucket, gather_quiet
from tests.support.system.wait import eventually

SETBACK: Final = 3
"""Exit status of `opstream verify` and `opstream rebuild` when the journal has lost events."""
_EXPORT: Final = "lost.jsonl"
_COPY: Final = "backup"
_LEAD: Final = 20.0


class LostEntry(msgspec.Struct, rename="camel"):
    """A line of what `opstream rebuild --export` writes."""

    operation_id: str


class Damage(Scenario):
    """The journal's files are damaged."""

    is_cut: ClassVar[bool]
    """True to cut off the end, false to flip eight bytes."""
    has_index: ClassVar[bool]
    """True if the broker ended cleanly, so that its index is in place; false if it has to read the block."""

    def damage(self, stage: Stage, files: StreamFiles) -> None:
        """Damage the last block somewhere in its second half; the broker is down."""
        block = files.blocks[-1]
        size = block.stat().st_size
        place = stage.random.randrange(size // 2, size * 9 // 10)
        if self.is_cut:
            files.truncate(block, size=place)
            done = f"{size - place:,} of {size:,} bytes are cut off"
        else:
            files.flip(block, offset=place)
            done = f"eight bytes at {place:,} of {size:,} are flipped"
        if not self.has_index:
            files.remove_index()
        stage.say(f"{done}; the index is {'in place' if self.has_index else 'gone'}")


class JournalDamage(Damage):
    """The only copy of the journal is damaged; the operator restores the last backup."""

    async def play(self, stage: Stage) -> None:
        async with stage.load():
            await stage.work()
        await stage.left()
        stage.operator("back up by copy, as every night")
        await stage.system.restart_broker(lambda: shutil.copytree(stage.system.store, stage.folder / _COPY))
        before_backup = set(stage.told)
        async with stage.load():
            await stage.work()
        before = await stage.left()
        await stage.system.restart_broker(lambda: self.damage(stage, stage.system.files(subjects.OPERATIONS_STREAM)))
        await self.is_said(stage)
        await self.is_kept(stage, before)
        await self.restore(stage)
        stage.gone = set(stage.told) - before_backup
        async with stage.load(), stage.struck():
            stage.say("clients work on")
        await stage.check()

    @property
    def is_one_message(self) -> bool:
        """True if the broker goes on as if nothing had happened, but for one message."""
        return self.has_index and not self.is_cut

    async def is_said(self, stage: Stage) -> None:
        """Check that services, `opstream verify` and `opstream rebuild` say that events are gone.

        With flipped bytes below an index only one message can't be read. It may be a timer's, so only `verify`, which
        reads everything, must say so.
        """
        if self.is_one_message:
            await stage.run("verify", status=SETBACK)
            await stage.run("rebuild", "--export", _EXPORT, status=None)
            return

        async def is_ready() -> bool:
            _, text = await stage.system.readiness("projector")
            return "JournalSetback" in text

        await stage.notice(is_ready, "/readyz of the projector does not say that the journal has lost events")
        await stage.run("verify", status=SETBACK)
        await stage.run("rebuild", "--export", _EXPORT, status=SETBACK)

    async def is_kept(self, stage: Stage, before: FinalState) -> None:
        """Check that no copy is destroyed: the view is what it was, its ends are readable, and the export has them."""
        if self.is_one_message:  # a reader of the journal stops there
            async with jetstream(stage) as broker:
                kept = await _bucket(broker._nc, subjects.VIEW_BUCKET)
            present = before.evidence.histories().keys()
        else:
            after = await gather_quiet(stage.system.nats, within=1.0)
            kept, present = after.evidence.view, after.evidence.histories().keys()
        changed = [one for one, entry in before.evidence.view.items() if kept.get(one) != entry]
        stage.expect(not changed, f"{len(changed)} entries of the view were changed: {changed[:3]}")
        for one in await self._went_back(stage):
            stage.breach(one)
        missing = before.evidence.histories().keys() - present
        exported = self._exported(stage.folder / _EXPORT)
        stage.say(f"{len(missing)} operations are not in the journal any more; {len(exported)} are exported")
        stage.expect(missing <= exported, f"not exported: {sorted(missing - exported)[:3]}")

    async def _went_back(self, stage: Stage) -> list[str]:
        """Statuses that differ from the last ones that clients saw."""
        found = []
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            for operation_id, view in stage.told.items():
                for api in stage.system.apis if view.is_accepted and view.seen else ():
                    response = await http.get(f"{api}/status/{operation_id}")
                    if response.status_code != 200 or response.json() != view.seen[-1]:
                        found.append(f"{operation_id} was {view.seen[-1]}, is {response.status_code} {response.text}")
        return found

    async def restore(self, stage: Stage) -> None:
        """Put the backup back."""
        stage.operator("stop the services and the broker, put the backup's folder back, start them")
        names = (*stage.system.names, "witness")
        stage.system.held |= set(names)
        for name in names:
            await stage.system.stop(name)

        def put_back() -> None:
            shutil.move(stage.system.store, stage.folder / "damaged")
            shutil.copytree(stage.folder / _COPY, stage.system.store)

        await stage.system.restart_broker(put_back)
        await stage.system.settle()
        await stage.run("verify")

    @staticmethod
    def _exported(path: Path) -> set[str]:
        lines = path.read_bytes().splitlines() if path.exists() else []
        return {msgspec.json.decode(line, type=LostEntry).operation_id for line in lines}


class FlippedBytes(JournalDamage):
    """Eight bytes of the only copy of the journal flip, and the index is gone: the rest of the block is lost."""

    name = "damage-flip"
    is_cut, has_index = False, False


class FlippedBytesIndexed(JournalDamage):
    """Eight bytes of the only copy of the journal flip, with the index in place: one event can't be read."""

    name = "damage-flip-indexed"
    is_cut, has_index = False, True


class CutBlock(JournalDamage):
    """The end of the only copy of the journal is cut off, and the index is gone."""

    name = "damage-cut"
    is_cut, has_index = True, False


class CutBlockIndexed(JournalDamage):
    """The end of the only copy of the journal is cut off, with the index in place."""

    name = "damage-cut-indexed"
    is_cut, has_index = True, True


class ReplicaDamage(Damage):
    """One of three copies of the journal is damaged."""

    has_cluster = True

    def __init__(self) -> None:
        self.node: Broker | None = None

    async def strike(self, stage: Stage) -> None:
        self.node = node = stage.victim()
        await asyncio.to_thread(node.stop if self.has_index else node.kill)
        self.damage(stage, StreamFiles(node.store, subjects.OPERATIONS_STREAM))
        node.start(wait=False)
        await asyncio.to_thread(stage.cluster.wait_healthy, CATCHING_UP)
        stage.say(f"{node.name} is back")
        await stage.work()

    async def recover(self, stage: Stage) -> None:
        assert self.node is not None
        node = self.node
        stage.operator("stop the server with the damaged disk, empty its store, start it")
        await asyncio.to_thread(node.stop)
        shutil.rmtree(node.store)
        node.start(wait=False)
        await asyncio.to_thread(stage.cluster.wait_healthy, CATCHING_UP)
        await lead(stage, node)

    async def play(self, stage: Stage) -> None:
        await super().play(stage)
        leader = await stage.cluster.leader(subjects.OPERATIONS_STREAM)
        stage.say(f"checked with {leader.name} as the leader")


async def lead(stage: Stage, node: Broker) -> None:
    """Make a node the leader of the journal, so that all reads of it are answered by its copy."""

    async def leads() -> bool:
        if await stage.cluster.leader(subjects.OPERATIONS_STREAM) is node:
            return True
        async with jetstream(stage) as broker:
            request = msgspec.json.encode({"placement": {"preferred": node.name}})
            name = f"$JS.API.STREAM.LEADER.STEPDOWN.{subjects.OPERATIONS_STREAM}"
            await broker._nc.request(name, request, timeout=5)
        return False

    await eventually(leads, within=_LEAD, poll=0.5)
    stage.say(f"{node.name} leads the journal now")


class ReplicaFlip(ReplicaDamage):
    """Eight bytes of one of three copies of the journal flip, and that server's index is gone."""

    name = "replica-flip"
    is_cut, has_index = False, False


class ReplicaFlipIndexed(ReplicaDamage):
    """Eight bytes of one of three copies of the journal flip, with that server's index in place."""

    name = "replica-flip-indexed"
    is_cut, has_index = False, True


class ReplicaCut(ReplicaDamage):
    """The end of one of three copies of the journal is cut off, and that server's index is gone."""

    name = "replica-cut"
    is_cut, has_index = True, False


class ReplicaCutIndexed(ReplicaDamage):
    """The end of one of three copies of the journal is cut off, with that server's index in place."""

    name = "replica-cut-indexed"
    is_cut, has_index = True, True
