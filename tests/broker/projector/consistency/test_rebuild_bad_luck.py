"""What a rebuild and a verification do with invalid messages in the journal: they report them, and continue."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from click.testing import CliRunner, Result

from opstream.cli.app import main
from opstream_journal import Connection, Journal, SnapshotStore
from opstream_journal.forced_end import fail_by_operator
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing, streams
from opstream_schemas import subjects
from opstream_schemas.events import Progressed, encode_event
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker
from tests.support.journal.journals import extend, first, following, linked, opened
from tests.support.projector.consistency import RebuildResult, begun, lose, publish, rebuilt, verified
from tests.support.projector.deadlines import command_handler
from tests.support.projector.projection import LIFE, RESULT, assert_is_fold, projector, running, settled
from tests.support.schemas.histories import FromTheFuture, started

pytestmark = pytest.mark.broker


async def check_all(link: Connection, journal: Journal, view: SnapshotStore, ids: tuple[str, ...]) -> RebuildResult:
    """Project, verify, and rebuild: verification finds no difference, and a rebuild from an empty view, also one that
    evicts states, makes the same entries."""
    async with running(projector(link, journal)):
        await settled(link, within=40)
    projected = {one: (await view.get_newest(one)).operation for one in ids}
    assert (await verified(link, journal)).lines == []
    await lose(link)
    done = await rebuilt(link, journal)
    assert {one: (await view.get_newest(one)).operation for one in ids} == projected
    await lose(link)
    await rebuilt(link, journal, max_states=1)
    assert {one: (await view.get_newest(one)).operation for one in ids} == projected
    assert (await verified(link, journal, max_states=1)).lines == []
    return done


async def test_a_corrupt_message(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """It is counted and named; its operation keeps its state, and is reported to need an end; all others are right."""
    await begun(journal, "hurt", started())
    sequence = await publish(link, "hurt", "progressed", b"\x00 not an event")
    await begun(journal, "well", *LIFE)
    done = await check_all(link, journal, view, ("hurt", "well"))
    assert done.fold.invalid.count == 1
    assert f"sequence {sequence} (operations.hurt.book.upload-start.progressed)" in done.fold.invalid.examples[0]
    assert list(done.unfoldable.examples) == ["hurt"]


@pytest.mark.parametrize(
    "line",
    [b"PUB operations.odd.\xff\xfe.b.started 2\r\n{}", b"HPUB operations.odd.book.b.started 2 4\r\nxx{}"],
    ids=["subject", "header"],
)
async def test_what_nats_py_can_not_read(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore, line: bytes
) -> None:
    """A message whose subject is not UTF-8, or whose headers are invalid, is skipped and counted."""
    async with linked(broker.url) as other:
        writer = other.nc._transport._bare_io_writer
        writer.write(line + b"\r\n")
        await other.nc.flush()
    await begun(journal, "well", *LIFE)
    done = await check_all(link, journal, view, ("well",))
    assert done.fold.invalid.count == 1
    assert "sequence 1 (operations.odd." in done.fold.invalid.examples[0]


async def test_foreign_messages(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """An event that does not follow the one before it, and one of another operation, are skipped."""
    lied = await begun(journal, "lied", started())
    liar = msgspec.structs.replace(following(lied, Progressed(percent=9.0)), previous_hash="f" * 64)
    await publish(link, "lied", "progressed", encode_event(liar))
    other = await begun(journal, "other", started())
    await publish(link, "other", "progressed", encode_event(following(lied, Progressed(percent=9.0))))
    await extend(journal, await begun(journal, "well"), started())
    done = await check_all(link, journal, view, ("lied", "other", "well"))
    assert (await view.get_newest("other")).operation == other
    assert sorted(done.unfoldable.examples) == ["lied", "other"]
    assert done.fold.invalid.count == 1


async def test_a_second_request(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """It does not restart an operation that has ended, or is open."""
    ended = await begun(journal, "ended", *LIFE)
    opened_once = await begun(journal, "open", started())
    for one in ("ended", "open"):
        await publish(link, one, "requested", encode_event(first(one)))
    for max_states in (1_000, 1):
        await lose(link)
        done = await rebuilt(link, journal, max_states=max_states)
        assert (done.missing, sorted(done.unfoldable.examples)) == (2, ["ended", "open"])
        assert (await view.get_newest("ended")).operation == ended
        assert (await view.get_newest("open")).operation == opened_once
        assert (await verified(link, journal, max_states=max_states)).lines == []


async def test_an_event_of_a_newer_version(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """It is counted, named and skipped, as the projector does."""
    operation = await begun(journal, "op-1", started())
    await publish(link, "op-1", "progressed", encode_event(following(operation, FromTheFuture())))
    done = await check_all(link, journal, view, ("op-1",))
    assert (done.fold.unknown.count, done.unfoldable.count) == (1, 0)
    assert FromTheFuture.type in done.fold.unknown.examples[0]
    stored = (await view.get_newest("op-1")).operation
    assert stored is not None
    assert (stored.position, stored.skipped) == (3, 1)


async def test_a_forced_end_settles_it(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """An operation that an operator has ended is not reported any more."""
    operation = await begun(journal, "hurt", started())
    await publish(link, "hurt", "progressed", b"\x00 not an event")
    await publish(link, "hurt", "progressed", encode_event(following(operation, FromTheFuture())))
    await fail_by_operator(command_handler(journal), "hurt", reason="damaged", is_forced=True, budget=10)
    done = await check_all(link, journal, view, ("hurt",))
    assert (done.unfoldable.count, done.fold.invalid.count, done.fold.unknown.count) == (0, 1, 1)
    stored = (await view.get_newest("hurt")).operation
    assert stored is not None
    assert stored.status == "Failed"


async def test_a_subject_without_an_operation(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Messages under an invalid operation id are only counted."""
    await link.nc.jetstream().publish("operations.what?.book.upload-start.progressed", b"{}")
    await begun(journal, "well", *LIFE)
    done = await check_all(link, journal, view, ("well",))
    assert (done.fold.invalid.count, done.unfoldable.count, done.missing) == (1, 0, 1)


