"""`opstream verify --chain` on a real broker: of the journal, of copies that were changed, against checkpoints."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest
from click.testing import CliRunner, Result
from nats.js.api import StreamConfig

from opstream.cli.app import main
from opstream_journal import Connection, Journal
from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, Progressed, Succeeded, encode_event
from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, first, folded, linked, opened
from tests.support.projector.projection import projector, running, settled
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

DAY: Final = 86_400
OPERATIONS: Final = 5
EVENTS: Final = 4
"""Of each operation."""


@pytest.fixture
async def filled(journal: Journal) -> None:
    """Operations that have ended, one that is open, and a wake among them."""
    for number in range(OPERATIONS):
        await work(journal, f"op-{number}")
    await extend(journal, await begin(journal, "open"), started())
    nc = journal._connection.nc
    await nc.jetstream().publish("fire.book.upload-start.open.retry", b"", stream=subjects.TIMERS_STREAM)

    async def is_there() -> bool:
        info = await nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)
        return info.state.messages == OPERATIONS * EVENTS + 3

    await eventually(is_there, within=20)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A key pair: the private key is beside it, as `key`."""
    made = CliRunner().invoke(main, ["keygen", str(tmp_path / "key")])
    assert (made.exit_code, made.stderr) == (0, "")
    path = tmp_path / "public"
    path.write_text(made.stdout)
    return path


async def work(journal: Journal, operation_id: str) -> None:
    """Record a whole operation."""
    operation = await begin(journal, operation_id)
    await extend(journal, operation, started(), Progressed(percent=50), Succeeded(result=msgspec.Raw(b'{"pages":1}')))


async def verify(broker: Broker, *options: object) -> Result:
    """Run the command."""
    arguments = ["verify", "--chain", "--nats", broker.url, *map(str, options)]
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


def assert_clean(result: Result) -> None:
    """Check that there are no findings."""
    assert (result.exit_code, result.stdout) == (0, ""), result.output


def found(result: Result) -> list[str]:
    """The findings."""
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1].startswith("opstream: error: ")
    return result.stdout.splitlines()


async def messages(link: Connection) -> list[ScannedMessage]:
    """The whole journal."""
    return [one async for batch in scan_stream(link, subjects.OPERATIONS_STREAM) for one in batch]


async def replace(link: Connection, tampered: Sequence[ScannedMessage], *, max_age: float = 30 * DAY) -> None:
    """Replace the journal by a copy, which needs the permission to delete streams."""
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.OPERATIONS_STREAM)).config
    await js.delete_stream(subjects.OPERATIONS_STREAM)
    changes = {"sources": None, "deny_delete": False, "deny_purge": False, "max_age": max_age, "duplicate_window": 1.0}
    await js.add_stream(config.evolve(subjects=[*(config.subjects or ()), "wake.>"], **changes))
    for one in tampered:
        await js.publish(one.subject, one.data)


async def put(link: Connection, operation_id: str, name: str, payload: bytes) -> None:
    """Publish without an expected version."""
    subject = subjects.event_subject(operation_id, KIND, name)
    await link.nc.jetstream().publish(subject, payload)


@pytest.mark.usefixtures("filled")
async def test_an_untouched_journal(broker: Broker) -> None:
    """There is no finding, timers are ignored, and the summary counts events and operations."""
    result = await verify(broker)

    assert_clean(result)
    assert f"{OPERATIONS * EVENTS + 2} events of {OPERATIONS + 1} operations" in result.stderr


@pytest.mark.usefixtures("link")
async def test_an_empty_journal(broker: Broker, public: Path, tmp_path: Path) -> None:
    """There is no finding, and a checkpoint of an empty stream can be made and continued."""
    assert_clean(await verify(broker))
    assert_clean(await verify(broker, "--checkpoint", tmp_path / "c", "--sign", tmp_path / "key"))
    assert_clean(await verify(broker, "--checkpoint", tmp_path / "c", "--key", public))


@pytest.mark.usefixtures("filled")
async def test_foreign_messages_in_the_journal(broker: Broker, link: Connection) -> None:
    """Bytes, a second request, and an event after the end are found, each in one line that says where."""
    await put(link, "open", "progressed", b"\x00 not an event")
    await put(link, "open", "requested", encode_event(first("open")))
    await put(link, "op-1", "requested", encode_event(first("op-1")))

    lines = found(await verify(broker))

    place = OPERATIONS * EVENTS + 3
    assert [line.split("  ")[:3] for line in lines] == [
        ["op-1", "position 1", f"sequence {place + 3}"],
        ["open", "position -", f"sequence {place + 1}"],
        ["open", "position 1", f"sequence {place + 2}"],
    ]


