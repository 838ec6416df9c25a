"""`opstream restore` on a real broker: what comes back, what is refused, and what a killed one leaves."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from opstream.backup.backup_folder import SUMS
from opstream.backup.manifest import NAME
from opstream.backup.stream_plan import JOURNAL
from opstream.cli.app import main
from opstream_journal import Connection, ExpectedVersion, Journal, connect
from opstream_journal.errors import RestoreUnfinished
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import check_provisioned, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.timers import schedule_wake_up
from opstream_projector.consistency.view_scan import ScanVisitor, ViewScan
from opstream_schemas import subjects
from opstream_schemas.events import RecordedEvent, Succeeded
from opstream_schemas.integrity.setback import SequenceRange
from opstream_schemas.names import Kind
from opstream_schemas.operation.resource_lock import Claim
from tests.support.broker.server import Broker, Cluster
from tests.support.journal.journals import folded, following
from tests.support.journal.populated_journal import populate, record
from tests.support.schemas.histories import handed_back, started, waits
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OPERATIONS = 24
KIND = Kind("book", "upload-start")
LOCK = "book.0123"
FREE = "book.4567"


@pytest.fixture
async def folder(broker: Broker, link: Connection, journal: Journal, tmp_path: Path) -> Path:
    """A backup of a broker with an archive, operations that ended and some that are open."""
    await provision(link, Sizing(), archive=ArchiveSizing())
    await populate(journal, OPERATIONS)
    return await backup(tmp_path, broker.url)


@pytest.fixture
def empty() -> Iterator[Broker]:
    """Another broker, which has nothing."""
    with Broker("other") as other:
        yield other


@pytest.fixture
async def other(empty: Broker) -> AsyncIterator[Connection]:
    """A connection to it."""
    link = await connect([empty.url], "test", connect_timeout=5)
    yield link
    await link.close()


async def opstream(*arguments: str) -> Result:
    """Run a command in this process, in a thread: much faster than a process of its own."""
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def backup(tmp_path: Path, url: str, *options: str) -> Path:
    done = await opstream("backup", str(tmp_path / "backups"), "--nats", url, *options)
    assert done.exit_code == 0, done.stderr
    return Path(done.stdout.strip())


async def restore(folder: Path, url: str, *options: str) -> Result:
    return await opstream("restore", str(folder), "--nats", url, *options)


async def stored(link: Connection) -> list[tuple[int, str, bytes, int]]:
    bounds = await stream_bounds(link, JOURNAL)
    found = []
    async for batch in scan_stream(link, JOURNAL, first=bounds.first, last=bounds.last):
        found += [(one.sequence, one.subject, one.data, one.nanoseconds) for one in batch]
    return found


async def streams(link: Connection) -> list[str]:
    return await admin.streams_with_subject(link, ">")


async def test_everything_is_there_again(folder: Path, link: Connection, empty: Broker, other: Connection) -> None:
    """Each message of the journal has its sequence, subject, bytes and time; consumers and settings are the same, the
    view is the fold of the journal, and nothing differs from what services need."""
    before = await stored(link)
    done = await restore(folder, empty.url)
    assert done.exit_code == 0, done.stderr
    assert (await stored(other))[: len(before)] == before
    assert {
        str(one["durable_name"]) for one in await admin.consumer_configs(other, JOURNAL) if "durable_name" in one
    } == {
        "projector",
        "projector_due",
        "projector_deadlines",
        "webhooks",
        "runner_operations_cancel",
        "runner_operations_retry",
    }
    await check_provisioned(other)
    audited = await opstream("audit", "--access", "--json", "--nats", empty.url)
    (record,) = [one for line in audited.stdout.splitlines() if (one := msgspec.json.decode(line))["act"] == "restored"]
    assert record["detail"].startswith("a backup that ended at 20")
    assert "@" in record["by"]
    verified = await opstream("verify", "--nats", empty.url)
    assert verified.exit_code == 0, verified.stdout + verified.stderr
    made = await opstream("provision", "--nats", empty.url)
    assert made.stdout == "made       stream KV_operation_keys\n", made.stdout + made.stderr
    compared = await opstream("provision", "--nats", empty.url)
    assert "nothing to do" in compared.stdout, compared.stdout + compared.stderr
    assert "projectors, then runners" in done.stderr
    for name in await streams(other):
        info = await admin.stream_info(other, name)
        assert info is not None
        assert "opstream.restore" not in (info["config"].get("metadata") or {})


async def test_the_checkpoint_proves_it(
    broker: Broker, link: Connection, journal: Journal, empty: Broker, tmp_path: Path
) -> None:
    """A backup with a signing key has a checkpoint, against which the restored journal is verified; another key, and
    a backup without one, are refused."""
    await populate(journal, OPERATIONS)
    for name in ("mine", "foreign"):
        (tmp_path / f"{name}.pub").write_text((await opstream("keygen", str(tmp_path / name))).stdout)
    folder = await backup(tmp_path, broker.url, "--sign", str(tmp_path / "mine"))
    done = await restore(folder, empty.url, "--key", str(tmp_path / "mine.pub"))
    assert done.exit_code == 0, done.stderr
    assert "as covered by 1 checkpoint" in done.stderr
    wrong = await restore(folder, empty.url, "--replace", "--key", str(tmp_path / "foreign.pub"))
    assert wrong.exit_code == 2
    assert "signed with the key" in wrong.stderr


async def test_timers_fire_and_are_copied(
    broker: Broker, link: Connection, journal: Journal, empty: Broker, other: Connection, tmp_path: Path
) -> None:
    """Timers of the backup fire on the new broker, and the journal copies them, although it copied others before the
    backup that TIMERS does not have any more."""
    at = datetime.now(UTC)
    for number in range(6):
        await schedule_wake_up(link, KIND, f"past-{number}", "retry", at=at, armed_by=1)

    async def copied() -> bool:
        return (await stream_bounds(link, JOURNAL)).last == 6

    await eventually(copied, within=20)
    await schedule_wake_up(link, KIND, "later", "retry", at=at + timedelta(seconds=3), armed_by=1)
    folder = await backup(tmp_path, broker.url)
    done = await restore(folder, empty.url)
    assert done.exit_code == 0, done.stderr

    async def fired() -> bool:
        # The broker takes TIMERS for a new stream, and may copy some of the earlier ones twice.
        return (await stored(other))[-1][1] == f"wake.{KIND.resource}.{KIND.action}.later.retry"

    await eventually(fired, within=30)


async def test_what_is_open_moves_on(
    broker: Broker, link: Connection, journal: Journal, empty: Broker, other: Connection, tmp_path: Path
) -> None:
    """An operation that waited for its retry has its timer again, and one that had begun has its lock, although
    TIMERS and the bucket `holds` were lost before the backup."""
    at = datetime.now(UTC) + timedelta(hours=8)
    retry_at = datetime.now(UTC) + timedelta(hours=1)
    await record(
        journal, "waits", KIND, started(), handed_back(counted=True, retry_at=retry_at), hold=LOCK, deadline=at
    )
    await record(journal, "new", KIND, deadline=at)
    await record(journal, "runs", KIND, started(), deadline=at)
    await record(journal, "overdue", KIND)  # its deadline was in March, and the view has forgotten it
    await admin.delete_stream(link, subjects.TIMERS_STREAM)
    await admin.delete_stream(link, subjects.bucket_stream(subjects.HOLDS_BUCKET))
    await provision(link, Sizing())
    folder = await backup(tmp_path, broker.url)
    done = await restore(folder, empty.url)
    assert done.exit_code == 0, done.stderr
    assert "1 lock given back" in done.stderr
    timers = await admin.stream_subjects(other, subjects.TIMERS_STREAM, "timers.>")
    assert subjects.timer_subject(KIND, "waits", "retry") in timers
    assert {subjects.deadline_subject(KIND, one) for one in ("waits", "new")} <= set(timers)

    async def is_due() -> bool:
        return f"due.{KIND.resource}.{KIND.action}.overdue" in [subject for _, subject, *_ in await stored(other)]

    await eventually(is_due, within=20)
    lost = [one[1].rpartition(".")[2] for one in await stored(other) if ".runs." in one[1] and "operations." in one[1]]
    assert lost == ["requested", "started", "attempt-failed"]
    assert f"wake.{KIND.resource}.{KIND.action}.runs.retry" in [subject for _, subject, *_ in await stored(other)]
    again = Journal(other, max_msg_size=-1, clock=lambda: 0.0)
    await again.start()
    restored = ResourceLocks(other, again)
    await restored.start()
    owner = await restored.owner(LOCK)
    assert owner is not None
    assert owner.operation_id == "waits"


def claim_of(requested: RecordedEvent) -> Claim:
    return Claim(operation_id=requested.operation_id, sequence=requested.sequence, kind=str(KIND))


async def test_what_has_ended_leaves_its_lock(
    broker: Broker, link: Connection, journal: Journal, empty: Broker, other: Connection, tmp_path: Path
) -> None:
    """The locks are copied before the journal: an operation that ended in between owns its lock in the backup. After a
    restore the next in the queue has it, and where none waits it is free."""
    at = datetime.now(UTC) + timedelta(hours=8)
    locks = ResourceLocks(link, journal)
    await locks.start()
    running = []
    for number, lock in enumerate((LOCK, FREE)):
        events = await record(journal, f"ended-{number}", KIND, started(), hold=lock, deadline=at)
        running.append(folded(None, *events))
        assert await locks.restore_owner(lock, claim_of(events[0]))
    (waiting,) = await record(journal, "next", KIND, hold=LOCK, deadline=at)
    await locks.enqueue(LOCK, folded(None, waiting), claim_of(waiting), is_watchful=False)
    for one in running:
        end = following(one, Succeeded(result=msgspec.Raw(b"1")))
        await journal.append(KIND, end, ExpectedVersion(one.stream_sequence), budget=10)
    done = await restore(await backup(tmp_path, broker.url), empty.url)
    assert done.exit_code == 0, done.stderr
    again = Journal(other, max_msg_size=-1, clock=time.monotonic)
    await again.start()
    restored = ResourceLocks(other, again)
    await restored.start()
    assert await restored.owned() == {LOCK}
    owner = await restored.owner(LOCK)
    assert owner is not None
    assert owner.operation_id == "next"


async def test_what_sleeps_has_no_lock(
    broker: Broker, link: Connection, journal: Journal, empty: Broker, other: Connection, tmp_path: Path
) -> None:
    """An operation that sleeps without its resource has its timer again. Its lock, which it still owned when the locks
    were copied, goes to the next in the queue."""
    at, until = datetime.now(UTC) + timedelta(hours=8), datetime.now(UTC) + timedelta(hours=1)
    locks = ResourceLocks(link, journal)
    await locks.start()
    events = await record(journal, "asleep", KIND, started(), waits(until=until), hold=LOCK, deadline=at)
    assert await locks.restore_owner(LOCK, claim_of(events[0]))
    (waiting,) = await record(journal, "next", KIND, hold=LOCK, deadline=at)
    await locks.enqueue(LOCK, folded(None, waiting), claim_of(waiting), is_watchful=False)
    await record(journal, "kept", KIND, started(), waits(until=until, hold=True), hold=FREE, deadline=at)
    done = await restore(await backup(tmp_path, broker.url), empty.url)
    assert done.exit_code == 0, done.stderr
    again = Journal(other, max_msg_size=-1, clock=time.monotonic)
    await again.start()
    restored = ResourceLocks(other, again)
    await restored.start()
    owners = [await restored.owner(lock) for lock in (LOCK, FREE)]
    assert [owner.operation_id for owner in owners if owner is not None] == ["next", "kept"]
    timers = await admin.stream_subjects(other, subjects.TIMERS_STREAM, "timers.>")
    assert {subjects.timer_subject(KIND, one, "wait") for one in ("asleep", "kept")} <= set(timers)


async def test_a_server_that_still_copies_the_journal(
    broker: Broker,
    link: Connection,
    journal: Journal,
    empty: Broker,
    other: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A journal that a server shows without its events, while the leader has them, is read again until it is whole."""
    at = datetime.now(UTC) + timedelta(hours=8)
    await record(journal, "new", KIND, deadline=at)
    folder = await backup(tmp_path, broker.url)
    blind: list[ViewScan] = []
    run_scan = ViewScan.run

    async def run_blindly(scan: ViewScan, visitor: ScanVisitor) -> None:
        if len(blind) < 2:
            blind.append(scan)
            scan.evidence.replica_holes.append(SequenceRange(1, 1))
        else:
            await run_scan(scan, visitor)

    monkeypatch.setattr(ViewScan, "run", run_blindly)
    done = await restore(folder, empty.url)
    assert done.exit_code == 0, done.stderr
    assert len(blind) == 2
    assert "1 operation, 1 of them is open" in done.stderr
    timers = await admin.stream_subjects(other, subjects.TIMERS_STREAM, "timers.>")
    assert subjects.deadline_subject(KIND, "new") in timers