async def test_a_gap_in_the_sequence(broker: Broker) -> None:
    """If an event in the middle of an operation is missing, the state before it counts; others are right."""
    async with linked(broker.url) as link:
        for config in streams(Sizing()):
            may_delete = config.name != subjects.OPERATIONS_STREAM
            await admin.create_stream(link, config if may_delete else config.evolve(deny_delete=False))
        await provision(link, Sizing())
        journal, view = await opened(link), SnapshotStore(link)
        hurt = await begun(journal, "hurt", started())
        gone = await extend(journal, hurt, Progressed(percent=1.0))
        await extend(journal, gone, RESULT)
        await begun(journal, "well", *LIFE)
        await link.nc.jetstream().delete_msg(subjects.OPERATIONS_STREAM, gone.stream_sequence)

        done = await rebuilt(link, journal)

        assert (done.missing, list(done.unfoldable.examples)) == (2, ["hurt"])
        assert (await view.get_newest("hurt")).operation == hurt
        await assert_is_fold(view, journal, ["well"])
        assert (await verified(link, journal)).lines == []


async def test_many_of_them(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Only a few are named, all are counted."""
    hurt: list[Operation] = [await begun(journal, f"op-{number}", started()) for number in range(30)]
    for one in hurt:
        await publish(link, one.id, "progressed", b"nothing")
        await publish(link, one.id, "progressed", encode_event(following(one, FromTheFuture())))
    done = await check_all(link, journal, view, tuple(one.id for one in hurt))
    assert (done.fold.invalid.count, len(done.fold.invalid.examples)) == (30, 5)
    assert (done.fold.unknown.count, len(done.fold.unknown.examples)) == (30, 5)
    assert (done.unfoldable.count, len(done.unfoldable.examples)) == (30, 20)


def invoke(broker: Broker, *options: str) -> Result:
    """Invoke the command."""
    return CliRunner().invoke(main, ["rebuild", "--nats", broker.url, *options])


async def test_the_command(broker: Broker, link: Connection, journal: Journal) -> None:
    """It reports what can't be folded and what to do about it, prints one line, and ends with 0: others are written."""
    await begun(journal, "hurt", started())
    await publish(link, "hurt", "progressed", b"nothing")
    await begun(journal, "well", *LIFE)
    result = await asyncio.to_thread(invoke, broker)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("7 events of 2 operations read, 0 entries rewritten, 2 missing ones written, 0 rem")
    assert result.stdout.count("\n") == 1
    assert "1 operations can't be folded completely" in result.stderr
    assert "'opstream fail ID --force'" in result.stderr
    assert "\n  hurt: message 3 of the journal is not an opstream event" in result.stderr

    result = await asyncio.to_thread(invoke, broker, "--json")
    summary = msgspec.json.decode(result.stdout)
    assert summary.pop("seconds") > 0
    assert summary == {"events": 7, "operations": 2, "rewritten": 0, "missing": 0, "removed": 0, "kept": 0}


def test_the_command_on_the_wrong_broker(broker: Broker) -> None:
    """One line says what is missing, and the exit status is 1."""
    result = invoke(broker)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has no journal: is it the right one? If it had a journal, stop the services and restore it" in result.stderr
    assert "otherwise 'opstream provision' makes an empty one" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_command_without_a_broker() -> None:
    """One line says so, and the exit status is 1; an option that is wrong is a usage error."""
    result = CliRunner().invoke(main, ["rebuild", "--nats", "nats://127.0.0.1:9", "--connect-timeout", "0.2"])
    assert result.exit_code == 1
    assert "no NATS broker answered" in result.stderr
    assert CliRunner().invoke(main, ["rebuild", "--nats", "http://x"]).exit_code == 2
