"""`/readyz` of the API: a known cause comes before a measurement, and every answer has the same shape."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from opstream_api.operations.journal_capacity import JournalCapacity
from opstream_api.probes.readiness import readiness
from opstream_journal import JournalError, JournalFull, JournalUnavailable
from opstream_journal.runtime.conditions import Conditions


class Capacity:
    """A journal that is measured with a given result."""

    def __init__(self, error: JournalError | None = None, conditions: Conditions | None = None) -> None:
        self._error = error
        self._conditions = conditions

    async def ensure_ready(self) -> None:
        """Fail with the error; with conditions, one begins meanwhile."""
        if self._conditions is not None:
            self._conditions.report("JournalHasNoLeader", "no leader", "start servers", is_blocking=True)
        if self._error is not None:
            raise self._error


async def answer(conditions: Conditions, capacity: Capacity) -> tuple[int, dict[str, Any]]:
    """The status and the decoded body."""
    response = await readiness(conditions, cast("JournalCapacity", capacity))
    return response.status_code, msgspec.json.decode(response.body)


UNAVAILABLE = JournalUnavailable("no answer", maybe_stored=False)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_condition_is_the_answer(*, is_late: bool) -> None:
    """Also if the journal can't be measured, and if the condition begins only then."""
    conditions = Conditions()
    conditions.report("ClockSkew", "7 s fast", "set it")
    if not is_late:
        conditions.report("JournalHasNoLeader", "no leader", "start servers", is_blocking=True)
    status, body = await answer(conditions, Capacity(UNAVAILABLE, conditions))
    assert status == 503
    assert body["status"] == "not ready"
    assert body["error"]["target"] == "JournalHasNoLeader"
    assert body["error"]["message"] == "no leader; next step: start servers"
    assert [one["name"] for one in body["conditions"]] == ["ClockSkew", "JournalHasNoLeader"]
    assert body["conditions"][1]["nextStep"] == "start servers"


@pytest.mark.parametrize(
    ("error", "name", "step"),
    [
        (UNAVAILABLE, "JournalUnavailable", "start the broker"),
        (JournalFull("no room"), "JournalFull", "raise the journal's limit"),
    ],
)
async def test_a_failed_measurement_is_shown_as_a_condition(error: JournalError, name: str, step: str) -> None:
    """What is not among the conditions yet has their shape nevertheless."""
    conditions = Conditions()
    status, body = await answer(conditions, Capacity(error))
    assert (status, body["error"]["code"]) == (503, name)
    (shown,) = body["conditions"]
    assert (shown["name"], shown["isBlocking"]) == (name, True)
    assert shown["nextStep"].startswith(step)
    assert conditions.current == []


async def test_ready() -> None:
    """What blocks nothing is shown beside the status."""
    conditions = Conditions()
    assert await answer(conditions, Capacity()) == (200, {"status": "ready"})
    conditions.report("ClockSkew", "7 s fast", "set it")
    status, body = await answer(conditions, Capacity())
    assert (status, [one["name"] for one in body["conditions"]]) == (200, ["ClockSkew"])
