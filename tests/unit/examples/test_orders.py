"""The orders: each cancel, each death, and both, at every moment of the action."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream.testing import EVERY_STEP, RunResult, Signal, run
from opstream_schemas.operation.state import Status
from orders.actions import DAY, open_bank, open_warehouse, place
from orders.records import Item, Order

pytestmark = pytest.mark.unit

SMALL = Order(customer="Ada", address="London", items=[Item(name="tea", cents=500, count=2)])
LARGE = msgspec.structs.replace(SMALL, items=[Item(name="engine", cents=25_000)])
YES = Signal("approval", {"approved": True}, by="bob", after=3600)
NO = Signal("approval", {"approved": False, "reason": "too dear"}, by="bob")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _start_anew(tmp_path, monkeypatch)


def _start_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank and a warehouse without entries."""
    number = len(list(folder.iterdir())) if folder.exists() else 0
    (folder / str(number)).mkdir()
    monkeypatch.setenv("ORDERS_FOLDER", str(folder / str(number)))


def settled(found: RunResult[Any]) -> None:
    """Paid and sent, or neither."""
    has_succeeded = found.status is Status.SUCCEEDED
    assert len(open_bank().balance()) == len(open_warehouse().sent()) == has_succeeded, found.status


def test_a_small_order() -> None:
    """It is charged and shipped at once."""
    found = run(place, SMALL)
    assert (found.status, found.result.cents, found.attempts) == (Status.SUCCEEDED, 1_000, 1)
    settled(found)


def test_a_large_order_is_approved() -> None:
    """It waits for a person, and another attempt ships it."""
    found = run(place, LARGE, signals=[YES])
    assert (found.status, found.result.cents, found.attempts) == (Status.SUCCEEDED, 25_000, 2)
    assert 3600 <= found.seconds < 7200
    settled(found)


def test_a_large_order_that_nobody_approves() -> None:
    """After a week, and at a no, the money is given back."""
    late = run(place, LARGE)
    assert (late.status, late.error.code, late.seconds >= 7 * DAY) == (Status.FAILED, "WaitTimedOut", True)
    settled(late)
    refused = run(place, LARGE, operation_id="op-2", signals=[NO])
    assert (refused.error.code, refused.error.message) == ("NotApproved", "too dear")
    settled(refused)


@pytest.mark.parametrize("signals", [[YES], [NO], []], ids=["yes", "no", "nobody"])
def test_each_death(signals: list[Signal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a runner dies, the order ends as without that, once."""
    found = run(
        place,
        LARGE,
        signals=signals,
        crash_at=EVERY_STEP,
        setup=lambda: _start_anew(tmp_path, monkeypatch),
        check=settled,
    )
    assert len(found.crashes) > 10


def test_each_cancel_with_each_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its client cancels, and wherever a runner dies then: paid and sent, or neither."""

    def anew() -> None:
        _start_anew(tmp_path, monkeypatch)

    base = run(place, LARGE, signals=[YES], cancel_at=EVERY_STEP, setup=anew, check=settled)
    assert {one.status for one in base.cancels} == {Status.CANCELED, Status.SUCCEEDED}
    died = 0
    for one in base.cancels:
        canceled_at, moments = str(one.canceled_at), [str(moment) for moment in one.moments]
        for moment in dict.fromkeys(moments[moments.index(canceled_at) :]):
            if moment != canceled_at:
                anew()
                settled(run(place, LARGE, signals=[YES], cancel_at=canceled_at, crash_at=moment))
                died += 1
    assert died > 100