async def test_the_archive_has_each_event_once(
    broker: Broker, link: Connection, journal: Journal, empty: Broker, other: Connection, tmp_path: Path
) -> None:
    """The broker takes the restored journal for a new one. The archive copies nothing of it again, and all that
    follows; once a new journal is made, it copies that from its beginning."""
    await provision(link, Sizing(), archive=ArchiveSizing())
    events = await populate(journal, OPERATIONS)
    await eventually(lambda: _has(link, len(events)), within=20)
    folder = await backup(tmp_path, broker.url)
    done = await restore(folder, empty.url)
    assert done.exit_code == 0, done.stderr
    again = Journal(other, max_msg_size=-1, clock=time.monotonic)
    await again.start()
    await record(again, "later", KIND)
    recorded = [subject for _, subject, *_ in await stored(other) if subject.startswith("operations.")]
    assert len(recorded) > len(events)
    await eventually(lambda: _has(other, len(recorded)), within=30)
    bounds = await stream_bounds(other, subjects.ARCHIVE_STREAM)
    assert bounds.messages == len(recorded)
    await admin.delete_stream(other, JOURNAL)
    await provision(other, Sizing(), archive=ArchiveSizing())
    config = await admin.stream_config(other, subjects.ARCHIVE_STREAM)
    assert config is not None
    assert [one.opt_start_seq for one in config.sources or ()] == [None]


