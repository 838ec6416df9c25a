"""`opstream backup` on a real broker: what it copies, in which order, and what ends it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from opstream.backup import snapshot_transfer, stream_tail
from opstream.backup.backup import BackupMaker
from opstream.backup.backup_folder import PARTIAL, SUMS, NewBackup, check_backup
from opstream.backup.snapshot_transfer import SnapshotReceiver
from opstream.backup.stream_plan import JOURNAL, NEVER_COPIED, backup_order, required_streams, restore_order
from opstream.cli.app import main
from opstream.terminal.console import CommandError
from opstream.terminal.progress_bar import ProgressBar
from opstream_journal import Connection, Journal, JournalUnavailable, connect
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing, streams
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_schemas import subjects
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker
from tests.support.broker.torn_proxy import TornProxy
from tests.support.journal.populated_journal import populate
from tests.support.system.processes import COMMAND, Process, environment, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OPERATIONS = 24
HOLDS = subjects.bucket_stream(subjects.HOLDS_BUCKET)


async def backup(folder: Path, url: str) -> Result:
    """Run the command in this process, in a thread: much faster than a process of its own."""
    return await asyncio.to_thread(CliRunner().invoke, main, ["backup", str(folder), "--nats", url])


def modes(folder: Path) -> tuple[int, set[int]]:
    return folder.stat().st_mode & 0o777, {one.stat().st_mode & 0o777 for one in folder.iterdir()}


def sums_checked(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True, check=False)


def backup_with_little_room(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """A process that may write no file above 4 KiB: the error of a disk that is full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))

    return subprocess.run(
        [*COMMAND, "backup", str(folder), "--nats", url],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
    )


async def test_it_holds_every_stream(broker: Broker, link: Connection, journal: Journal, tmp_path: Path) -> None:
    """A backup is a folder of its own, private, with a manifest that says what each stream held, and sums that
    `sha256sum` checks; it is named on stdout."""
    await provision(link, Sizing(), archive=ArchiveSizing())
    events = await populate(journal, OPERATIONS)
    done = await backup(tmp_path / "backups", broker.url)
    assert done.exit_code == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent == tmp_path / "backups"
    assert modes(folder) == (0o700, {0o600})
    manifest = check_backup(folder)
    held = [stream.name for stream in manifest.streams]
    made = {str(one.name) for one in streams(Sizing())} - NEVER_COPIED
    assert {*held} == required_streams() | {subjects.ARCHIVE_STREAM} | made
    assert held == [planned.name for planned in backup_order() if planned.name in held]
    stream = manifest.stream(JOURNAL)
    assert (stream.first, stream.last, stream.messages) == (1, len(events), len(events))
    bulk = ("runner_operations_cancel", "runner_operations_retry")
    durables = {one["durable_name"] for one in stream.consumers}
    assert durables == {"projector", "projector_due", "projector_deadlines", "webhooks", *bulk}
    checked = sums_checked(folder)
    assert checked.returncode == 0, checked.stdout