@pytest.mark.usefixtures("filled")
async def test_a_forced_end(broker: Broker, link: Connection) -> None:
    """Messages that a forced end has skipped are notes, not findings."""
    await put(link, "open", "progressed", b"\x00 not an event")
    arguments = ["fail", "open", "--force", "--nats", broker.url]
    ended = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert ended.exit_code == 0

    result = await verify(broker)

    assert_clean(result)
    assert result.stderr.count("note: open") == 2


def changed(copy: list[ScannedMessage]) -> list[ScannedMessage]:
    """A copy with changed data of an event."""
    return [
        ScannedMessage(one.sequence, one.subject, one.data.replace(b'"percent":50', b'"percent":51'), one.nanoseconds)
        if index == 2
        else one
        for index, one in enumerate(copy)
    ]


def without_an_event(copy: list[ScannedMessage]) -> list[ScannedMessage]:
    """A copy without an event in the middle of an operation."""
    return [*copy[:5], *copy[6:]]


def swapped(copy: list[ScannedMessage]) -> list[ScannedMessage]:
    """A copy with two events of an operation in another order."""
    return [*copy[:5], copy[6], copy[5], *copy[7:]]


def beheaded(copy: list[ScannedMessage]) -> list[ScannedMessage]:
    """A copy without the first events, as if they had expired, that begins at sequence 1."""
    return copy[2:]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("tamper", [changed, without_an_event, swapped, beheaded])
async def test_a_copy_that_was_tampered_with(
    broker: Broker, link: Connection, tamper: Callable[[list[ScannedMessage]], list[ScannedMessage]]
) -> None:
    """A change in the middle of an operation is one finding."""
    await replace(link, tamper(await messages(link)))

    (line,) = found(await verify(broker))
    assert line.startswith("op-")


@pytest.mark.usefixtures("filled")
async def test_a_message_that_was_deleted(broker: Broker, link: Connection) -> None:
    """A deleted message, which the stream denies, is found by its gap, even if it was the last event."""
    await replace(link, await messages(link))
    assert await link.nc.jetstream().delete_msg(subjects.OPERATIONS_STREAM, EVENTS)

    (line,) = found(await verify(broker))
    assert f"sequence {EVENTS}  it is missing" in line


@pytest.mark.usefixtures("filled")
async def test_checkpoints_of_a_journal_that_grows(
    broker: Broker, journal: Journal, public: Path, tmp_path: Path
) -> None:
    """Each covers the messages since the last one; all or only new messages are verified; open operations continue."""
    path, key = tmp_path / "c", tmp_path / "key"
    assert_clean(await verify(broker, "--checkpoint", path, "--sign", key))
    await work(journal, "later")
    await extend(journal, folded(None, *await journal.events("open")), Progressed(percent=1))
    assert_clean(await verify(broker, "--checkpoint", path, "--key", public))
    assert_clean(await verify(broker, "--checkpoint", path, "--sign", key, "--from-checkpoint"))
    await extend(journal, folded(None, *await journal.events("open")), Canceled())
    quick = await verify(broker, "--checkpoint", path, "--key", public, "--from-checkpoint")
    assert_clean(quick)

    whole = await verify(broker, "--checkpoint", path, "--key", public)

    assert_clean(whole)
    made = [json.loads(line)["checkpoint"] for line in path.read_text().splitlines()]
    count = OPERATIONS * EVENTS + 3
    assert [(one["first"], one["last"]) for one in made] == [(1, count), (count + 1, count + 5)]
    assert "1 event of 0 operations" in quick.stderr
    assert f"{count + 5} messages as covered by 2 checkpoints" in whole.stderr


async def rolled_back(broker: Broker, tmp_path: Path) -> list[ScannedMessage]:
    """Record more and cover it by a checkpoint, then restore the broker's disk. Return what was removed by that."""
    folder, backup = broker._folder, tmp_path / "backup"
    broker.stop()
    shutil.copytree(folder, backup)
    broker.start()
    async with linked(broker.url) as link:
        before = len(await messages(link))
        journal = await opened(link)
        await work(journal, "gone")
        await work(journal, "kept")
        assert_clean(await verify(broker, "--checkpoint", tmp_path / "c", "--sign", tmp_path / "key"))
        later = (await messages(link))[before:]
    broker.stop()
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    broker.start()
    return later


