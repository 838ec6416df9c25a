"""The table of `opstream actions`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from opstream.cli.commands.actions import table_row
from opstream_journal.actions.action_overview import ActionOverview, WaitingOperations
from opstream_journal.queues.runner_records import RunnerRecord
from opstream_schemas.action_spec import ActionPause

pytestmark = pytest.mark.unit

NOW: Final = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def runner(version: int, free: int) -> RunnerRecord:
    return RunnerRecord(runner=f"r{version}", version=version, slots=32, free=free, since=NOW)


def waiting(reason: str, number: int, oldest: float) -> WaitingOperations:
    return WaitingOperations(reason=reason, number=number, oldest=oldest)


def row(
    *runners: RunnerRecord,
    waits: tuple[WaitingOperations, ...] = (),
    last: datetime | None = None,
    width: int | None = None,
    paused: ActionPause | None = None,
) -> str:
    one = ActionOverview(
        action="book:upload", version=3, runners=runners, last_runner_at=last, waiting=waits, paused=paused
    )
    return table_row(one, NOW, has_colour=False, width=width)


def test_an_action_that_is_served() -> None:
    """Slots of all runners, what waits in all, the oldest of it, and each reason."""
    shown = row(runner(3, 20), runner(3, 32), waits=(waiting("Retry", 1, 64.2), waiting("FreeRunner", 4, 3.0)))
    assert " ".join(shown.split()) == "book:upload 3 2 12/64 5 1m 4s 1 for Retry; 4 for FreeRunner"


def test_an_action_without_runners() -> None:
    """It says for how long there has been none."""
    shown = row(waits=(waiting("Runner", 2, 90_000.0),), last=NOW - timedelta(hours=3, minutes=2))
    assert " ".join(shown.split()) == "book:upload 3 0 - 2 1d 1h 2 for Runner; no runner for 3h 2m"
    assert " ".join(row().split()) == "book:upload 3 0 - 0 -"


def test_runners_of_other_versions() -> None:
    """While an author deploys, it shows which versions run."""
    assert row(runner(2, 32), runner(3, 32)).endswith("runners of version 2, 3")
    assert row(runner(2, 32)).endswith("runners of version 2")
    assert "version" not in row(runner(3, 32))


def test_a_paused_action() -> None:
    """It says since when, until when, by whom and why, as far as that is known; in one line, whatever it is."""
    pause = ActionPause(since=NOW, until=NOW + timedelta(hours=2), by="ann@desk", reason="moving\nthe storage")
    shown = row(runner(3, 32), waits=(waiting("Paused", 2, 3.0),), paused=pause)
    assert "paused since 2026-11-30T12:00Z until 2026-11-30T14:00Z by ann@desk (moving" in shown
    assert "\n" not in shown
    assert shown.endswith("2 for Paused")
    assert row(paused=ActionPause()).endswith("paused")


def test_a_narrow_terminal() -> None:
    """What operations wait for has a line of its own."""
    first, second = row(runner(3, 0), waits=(waiting("FreeRunner", 1, 5.0),), width=80).splitlines()
    assert first.endswith("5s")
    assert second.strip() == "1 for FreeRunner"