@pytest.mark.parametrize("broken", ["flip", "cut", "missing", "manifest", "sums", "swapped"])
async def test_a_damaged_backup_is_refused(folder: Path, empty: Broker, other: Connection, broken: str) -> None:
    """One byte too much, too few or different, in any file: status 1, the file's name, and the broker is untouched."""
    damaged = folder / f"{JOURNAL}.snapshot"
    content = damaged.read_bytes()
    match broken:
        case "flip":
            damaged.write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
        case "cut":
            damaged.write_bytes(content[:-1])
        case "missing":
            damaged.unlink()
        case "manifest":
            damaged = folder / NAME
            damaged.write_bytes(damaged.read_bytes()[:-40])
        case "sums":
            damaged = folder / SUMS
            damaged.write_text("\n".join(damaged.read_text().splitlines()[1:]))
        case _:
            damaged.write_bytes((folder / "TIMERS.snapshot").read_bytes())
    done = await restore(folder, empty.url, "--replace")
    assert done.exit_code == 1
    assert damaged.name in done.stderr or "manifest.json" in done.stderr
    assert "another copy" in done.stderr
    assert await streams(other) == []


async def test_a_snapshot_of_half_a_frame_is_refused(folder: Path) -> None:
    """A snapshot that does not end with a whole frame is refused even if its sums fit."""
    path = folder / f"{JOURNAL}.snapshot"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-1])
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest, sums = folder / NAME, folder / SUMS
    old = hashlib.sha256(manifest.read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(before, after))
    new = hashlib.sha256(manifest.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(before, after).replace(old, new))
    done = await opstream("restore", str(folder), "--check")
    assert done.exit_code == 1
    assert "is not a whole snapshot" in done.stderr