@pytest.mark.usefixtures("filled")
async def test_a_removed_tail(broker: Broker, public: Path, tmp_path: Path) -> None:
    """It is found by the checkpoint, not by a chain, also in a quick verification; and no new checkpoint is made."""
    await rolled_back(broker, tmp_path)
    assert_clean(await verify(broker))
    signed = (tmp_path / "c").read_bytes()

    for options in (("--key", public), ("--key", public, "--from-checkpoint"), ("--sign", tmp_path / "key")):
        (line,) = found(await verify(broker, "--checkpoint", tmp_path / "c", *options))
        assert "its tail was removed" in line
    assert (tmp_path / "c").read_bytes() == signed


@pytest.mark.usefixtures("filled")
async def test_a_removed_operation(broker: Broker, public: Path, tmp_path: Path) -> None:
    """An operation that was left out while the rest was stored again is found by the checkpoint, not by a chain."""
    later = await rolled_back(broker, tmp_path)
    async with linked(broker.url) as link:
        for one in later:
            if ".gone." not in one.subject:
                await link.nc.jetstream().publish(one.subject, one.data)
        journal = await opened(link)
        await work(journal, "more")  # so that the stream is long enough
    assert_clean(await verify(broker))

    (line,) = found(await verify(broker, "--checkpoint", tmp_path / "c", "--key", public))
    assert "are not what it covers" in line


@pytest.mark.usefixtures("filled")
async def test_a_stream_that_was_made_again(broker: Broker, link: Connection, public: Path, tmp_path: Path) -> None:
    """A checkpoint of the earlier stream shows that it was replaced."""
    assert_clean(await verify(broker, "--checkpoint", tmp_path / "c", "--sign", tmp_path / "key"))
    await replace(link, await messages(link))

    assert found(await verify(broker, "--checkpoint", tmp_path / "c", "--key", public)) == []


@pytest.mark.usefixtures("filled")
async def test_findings_are_signed_only_on_demand(
    broker: Broker, link: Connection, public: Path, tmp_path: Path
) -> None:
    """A checkpoint in spite of findings needs --accept-findings, and has their number."""
    path, key = tmp_path / "c", tmp_path / "key"
    await put(link, "open", "progressed", b"{}")

    assert len(found(await verify(broker, "--checkpoint", path, "--sign", key))) == 1
    assert not path.exists()
    assert len(found(await verify(broker, "--checkpoint", path, "--sign", key, "--accept-findings"))) == 1
    assert json.loads(path.read_text())["checkpoint"]["findings"] == 1
    assert_clean(await verify(broker, "--checkpoint", path, "--key", public, "--from-checkpoint"))


@pytest.mark.usefixtures("link")
async def test_the_archive(broker: Broker, link: Connection, journal: Journal) -> None:
    """Its events name their operations. An operation that began before it is a note, foreign bytes are a finding."""
    await work(journal, "op-1")
    copied = await messages(link)
    js = link.nc.jetstream()
    await js.add_stream(StreamConfig(name=subjects.ARCHIVE_STREAM, subjects=["archive.>"]))
    for one in copied[1:]:
        await js.publish(f"archive.book.upload-start.{one.subject.rpartition('.')[2]}", one.data)
    result = await verify(broker, "--from-archive")
    assert_clean(result)
    assert "note: op-1  position 2  sequence 1" in result.stderr
    await js.publish("archive.book.upload-start.started", b"{}")

    (line,) = found(await verify(broker, "--from-archive"))
    assert line.startswith("-  position -  sequence 4")


async def test_without_an_archive(broker: Broker, link: Connection) -> None:
    """The error says what makes one."""
    result = await verify(broker, "--from-archive")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "'opstream provision --archive' makes one" in result.stderr


async def test_the_archive_that_provision_makes(broker: Broker, link: Connection, journal: Journal) -> None:
    """The broker's copies have no findings."""
    await provision(link, Sizing(), archive=ArchiveSizing(), is_update=True)
    await work(journal, "op-1")

    async def is_copied() -> bool:
        return (await stream_bounds(link, subjects.ARCHIVE_STREAM)).messages == EVENTS

    await eventually(is_copied, within=20)
    result = await verify(broker, "--from-archive")
    assert_clean(result)
    assert f"ARCHIVE: {EVENTS} events of 1 operation" in result.stderr


async def limit(link: Connection, seconds: float) -> None:
    """Change the age limit of the journal, which needs the permission to change streams."""
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.OPERATIONS_STREAM)).config
    config.max_age, config.duplicate_window = seconds, min(seconds, 120)
    await js.update_stream(config)


