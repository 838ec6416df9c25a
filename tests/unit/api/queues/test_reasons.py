"""Which reason follows from one look at the runners of an action."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest

from opstream_api.queues.waiting_reasons import Look, RunnerConsumer, blocked_by, unserved
from opstream_journal.queues.runner_records import ActionRunners, RunnerRecord
from opstream_schemas.action_spec import ActionPause, Policy
from opstream_schemas.status_monitor import BlockedBy

pytestmark = pytest.mark.unit

SEEN: Final = datetime(2026, 11, 30, 9, 0, 0, tzinfo=UTC)


def runners(*versions: int) -> ActionRunners:
    found = (RunnerRecord(runner=f"r{one}", version=one, slots=4, free=0, since=SEEN) for one in versions)
    return ActionRunners(tuple(found), SEEN.timestamp() + 0.7)


def look(presence: ActionRunners | None = None, **consumer: int) -> Look:
    return Look(RunnerConsumer(**consumer), presence)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (look(num_pending=1), {"reason": "Runner"}),
        (look(runners(), num_pending=1), {"reason": "Runner", "since": "2026-11-30T09:00:00Z"}),
        (look(runners(), num_ack_pending=1), {"reason": "Runner", "since": "2026-11-30T09:00:00Z"}),
        (look(runners(2), num_pending=1), {"reason": "Runner", "since": "2026-11-30T09:00:00Z"}),
        (look(num_ack_pending=1, num_pending=1), {"reason": "FreeRunner"}),
        (look(runners(2, 3), num_ack_pending=1, num_pending=1), {"reason": "FreeRunner", "runners": 2, "slots": 8}),
        (look(runners(1), num_waiting=1), {"reason": "Version", "version": 2, "runnerVersions": [1]}),
        (look(runners(3), num_waiting=1), {"reason": "Version", "version": 2, "runnerVersions": [3]}),
        (look(runners(3), num_waiting=1, num_pending=1), None),
        (look(runners(2, 3), num_waiting=1), None),
        (look(num_waiting=1), None),
    ],
)
def test_what_an_operation_of_version_2_waits_for(seen: Look, expected: Any) -> None:
    """A runner of a later version may run it, so only one that has left it to others counts as none."""
    found = blocked_by(seen, 2, Policy())
    assert (None if found is None else msgspec.json.decode(msgspec.json.encode(found))) == expected


@pytest.mark.parametrize("seen", [look(num_pending=1), look(runners(2), num_waiting=1), look(runners(1))])
def test_a_pause_comes_first(seen: Look) -> None:
    """Whether there are runners, of whichever version: while the action is paused, none of them would help."""
    pause = ActionPause(since=SEEN, by="ann", reason="moving")
    paused = msgspec.structs.replace(seen, pause=pause)
    expected = BlockedBy(reason="Paused", since=SEEN, by="ann", message="moving")
    assert blocked_by(paused, 2, Policy()) == unserved(paused, 2) == expected


def test_the_most_that_may_run() -> None:
    """As many run as the action allows, though runners have room; those of killed runners don't count."""
    policy = Policy(max_concurrency=1)
    found = blocked_by(look(runners(2), num_waiting=1, num_ack_pending=1, num_pending=1), 2, policy)
    assert found is not None
    assert (found.reason, found.slots) == ("Concurrency", 1)
    gone = blocked_by(look(runners(), num_ack_pending=1, num_pending=1), 2, policy)
    assert gone is not None
    assert gone.reason == "Runner"


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (look(), "Runner"),
        (look(runners(1), num_waiting=1), "Version"),
        (look(runners(2), num_waiting=1), None),
        (look(runners(2)), None),
        (look(runners(3), num_ack_pending=1), None),
        (look(num_waiting=1), None),
    ],
)
def test_whether_a_submit_is_served(seen: Look, reason: str | None) -> None:
    """A busy runner serves, too, and so does one between two requests for work; one of an earlier version does not."""
    found = unserved(seen, 2)
    assert (None if found is None else found.reason) == reason