async def test_a_later_format_is_refused(folder: Path, empty: Broker, other: Connection) -> None:
    """A backup of a later format is refused before the broker is touched, with the version that wrote it."""
    manifest, sums = folder / NAME, folder / SUMS
    old = hashlib.sha256(manifest.read_bytes()).hexdigest()
    changed = {**msgspec.json.decode(manifest.read_bytes()), "format": 2, "opstreamVersion": "9.0.0"}
    manifest.write_bytes(msgspec.json.encode(changed))
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(manifest.read_bytes()).hexdigest()))
    done = await restore(folder, empty.url)
    assert done.exit_code == 1
    assert "format 2, written by opstream 9.0.0" in done.stderr
    assert await streams(other) == []


async def test_the_folder_above_is_taken(folder: Path) -> None:
    """The only backup of a folder is found in it, and named."""
    done = await opstream("restore", str(folder.parent), "--check")
    assert done.exit_code == 0, done.stderr
    assert f"{folder} is whole" in done.stderr


async def test_what_is_there_is_replaced_on_request_only(
    folder: Path, broker: Broker, link: Connection, journal: Journal
) -> None:
    """A broker with a journal is left alone; with --replace it has what the backup has, and no more."""
    before = await stored(link)
    await record(journal, "after-the-backup", KIND)
    refused = await restore(folder, broker.url)
    assert refused.exit_code == 1
    assert "add --replace" in refused.stderr
    assert len(await stored(link)) == len(before) + 1
    done = await restore(folder, broker.url, "--replace")
    assert done.exit_code == 0, done.stderr
    assert (await stored(link))[: len(before)] == before
    assert not [subject for _, subject, *_ in await stored(link) if "after-the-backup" in subject]