@pytest.mark.usefixtures("filled")
async def test_an_age_limit_that_was_lowered_for_a_while(
    broker: Broker, link: Connection, journal: Journal, public: Path, tmp_path: Path
) -> None:
    """Messages that were removed that way are findings, covered or new, also in a quick verification. While the limit
    is low, a note says that it was lowered."""
    assert_clean(await verify(broker, "--checkpoint", tmp_path / "c", "--sign", tmp_path / "key"))
    covered = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
    await work(journal, "new")
    await limit(link, 1)

    async def is_gone() -> bool:
        return (await stream_bounds(link, subjects.OPERATIONS_STREAM)).messages == 0

    await eventually(is_gone, within=20)
    low = await verify(broker, "--checkpoint", tmp_path / "c", "--key", public)
    await limit(link, 30 * DAY)

    assert "note: the age limit was lowered after checkpoint 1" in low.stderr
    for options in ((), ("--from-checkpoint",)):
        first, second = found(await verify(broker, "--checkpoint", tmp_path / "c", "--key", public, *options))
        assert f"sequence {covered + 1}  messages {covered + 1} to {covered + EVENTS}, which came after" in first
        assert f"messages 1 to {covered} are gone before they could expire" in second


@pytest.mark.usefixtures("filled")
async def test_what_has_expired(broker: Broker, link: Connection) -> None:
    """An operation without its first events, which have expired, is no finding; with a gap in the middle it is one."""
    copy = await messages(link)
    await replace(link, copy[:2], max_age=1)

    async def is_gone() -> bool:
        return (await stream_bounds(link, subjects.OPERATIONS_STREAM)).messages == 0

    await eventually(is_gone, within=20)
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.OPERATIONS_STREAM)).config
    config.max_age = 30 * DAY
    await js.update_stream(config)
    for one in copy[2:]:
        await js.publish(one.subject, one.data)
    (line,) = found(await verify(broker))
    assert "the stream begins at 3, although it is younger than its age limit" in line
    result = await verify(broker, "--accept-beginning")
    assert_clean(result)
    assert "1 operation cut by age" in result.stderr
    assert "note: accepted: -  position -  sequence 1  the stream begins at 3" in result.stderr
    await js.publish(copy[3].subject.replace("op-0", "op-9"), copy[3].data.replace(b"op-0", b"op-9"))

    (line,) = found(await verify(broker, "--accept-beginning"))
    assert "position 4" in line
    assert "they can't have expired" in line


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("has_view", [True, False])
@pytest.mark.parametrize("has_later", [True, False])
async def test_a_journal_that_was_emptied(
    broker: Broker, link: Connection, journal: Journal, has_view: bool, has_later: bool
) -> None:
    """Without any checkpoint, a journal that was emptied by a lower age limit, which was put back, is a finding. It
    stays one until the operator accepts where the journal begins."""
    if has_view:
        async with running(projector(link, journal)):
            await settled(link)
    await limit(link, 1)

    async def is_gone() -> bool:
        return (await stream_bounds(link, subjects.OPERATIONS_STREAM)).messages == 0

    await eventually(is_gone, within=20)
    await limit(link, 30 * DAY)
    if has_later:
        await work(journal, "later")
    first = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).first
    lines = found(await verify(broker))
    assert lines[0].endswith(f"the stream begins at {first}, although it is younger than its age limit")
    assert len(lines) == 1 + has_view
    if has_view:
        what = (
            f"the journal begins at {first}, but the view has {OPERATIONS + 1} operations whose last event was before"
        )
        assert what in lines[1]
    assert_clean(await verify(broker, "--accept-beginning"))


@pytest.mark.usefixtures("filled")
async def test_an_end_that_others_have_read(broker: Broker, link: Connection, journal: Journal) -> None:
    """If the view has seen more than the journal's end, or the broker has cut a damaged block, it is a finding."""
    async with running(projector(link, journal)):
        await settled(link)
    last = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
    broker.stop()
    files = StreamFiles(broker.store, subjects.OPERATIONS_STREAM)
    files.truncate(files.blocks[0], size=list(files.records(files.blocks[0]))[-4].offset)
    files.remove_index()
    broker.start()

    line = found(await verify(broker))[0]

    assert (
        f"sequence {last - 3}  the journal ends before this, but others have read more: the view up to {last - 1}"
        in line
    )
    assert found(await verify(broker, "--accept-beginning"))[0] == line


async def test_the_beginning_belongs_to_the_chain(broker: Broker) -> None:
    """The option without --chain is a usage error."""
    result = await asyncio.to_thread(CliRunner().invoke, main, ["verify", "--accept-beginning", "--nats", broker.url])
    assert result.exit_code == 2
    assert "need --chain: add it" in result.stderr
