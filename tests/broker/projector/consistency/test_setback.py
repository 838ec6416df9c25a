"""A journal that went back: its files are damaged, lost or replaced while the view stays. The view's only copies of
finished work survive, and each command says so (docs/adr/0032)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from opstream.cli.app import main
from opstream_journal import Connection
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.journal_witnesses import CONSEQUENCES, sample_evidence
from opstream_journal.stores.snapshots import VIEW_STREAM
from opstream_projector.consistency.rebuild import LostEntry
from opstream_schemas import subjects
from opstream_schemas.operation.state import Operation
from tests.support.broker.damage import StoredRecord, StreamFiles
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked, opened
from tests.support.projector.consistency import begun
from tests.support.projector.projection import LIFE, projector, running, settled, utc_now
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OPERATIONS = 120
EXIT_SETBACK = 3

Damage = Callable[[StreamFiles], None]


def flip_without_index(files: StreamFiles) -> None:
    """Eight bytes in the middle of the only block: the server cuts it there, and its last sequence goes back."""
    files.flip(files.blocks[0])
    files.remove_index()


def flip_with_index(files: StreamFiles) -> None:
    """One message can't be read; the server says nothing, and a later start without index loses the rest."""
    files.flip(files.blocks[0])


def truncate_without_index(files: StreamFiles) -> None:
    """The second half of the block is gone."""
    files.truncate(files.blocks[0])
    files.remove_index()


def truncate_with_index(files: StreamFiles) -> None:
    """The server knows its last sequence still, and has a hole before it."""
    files.truncate(files.blocks[0])


def lose_block(files: StreamFiles) -> None:
    """The server begins after what it had, as if all had expired."""
    files.blocks[0].unlink()


def lose_stream(files: StreamFiles) -> None:
    """The stream is gone with its consumers, and is provisioned again."""
    files.remove()


DAMAGES = [
    flip_without_index,
    flip_with_index,
    truncate_without_index,
    truncate_with_index,
    lose_block,
    lose_stream,
]


async def fill(url: str, first: int = 0) -> None:
    """Operations, three of four ended, and a view that is up to date."""
    async with linked(url) as link:
        await provision(link, Sizing())
        journal = await opened(link)
        numbers = range(first, first + OPERATIONS)
        await asyncio.gather(*(begun(journal, f"op-{one}", *(LIFE if one % 4 else LIFE[:2])) for one in numbers))
        async with running(projector(link, journal)):
            await settled(link)


async def view_of(link: Connection) -> dict[str, bytes]:
    """All entries of the view."""
    bounds = await stream_bounds(link, VIEW_STREAM)
    if not bounds.messages:
        return {}
    return {one.subject: one.data async for batch in scan_stream(link, VIEW_STREAM) for one in batch}


async def damage(broker: Broker, how: Damage) -> None:
    """Stop the broker, damage the journal, start it, and provision what is missing."""
    broker.stop()
    how(StreamFiles(broker.store, subjects.OPERATIONS_STREAM))
    broker.start()
    async with linked(broker.url) as link:
        await provision(link, Sizing())


async def invoke(broker: Broker, *arguments: str) -> Result:
    """Run a command on the broker."""
    return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--nats", broker.url])