async def test_another_applications_stream_is_never_deleted(folder: Path, empty: Broker, other: Connection) -> None:
    """--replace deletes no stream that only has one of opstream's names."""
    await other.nc.jetstream().add_stream(name="OPERATIONS", subjects=["theirs.>"])
    done = await restore(folder, empty.url, "--replace")
    assert done.exit_code == 1
    assert "another application" in done.stderr
    assert await streams(other) == ["OPERATIONS"]


async def test_killed_in_the_middle(folder: Path, empty: Broker, other: Connection) -> None:
    """After a killed restore no service starts, `provision` makes nothing, and commands refuse, each with the next
    step; the same restore again ends it."""
    with Process("restore", str(folder), "--nats", empty.url) as process:
        await eventually(lambda: _exists(other, JOURNAL), within=20, poll=0.001)
        empty.pause()
        process.send(signal.SIGKILL)
        process.wait(10)
        empty.resume()
    service = await asyncio.to_thread(run, "projector", "--nats", empty.url)
    assert service.returncode == 1
    assert "run 'opstream restore' again" in service.stderr
    for command in (("provision",), ("verify",), ("backup", str(folder.parent))):
        refused = await opstream(*command, "--nats", empty.url)
        assert refused.exit_code == 1, command
        assert "run 'opstream restore' again" in refused.stderr
    with pytest.raises(RestoreUnfinished):
        await check_provisioned(other)
    done = await restore(folder, empty.url)
    assert done.exit_code == 0, done.stderr
    assert "begins again" in done.stderr
    await check_provisioned(other)


async def test_a_broker_without_room(folder: Path) -> None:
    """A broker that refuses a stream ends the restore with its reason; with room, the same command ends it."""
    with Broker("small", jetstream="max_file_store: 8KB") as small:
        done = await restore(folder, small.url)
        assert done.exit_code == 1
        assert "could not be restored" in done.stderr
        assert "run the same command again" in done.stderr
        small.stop()
        small.configure("")
        small.start()
        done = await restore(folder, small.url)
        assert done.exit_code == 0, done.stderr


async def test_three_servers_and_one(
    broker: Broker, link: Connection, journal: Journal, cluster: Cluster, empty: Broker, tmp_path: Path
) -> None:
    """A backup of one server is restored to three with three replicas, and that of three to one; one server refuses
    three replicas before anything is made."""
    await populate(journal, OPERATIONS)
    before = await stored(link)
    single = await backup(tmp_path, broker.url)
    url = cluster.nodes[0].url
    done = await restore(single, url, "--replicas", "3")
    assert done.exit_code == 0, done.stderr
    wide = await connect([url], "test", connect_timeout=10)
    try:

        async def is_copied() -> bool:  # a consumer may read from a server that copies still
            return (await stored(wide))[: len(before)] == before

        await eventually(is_copied, within=20)
        info = await admin.stream_info(wide, JOURNAL)
        assert info is not None
        assert (info["config"]["num_replicas"], len(info["cluster"]["replicas"])) == (3, 2)
        await check_provisioned(wide)
        triple = await backup(tmp_path / "triple", url)
    finally:
        await wide.close()
    refused = await restore(triple, empty.url)
    assert refused.exit_code == 1
    assert "--replicas 1" in refused.stderr
    done = await restore(triple, empty.url, "--replicas", "1")
    assert done.exit_code == 0, done.stderr
    narrow = await connect([empty.url], "test", connect_timeout=10)
    try:
        assert (await stored(narrow))[: len(before)] == before
        await check_provisioned(narrow)
    finally:
        await narrow.close()


async def _has(link: Connection, messages: int) -> bool:
    return (await stream_bounds(link, subjects.ARCHIVE_STREAM)).messages >= messages


async def _exists(link: Connection, name: str) -> bool:
    return await admin.stream_info(link, name) is not None
