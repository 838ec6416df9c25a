"""Commands that meet other writers: the one rule for version conflicts (docs/adr/0028)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest

from opstream_journal import ExpectedVersion, Journal, JournalUnavailable, command_handler
from opstream_journal.command_handler import CommandHandler, Proposal
from opstream_journal.errors import ConflictWithoutNews
from opstream_runner.attempt.event_recorder import EventRecorder
from opstream_runner.dependencies import RunnerDependencies
from opstream_schemas.errors import FoldRefused
from opstream_schemas.events import Progressed
from opstream_schemas.operation.commands import RequestCancel
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation
from tests.support.journal.journals import begin, extend
from tests.support.schemas.histories import started

pytestmark = pytest.mark.broker

AHEAD = 1_000
CANCEL = RequestCancel(by="test", reason="")


@pytest.fixture
def handler(journal: Journal) -> CommandHandler:
    """A handler on `journal`, whose event ids count from 1."""
    return _handler(journal, itertools.count(1))


def _handler(journal: Journal, numbers: Iterator[int]) -> CommandHandler:
    return CommandHandler(
        journal=journal,
        source="test",
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        new_id=lambda: f"decided-{next(numbers)}",
    )


async def _load(journal: Journal) -> Operation:
    operation = fold(None, await journal.events("a"))
    assert operation is not None
    return operation


def _ahead(proposal: Proposal | None) -> Proposal:
    """The proposal of a writer that has seen what the journal does not have."""
    assert proposal is not None
    return msgspec.structs.replace(proposal, expected=ExpectedVersion(proposal.expected + AHEAD))


async def test_news_is_decided_by_at_once(
    handler: CommandHandler, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a conflict with news the writer decides again, under a new event id and without a pause."""
    monkeypatch.setattr(command_handler, "_PAUSE", 3_600.0)
    operation = await extend(journal, await begin(journal, "a"), started())
    proposals: list[Proposal | None] = []

    async def propose() -> Proposal | None:
        current = await _load(journal)
        if not proposals:
            await extend(journal, operation, Progressed(percent=1))
        proposals.append(handler.propose(current, CANCEL))
        return proposals[-1]

    stored = await handler.record(propose, budget=10)
    assert stored is not None
    assert (stored.id, stored.position) == ("decided-2", 4)
    assert len(proposals) == 2


async def test_a_conflict_without_news_that_passes(handler: CommandHandler, journal: Journal) -> None:
    """Without news the writer pauses and appends again: a leader of before is replaced after a while."""
    await begin(journal, "a")
    tries = 0

    async def propose() -> Proposal | None:
        nonlocal tries
        tries += 1
        proposal = handler.propose(await _load(journal), CANCEL)
        return _ahead(proposal) if tries < 3 else proposal

    stored = await handler.record(propose, budget=10)
    assert stored is not None
    assert (stored.id, stored.position) == ("decided-3", 2)


async def test_conflicts_without_news_end(handler: CommandHandler, journal: Journal) -> None:
    """After five conflicts in a row without news the writer gives up, long before its budget; nothing is stored."""
    await begin(journal, "a")
    tries = 0

    async def propose() -> Proposal | None:
        nonlocal tries
        tries += 1
        return _ahead(handler.propose(await _load(journal), CANCEL))

    with pytest.raises(ConflictWithoutNews, match="yet nothing newer can be read") as raised:
        await handler.record(propose, budget=3_600)
    assert tries == 6
    assert not raised.value.maybe_stored
    assert len(await journal.events("a")) == 1


async def test_news_starts_the_count_again(
    handler: CommandHandler, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only conflicts in a row count: a writer that is behind, but sees progress, goes on."""
    monkeypatch.setattr(command_handler, "_PAUSE", 0.0)
    operation = await extend(journal, await begin(journal, "a"), started())
    tries = 0

    async def propose() -> Proposal | None:
        nonlocal tries, operation
        tries += 1
        if tries in {4, 8}:
            operation = await extend(journal, operation, Progressed(percent=tries))
        proposal = handler.propose(operation, CANCEL)
        return _ahead(proposal) if tries < 10 else proposal

    stored = await handler.record(propose, budget=30)
    assert stored is not None
    assert stored.id == "decided-10"


async def test_the_budget_bounds_conflicts_with_news(handler: CommandHandler, journal: Journal) -> None:
    """A writer that loses every race ends with its budget."""
    operation = await extend(journal, await begin(journal, "a"), started())

    async def propose() -> Proposal | None:
        nonlocal operation
        proposal = handler.propose(operation, CANCEL)
        operation = await extend(journal, operation, Progressed(percent=1))
        return proposal

    with pytest.raises(JournalUnavailable, match="again and again"):
        await handler.record(propose, budget=0.5)


async def test_an_attempt_lets_go_of_what_is_lost(journal: Journal) -> None:
    """An attempt whose last events are not in the journal any more can't record anything, and says so."""
    operation = await extend(journal, await begin(journal, "a"), started())
    lost = msgspec.structs.replace(operation, stream_sequence=operation.stream_sequence + AHEAD)
    with pytest.raises(FoldRefused, match="not in the journal any more"):
        await _recorder(journal, lost).record(lambda _: CANCEL, budget=3_600)


async def test_an_attempt_decides_by_what_it_holds(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording an event reads nothing, as long as no other writer was first."""
    recorder = _recorder(journal, await begin(journal, "a"))
    monkeypatch.setattr(journal, "events", None)
    assert (await recorder.record(lambda _: CANCEL, budget=10)).position == 2


def _recorder(journal: Journal, operation: Operation) -> EventRecorder:
    numbers = itertools.count(1)
    dependencies = RunnerDependencies(
        journal=journal,
        source="test",
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        new_id=lambda: f"recorded-{next(numbers)}",
        result_limit=1024,
        jitter=lambda: 1.0,
    )
    return EventRecorder(dependencies, operation)
