"""Comparing the view with the journal on a real broker: differences are reported, and lags are waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec
import pytest

from opstream.cli.commands.verify import VerifySettings, verify_view
from opstream_journal import Connection, Journal
from opstream_journal.stores.snapshots import encode_snapshot
from opstream_projector.consistency.verify import GRACE
from opstream_schemas import subjects
from opstream_schemas.operation.state import FOLD_VERSION, STEPS_FOLD_VERSION, Operation
from tests.support.broker.server import Broker
from tests.support.journal.journals import extend, linked, opened
from tests.support.projector.consistency import begun, exit_status, lose, overwrite, verified
from tests.support.projector.projection import LIFE, RESULT, projector, running, settled, view_writes

pytestmark = pytest.mark.broker


@pytest.fixture
async def operations(link: Connection, journal: Journal) -> dict[str, Operation]:
    """Two operations, one open and one ended, and a correct view."""
    found = {
        "open": await begun(journal, "open", *LIFE[:2]),
        "ended": await begun(journal, "ended", *LIFE),
    }
    async with running(projector(link, journal)):
        await settled(link)
    return found


async def test_a_correct_view(link: Connection, journal: Journal, operations: dict[str, Operation]) -> None:
    """Nothing is reported, waited for or written."""
    writes = await view_writes(link)
    found = await verified(link, journal)
    assert (found.lines, found.waited_for, found.fold.events) == ([], [], 7)
    assert await view_writes(link) == writes


@pytest.mark.parametrize("max_states", [1, 1_000])
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"message": "never said"}, 'open: message: journal nothing, view "never said"'),
        ({"percent_complete": 77.0}, "open: percentComplete: journal 50.0, view 77.0"),
        ({"position": 2}, "open: position: journal 3, view 2"),
        ({"stream_sequence": 99}, "open: streamSequence: journal 3, view 99"),
        (
            {"fold_version": 77, "message": "never said"},
            f"open: the entry is of fold version 77, this is {FOLD_VERSION}; Running in the journal (position 3)",
        ),
        ({"id": "another"}, "open: the entry is of operation another; Running in the journal (position 3)"),
    ],
)
async def test_a_forged_entry(
    link: Connection,
    journal: Journal,
    operations: dict[str, Operation],
    changes: dict[str, Any],
    line: str,
    max_states: int,
) -> None:
    """One line reports the operation, the fields that differ and both values, once."""
    liar = msgspec.structs.replace(operations["open"], **changes)
    await overwrite(link, "open", encode_snapshot(liar))
    writes = await view_writes(link)
    assert (await verified(link, journal, max_states=max_states)).lines == [line]
    assert await view_writes(link) == writes


async def test_other_wrong_entries(link: Connection, journal: Journal, operations: dict[str, Operation]) -> None:
    """A missing entry, one that is not a snapshot, and entries of unknown operations are reported."""
    await lose(link, "ended")
    await overwrite(link, "open", b"{}")
    await overwrite(link, "orphan", encode_snapshot(msgspec.structs.replace(operations["ended"], id="orphan")))
    await overwrite(link, "rubbish", b"rubbish")
    found = await verified(link, journal)
    assert sorted(found.lines) == [
        "ended: missing in the view, Succeeded in the journal (position 4)",
        "open: the entry is not readable; Running in the journal (position 3)",
        "orphan: only in the view, Succeeded (sequence 7); its events are lost: between events that the journal has",
        "rubbish: in the view, but not in the journal",
    ]
    assert (found.behind, found.waited_for) == (0, [])


@pytest.mark.parametrize("fold_version", [FOLD_VERSION - 1, STEPS_FOLD_VERSION + 1])
async def test_entries_of_another_version(
    link: Connection, journal: Journal, operations: dict[str, Operation], fold_version: int
) -> None:
    """An entry that another version folded from the same events is counted and is no difference, if clients read the
    same from it, or if this version can't read all of it."""
    other = msgspec.structs.replace(operations["open"], fold_version=fold_version, skipped=3)
    await overwrite(link, "open", encode_snapshot(other))
    fields = msgspec.json.decode(encode_snapshot(operations["ended"]))
    fields |= {"foldVersion": fold_version, "retention": {"days": 1}}
    await overwrite(link, "ended", msgspec.json.encode(fields))
    for max_states in (1_000, 1):
        found = await verified(link, journal, max_states=max_states)
        assert (found.lines, found.of_other_version) == ([], 2)
    assert not found.evidence.is_setback