@pytest.fixture
async def filled(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """A broker with a journal and its view; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    await fill(broker.url)
    return broker


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
async def test_verify_and_rebuild(filled: Broker, how: Damage) -> None:
    """Verification exits with a status of its own, says what is gone, and advises no rebuild that would destroy
    results; a rebuild leaves every byte of the view as it is."""
    async with linked(filled.url) as link:
        before = await view_of(link)
    await damage(filled, how)

    result = await invoke(filled, "verify")

    assert result.exit_code == EXIT_SETBACK, result.output
    assert "the journal has lost events" in result.stderr
    steps = [
        result.stderr.index(one) for one in ("stop the services", "--export FILE' now", "restore the journal from")
    ]
    assert steps == sorted(steps), "a restored backup replaces the view, too"
    assert "'opstream rebuild' puts the view right" not in result.stderr

    result = await invoke(filled, "rebuild")
    async with linked(filled.url) as link:
        assert await view_of(link) == before
    assert " kept that the journal has lost" in result.stdout
    assert result.exit_code == EXIT_SETBACK, result.output


async def test_what_verify_says(filled: Broker) -> None:
    """Each lost operation is one line on stdout; the summary counts sequences, operations and outcomes."""
    last = 3 * OPERATIONS + OPERATIONS * 3 // 4
    await damage(filled, truncate_without_index)
    async with linked(filled.url) as link:
        left = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
        entries = [msgspec.json.decode(data, type=Operation) for data in (await view_of(link)).values()]
    lost = [one for one in entries if one.stream_sequence > left]
    assert len(lost) > OPERATIONS // 3

    result = await invoke(filled, "verify")

    for one in (lost[0], next(other for other in lost if other.is_terminal)):
        audited = await invoke(filled, "audit", one.id)
        assert (audited.exit_code, "the journal has lost events of operation" in audited.stderr) == (1, True)
    assert {line.partition(":")[0] for line in result.stdout.splitlines()} == {one.id for one in lost}
    assert f"it ends at sequence {left:,}, and others have read more: the view up to {last:,}" in result.stderr
    assert f"gone from its end: {last - left:,} sequences, {left + 1} to {last}" in result.stderr
    ended = sum(one.is_terminal for one in lost)
    assert f"only the view has the last state of {len(lost)} operations, {ended} of them ended" in result.stderr
    assert result.stderr.splitlines()[-1].endswith(f"the journal has lost events, see above; {len(lost)} differences")


async def test_forced_rebuild(filled: Broker, tmp_path: Path) -> None:
    """It writes each entry that it replaces or removes to a file that only its owner can read, says where, and then
    the view is the fold of the journal again."""
    await damage(filled, truncate_without_index)
    async with linked(filled.url) as link:
        before = await view_of(link)

    result = await invoke(filled, "rebuild", "--force")

    assert result.exit_code == 0, result.output
    path, kept = exported_in(tmp_path)
    assert str(path) in result.stderr
    async with linked(filled.url) as link:
        after = await view_of(link)
    changed = {subject: data for subject, data in before.items() if after.get(subject) != data}
    assert {view_subject(one): bytes(one.snapshot) for one in kept} == changed
    filled.stop()  # until then the broker says that it has cut something
    filled.start()
    result = await invoke(filled, "verify")
    assert (result.exit_code, result.stdout) == (0, ""), result.output


def exported_in(folder: Path) -> tuple[Path, list[LostEntry]]:
    """The only file that a rebuild has made there, which its owner alone may read, and its entries."""
    (path,) = folder.glob("lost-entries-*.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path, [msgspec.json.decode(line, type=LostEntry) for line in path.read_bytes().splitlines()]


def view_subject(entry: LostEntry) -> str:
    """The subject of an entry in the view."""
    return subjects.bucket_subject(subjects.VIEW_BUCKET, entry.operation_id)


def lose_request(files: StreamFiles) -> None:
    """The request of one operation in the middle can't be read, while all its other events can."""
    (block,) = files.blocks
    record = next(one for one in files.records(block) if f".op-{OPERATIONS // 2}." in _text(block, one))
    files.flip(block, offset=record.offset + record.length // 2)


def _text(block: Path, record: StoredRecord) -> str:
    return block.read_bytes()[record.offset :][: record.length].decode("latin-1")


async def shorten(broker: Broker) -> None:
    """Lower the journal's age limit until all is gone, and set it back."""
    async with linked(broker.url) as link:
        jetstream = link.nc.jetstream()
        config = (await jetstream.stream_info(subjects.OPERATIONS_STREAM)).config
        await jetstream.update_stream(config.evolve(max_age=1.0, duplicate_window=1.0))

        async def is_empty() -> bool:
            return not (await stream_bounds(link, subjects.OPERATIONS_STREAM)).messages

        await eventually(is_empty, within=30)
        await jetstream.update_stream(config)


async def lose_beginning(broker: Broker, how: str) -> None:
    """Let events vanish that nothing after them contradicts."""
    if how == "age":
        await shorten(broker)
    else:
        await damage(broker, lose_block if how == "block" else lose_request)


@pytest.mark.parametrize(("how", "lost"), [("block", OPERATIONS), ("age", OPERATIONS), ("request", 1)])
async def test_a_beginning_that_is_gone(filled: Broker, tmp_path: Path, how: str, lost: int) -> None:
    """What verification counts is what a rebuild counts, exports and ends with 3 for. A forced one saves it, and leaves
    it to its readers; from then on the advice says that nothing more is to be done."""
    async with linked(filled.url) as link:
        before = await view_of(link)
    await lose_beginning(filled, how)

    audited = await invoke(filled, "audit", f"op-{OPERATIONS // 2}")
    assert audited.exit_code == 1
    assert f"the journal has lost events of operation op-{OPERATIONS // 2} (" in audited.stderr
    assert "'opstream verify' says what else is gone" in audited.stderr
    result = await invoke(filled, "verify")
    assert result.exit_code == EXIT_SETBACK, result.output
    assert f"only the view has the last state of {lost:,} operation" in result.stderr
    assert len(result.stdout.splitlines()) == lost
    assert "rebuild --force" not in result.stderr
    assert "'opstream rebuild --export FILE' saves what only the view has. No more has to be done" in result.stderr

    result = await invoke(filled, "rebuild")
    assert (result.exit_code, f" {lost:,} kept that the journal has lost" in result.stdout) == (EXIT_SETBACK, True)
    result = await invoke(filled, "rebuild", "--export", str(tmp_path / "saved"))
    assert result.exit_code == EXIT_SETBACK, result.output
    assert "restore the journal from a backup" in result.stderr
    assert "--export FILE' now" not in result.stderr, "it was done just now"
    result = await invoke(filled, "rebuild", "--force", "--export", str(tmp_path / "forced"))
    assert result.exit_code == 0, result.output
    assert "nothing more is to be done" in result.stderr
    for name in ("saved", "forced"):
        lines = (tmp_path / name).read_bytes().splitlines()
        saved = {view_subject(one): bytes(one.snapshot) for one in map(_lost_entry, lines)}
        assert len(saved) == lost
        assert saved.items() <= before.items()
    async with linked(filled.url) as link:
        assert await view_of(link) == before


def _lost_entry(line: bytes) -> LostEntry:
    return msgspec.json.decode(line, type=LostEntry)


async def test_an_audit_without_a_view(filled: Broker) -> None:
    """The timeline comes from the journal alone; without a view nothing can say that something is lost."""
    async with linked(filled.url) as link:
        await link.nc.jetstream().delete_stream(VIEW_STREAM)
    audited = await invoke(filled, "audit", "op-1")
    assert audited.exit_code == 0, audited.output
    assert "hashes      ok" in audited.stdout


async def test_an_export_of_nothing(filled: Broker, tmp_path: Path) -> None:
    """An export without anything to write says so."""
    result = await invoke(filled, "rebuild", "--export", str(tmp_path / "none"))
    assert result.exit_code == 0, result.output
    assert "no file was written" in result.stderr
    assert not (tmp_path / "none").exists()


async def test_new_operations_after_a_setback(filled: Broker) -> None:
    """They are accepted and projected although their sequences run again; the lost ones are found all the same."""
    await damage(filled, flip_without_index)
    async with linked(filled.url) as link:
        before = await view_of(link)
    await fill(filled.url, first=10_000)
    async with linked(filled.url) as link:
        after = await view_of(link)
        new = [msgspec.json.decode(after[subject], type=Operation) for subject in after.keys() - before.keys()]
        assert (await sample_evidence(link, utc_now())).is_setback
    assert len(new) == OPERATIONS
    assert [one.id for one in new if one.is_terminal != bool(int(one.id.removeprefix("op-")) % 4)] == []
    result = await invoke(filled, "verify")
    assert result.exit_code == EXIT_SETBACK, result.output
    result = await invoke(filled, "rebuild")
    assert result.exit_code == EXIT_SETBACK, result.output
    async with linked(filled.url) as link:
        assert (await view_of(link)).items() >= before.items()


async def test_nothing_is_removed_without_a_file(filled: Broker, tmp_path: Path) -> None:
    """If the file can't be written whole, the view stays as it is, and the error says so."""
    await damage(filled, truncate_without_index)
    async with linked(filled.url) as link:
        before = await view_of(link)
    existing = tmp_path / "existing"
    existing.write_text("mine")

    result = await invoke(filled, "rebuild", "--force", "--export", str(existing))
    assert (result.exit_code, existing.read_text()) == (2, "mine")
    result = await invoke(filled, "rebuild", "--force", "--export", str(tmp_path / "none" / "file"))
    assert result.exit_code == 2
    with file_size_limit(2_000):
        result = await invoke(filled, "rebuild", "--force", "--export", str(tmp_path / "cut"))
    assert result.exit_code == 1
    assert "nothing of it was removed" in result.stderr

    async with linked(filled.url) as link:
        assert await view_of(link) == before


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_an_older_backup(filled: Broker, tmp_path: Path) -> None:
    """The folder of the stream is replaced by an older copy: the view knows more."""
    filled.stop()
    files = StreamFiles(filled.store, subjects.OPERATIONS_STREAM)
    shutil.copytree(files.folder, tmp_path / "copy")
    filled.start()
    await fill(filled.url, first=10_000)

    def restore(files: StreamFiles) -> None:
        shutil.rmtree(files.folder)
        shutil.copytree(tmp_path / "copy", files.folder)

    await damage(filled, restore)
    result = await invoke(filled, "verify")
    assert result.exit_code == EXIT_SETBACK
    assert f"only the view has the last state of {OPERATIONS} operations" in result.stderr


async def test_a_backup_by_copy(filled: Broker, tmp_path: Path) -> None:
    """Stop, copy the store, start: a server on the copy has journal, view and consumers, and nothing is missing."""
    filled.stop()
    shutil.copytree(filled.store, tmp_path / "copy")
    filled.start()
    await fill(filled.url, first=10_000)
    filled.stop()
    shutil.rmtree(filled.store)
    shutil.copytree(tmp_path / "copy", filled.store)
    filled.start()

    result = await invoke(filled, "verify")
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert f"of {OPERATIONS} operations read" in result.stderr


async def archive_holds(link: Connection, count: int) -> None:
    """Wait until the archive has copied so many events."""

    async def is_copied() -> bool:
        return (await stream_bounds(link, subjects.ARCHIVE_STREAM)).messages == count

    await eventually(is_copied, within=40)


async def test_the_archive_is_a_witness(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without a view, the archive shows that the journal had more. After a forced rebuild it copies every new
    event, although it goes by sequences that would have run again."""
    monkeypatch.setattr("opstream_projector.consistency.verify.GRACE", 0.3)  # no projector runs that could catch up
    async with linked(broker.url) as link:
        await provision(link, Sizing(), archive=ArchiveSizing())
        journal = await opened(link)
        await asyncio.gather(*(begun(journal, f"op-{number}", *LIFE) for number in range(20)))
        await archive_holds(link, 80)
    await damage(broker, truncate_without_index)
    result = await invoke(broker, "verify")
    assert result.exit_code == EXIT_SETBACK
    assert "the archive up to 80" in result.stderr

    result = await invoke(broker, "rebuild", "--force", "--export", str(tmp_path / "lost"))

    assert result.exit_code == 0, result.output
    assert " skipped, up to which the archive has copied" in result.stderr
    async with linked(broker.url) as link:
        await begun(await opened(link), "new", *LIFE)
        await archive_holds(link, 84)
    broker.stop()  # until then the broker says that it has cut something
    broker.start()
    assert (await invoke(broker, "verify")).exit_code != EXIT_SETBACK
    assert (await invoke(broker, "verify", "--chain")).stdout == ""


async def test_a_sound_journal(filled: Broker) -> None:
    """After stops and kills nothing is taken for a setback, neither by the commands nor by what services ask."""
    for end in (filled.stop, filled.kill):
        end()
        filled.start()
        assert (await invoke(filled, "verify")).exit_code == 0
        async with linked(filled.url) as link:
            assert (await sample_evidence(link, utc_now())).lines() == []


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
async def test_what_services_ask(filled: Broker, how: Damage) -> None:
    """A few requests show the damage, but for one message that can't be read while the server has its index."""
    await damage(filled, how)
    async with linked(filled.url) as link:
        evidence = await sample_evidence(link, utc_now())
        last = await rpc.get_last(link, subjects.OPERATIONS_STREAM, ">")
    assert evidence.is_setback == (how is not flip_with_index)
    assert last is None or last.seq <= evidence.journal.last


@pytest.mark.parametrize("end", ["cut", "gone"])
async def test_a_damaged_view(filled: Broker, end: str) -> None:
    """Nothing is lost with it: verification reports differences and the cut, and a rebuild writes the view again."""
    filled.stop()
    files = StreamFiles(filled.store, VIEW_STREAM)
    if end == "cut":
        files.flip(files.blocks[0])
        files.remove_index()
    else:
        files.remove()
    filled.start()
    async with linked(filled.url) as link:
        await provision(link, Sizing())
    result = await invoke(filled, "verify")
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1].endswith("'opstream rebuild' puts the view right")
    is_cut = (
        f"from damaged blocks of {VIEW_STREAM} since it started: statuses are read from the journal" in result.stderr
    )
    assert is_cut == (end == "cut")
    assert (await invoke(filled, "rebuild")).exit_code == 0
    result = await invoke(filled, "verify")
    assert (result.exit_code, result.stdout) == (0, "")


async def test_other_streams_that_were_cut(broker: Broker, link: Connection) -> None:
    """Verification names each, and says what follows and what to do."""
    published = {
        subjects.bucket_stream(subjects.ACTIONS_BUCKET): "$KV.actions.book.read",
        subjects.bucket_stream(subjects.HOLDS_BUCKET): "$KV.holds.book.x",
        subjects.TIMERS_STREAM: "timers.book.read.op-1.retry",
        subjects.DELIVERIES_STREAM: "deliveries.op-1.shop.failed",
    }
    for subject in published.values():
        await link.nc.jetstream().publish(subject, b"{}")
    await link.close()
    broker.stop()
    for stream in published:
        files = StreamFiles(broker.store, stream)
        files.flip(files.blocks[0])
        files.remove_index()
    broker.start()
    result = await invoke(broker, "verify")
    for stream in published:
        assert f"damaged blocks of {stream} since it started: {CONSEQUENCES[stream]}" in result.stderr