async def test_a_second_one_overwrites_nothing(broker: Broker, link: Connection, tmp_path: Path) -> None:
    """What lies where the backup would go is refused and stays, whether it is whole or not."""
    for name in ("whole", f"begun{PARTIAL}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
        with pytest.raises(CommandError), NewBackup(tmp_path / name.removesuffix(PARTIAL)):
            pass
        assert (tmp_path / name / "mine").read_text() == "mine"


async def test_what_is_replaced_while_it_is_copied_is_in_the_tail(
    link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is written again while the broker sends the snapshot is in neither place of the snapshot; the tail
    has it."""
    monkeypatch.setattr(snapshot_transfer, "CHUNK", 1024)
    monkeypatch.setattr(snapshot_transfer, "WINDOW", 1024)
    rollup = {"Nats-Rollup": "sub"}
    for number in range(20):
        await rpc.publish(link, f"$KV.holds.filler{number}", os.urandom(2_000), rollup)
    await rpc.publish(link, "$KV.holds.late", b"before", rollup)
    chunks: list[bytes] = []
    receiver = SnapshotReceiver(link, HOLDS, chunks.append)
    take, replaced = receiver._take, False

    async def take_and_replace() -> bool:
        nonlocal replaced
        more = await take()
        if not replaced:
            replaced = True
            await rpc.publish(link, "$KV.holds.late", b"after", rollup)
        return more

    monkeypatch.setattr(receiver, "_take", take_and_replace)
    snapshot = await receiver.receive(has_consumers=False)
    assert len(chunks) > 20
    lines = [json.loads(line) async for line in stream_tail.read_tail(link, HOLDS, snapshot.last_sequence)]
    assert [line["subject"] for line in lines] == ["$KV.holds.late"]
    await admin.delete_message(link, HOLDS, 1)
    count = await stream_tail.replay_tail(link, [json.dumps(line).encode() for line in lines], can_roll_up=True)
    last = await rpc.get_last(link, HOLDS, "$KV.holds.late")
    assert last is not None
    assert (count, last.data) == (1, b"after")


async def test_a_missing_chunk_is_noticed(link: Connection, journal: Journal) -> None:
    """Chunks are numbered: a snapshot with a hole is never taken for a whole one."""
    await populate(journal, OPERATIONS)
    receiver = SnapshotReceiver(link, JOURNAL, lambda _: None)
    receiver._expected = 2
    chunk = b"x" * 7
    receiver._arrived.put_nowait(ReceivedMessage(link.nc, 1, b"i", b"$JS.SNAPSHOT.ACK.OPERATIONS.x.7.3", chunk, None))
    with pytest.raises(JournalUnavailable, match="missing"):
        await receiver._take()


async def test_a_consumer_that_goes_meanwhile(
    link: Connection, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that the broker ends with an error, as a cluster does if a consumer has gone, is begun again."""
    await populate(journal, OPERATIONS)
    check_end, ends = SnapshotReceiver._check_end, iter([b"NATS/1.0 500 failed to get consumer state\r\n\r\n"])

    def fail_once(self: SnapshotReceiver, message: ReceivedMessage) -> None:
        for block in ends:
            message = ReceivedMessage(link.nc, 1, b"i", b"", b"", block)
        check_end(self, message)

    monkeypatch.setattr(SnapshotReceiver, "_check_end", fail_once)
    with NewBackup(tmp_path / "one") as folder:
        maker = BackupMaker(link, folder, ProgressBar(sys.stderr, time.monotonic))
        folder.finish(await maker.run(), check=check_backup)
    assert check_backup(tmp_path / "one").stream(JOURNAL).messages > OPERATIONS


async def test_a_silent_broker_is_given_up(
    broker: Broker, link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that sends nothing more in the middle of a stream ends the copy, with the reason."""
    monkeypatch.setattr(snapshot_transfer, "CHUNK", 1024)
    monkeypatch.setattr(snapshot_transfer, "WINDOW", 1024)
    monkeypatch.setattr(snapshot_transfer, "SILENCE", 0.3)
    await populate(journal, OPERATIONS)
    async with Proxy(broker.port) as proxy:
        other = await connect([proxy.url], "test", connect_timeout=5)
        receiver = SnapshotReceiver(other, JOURNAL, lambda _: proxy.mute())
        with pytest.raises(JournalUnavailable, match="sent nothing of OPERATIONS"):
            await receiver.receive(has_consumers=True)
        proxy.unmute()
        await other.close()


async def test_a_broker_that_goes_away_ends_it(
    broker: Broker, link: Connection, journal: Journal, tmp_path: Path
) -> None:
    """The connection breaks in the middle: status 1, the reason, and nothing is left in the folder."""
    await populate(journal, 200)
    lengths = iter([12_000, *([10**9] * 100)])  # the first connection breaks amid the journal
    async with TornProxy(broker.port, lambda: next(lengths)) as proxy:
        done = await backup(tmp_path / "backups", proxy.url)
    assert done.exit_code == 1
    assert "Nothing of this backup was kept" in done.stderr
    assert "lost" in done.stderr or "connection" in done.stderr
    assert list((tmp_path / "backups").iterdir()) == []


async def test_killed_in_the_middle(broker: Broker, link: Connection, journal: Journal, tmp_path: Path) -> None:
    """What a killed backup has left is not taken for one, and does not stand in the way of the next."""
    await populate(journal, OPERATIONS)
    folder = tmp_path / "backups"
    broker.pause()
    with Process("backup", str(folder), "--nats", broker.url, cwd=tmp_path) as process:
        await eventually(lambda: list(folder.glob(f"*{PARTIAL}")), within=20)
        process.send(signal.SIGKILL)
        process.wait(10)
    broker.resume()
    (left,) = folder.iterdir()
    refused = run("restore", str(left), "--check", timeout=20)
    assert refused.returncode == 1
    assert "has not ended" in refused.stderr
    done = await backup(folder, broker.url)
    assert done.exit_code == 0, done.stderr


async def test_a_full_disk_ends_it(broker: Broker, link: Connection, journal: Journal, tmp_path: Path) -> None:
    """Without room for the files: status 1, which folder, and nothing is left."""
    await populate(journal, 200)
    folder = tmp_path / "backups"

    done = await asyncio.to_thread(backup_with_little_room, folder, broker.url)
    assert done.returncode == 1
    assert "can't be written to" in done.stderr
    assert str(folder) in done.stderr
    assert list(folder.iterdir()) == []


async def test_no_journal(broker: Broker, tmp_path: Path) -> None:
    """A broker without opstream's streams has nothing to back up: status 1, with the next step."""
    done = await backup(tmp_path / "backups", broker.url)
    assert done.exit_code == 1
    assert "opstream provision" in done.stderr


def test_the_order_of_restoring() -> None:
    """Every stream of a backup is restored once; TIMERS before the journal, the archive after it."""
    names = tuple(planned.name for planned in backup_order())
    order = restore_order(names)
    assert sorted([*order, subjects.DELIVERIES_STREAM]) == sorted(names)
    assert order.index(subjects.TIMERS_STREAM) < order.index(JOURNAL) < order.index(subjects.ARCHIVE_STREAM)