async def test_an_entry_of_another_version_that_lags(
    link: Connection, journal: Journal, operations: dict[str, Operation]
) -> None:
    """It is a lag as long as the projector has not come so far, and a difference afterwards."""
    other = msgspec.structs.replace(operations["open"], fold_version=FOLD_VERSION - 1)
    await overwrite(link, "open", encode_snapshot(other))
    await extend(journal, operations["open"], RESULT)
    assert (await verified(link, journal)).behind == 1
    async with running(projector(link, journal)):
        await settled(link)
    await overwrite(link, "open", encode_snapshot(other))
    found = await verified(link, journal)
    assert (len(found.lines), found.behind, found.of_other_version) == (1, 0, 0)


async def test_without_a_projector(link: Connection, journal: Journal, operations: dict[str, Operation]) -> None:
    """Verification waits for events that are not projected yet, and reports them as a lag if that does not happen."""
    await extend(journal, operations["open"], RESULT)
    await begun(journal, "new")
    found = await verified(link, journal)
    assert sorted(line.partition(":")[0] for line in found.lines) == ["new", "open"]
    assert found.behind == 2
    assert found.waited_for[0] == 2


async def test_a_late_projector(link: Connection, journal: Journal, operations: dict[str, Operation]) -> None:
    """A lag that ends within the grace is no difference."""
    await extend(journal, operations["open"], RESULT)
    await begun(journal, "new")
    found = asyncio.create_task(verified(link, journal, grace=20.0))
    async with running(projector(link, journal)):
        await settled(link)
    assert (await found).lines == []


async def test_the_grace_outlasts_a_killed_projector(link: Connection) -> None:
    """What a killed projector held is redelivered after the ack_wait, which is shorter than the grace."""
    info = await link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER)
    assert info.config.ack_wait is not None
    assert info.config.ack_wait + 5 < GRACE


async def test_while_the_system_works(broker: Broker, link: Connection, journal: Journal) -> None:
    """With projectors and writers at work, repeated verifications find nothing."""
    ids = [f"op-{number}" for number in range(150)]

    async def work() -> None:
        for start in range(0, len(ids), 15):
            await asyncio.gather(*(begun(journal, one, *LIFE) for one in ids[start : start + 15]))

    async with linked(broker.url) as other:
        second = await opened(other)
        async with running(projector(link, journal), projector(other, second)):
            working = asyncio.create_task(work())
            count = 0
            while not working.done() or not count:
                assert (await verified(other, second, max_states=4, grace=20.0)).lines == []
                count += 1
            await working


async def test_the_command(
    broker: Broker, link: Connection, operations: dict[str, Operation], capsys: pytest.CaptureFixture[str]
) -> None:
    """Differences go to stdout, the summary to stderr; the exit status is 1 if there is a difference and 0 if not."""
    assert await asyncio.to_thread(exit_status, broker.url) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "7 events of 2 operations read" in output.err
    assert "the view is the fold of the journal" in output.err

    older = msgspec.structs.replace(operations["open"], fold_version=FOLD_VERSION - 1)
    await overwrite(link, "open", encode_snapshot(older))
    assert await asyncio.to_thread(exit_status, broker.url) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "the view is the fold of the journal, 1 entry of it written by another version of opstream" in output.err

    await lose(link, "ended")
    assert await asyncio.to_thread(exit_status, broker.url) == 1
    output = capsys.readouterr()
    assert output.out == "ended: missing in the view, Succeeded in the journal (position 4)\n"
    assert "1 difference: 'opstream rebuild' puts the view right" in output.err


async def test_the_command_without_projector(
    broker: Broker, link: Connection, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lag is reported as a lag, with a hint where to look."""
    await begun(journal, "new")
    assert await asyncio.to_thread(exit_status, broker.url) == 1
    output = capsys.readouterr()
    assert output.out == "new: missing in the view, NotStarted in the journal (position 1)\n"
    assert "1 operations are not up to date: is a projector running?" in output.err
    assert "all of them because the view is not up to date" in output.err


def test_a_broker_without_journal(broker: Broker) -> None:
    """One line says so."""
    with pytest.raises(click.ClickException, match="has no journal"):
        verify_view(VerifySettings(servers=(broker.url,), connect_timeout=5.0))
