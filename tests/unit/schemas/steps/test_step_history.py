"""The decision about a step, row by row (docs/steps.md)."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Final

import msgspec
import pytest

from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.steps.step_history import (
    OnChanged,
    RefuseChanged,
    RefuseInterrupted,
    RunStep,
    StepDecision,
    StepHistory,
    StepRecord,
    UseResult,
    step_records,
)
from tests.support.schemas.histories import History, request, started, step_done

pytestmark = pytest.mark.unit

PAGE: Final = Path(__file__).resolve().parents[4] / "docs" / "steps.md"
ONE, TWO = msgspec.Raw(b"1"), msgspec.Raw(b"2")
PAYLOAD = PayloadRef(uri=f"payload:op-1/{'a' * 32}", size=300_000, sha256="0" * 64)


def begun(input_hash: str = "a", attempt: int = 1, key: str = "") -> StepRecord:
    return StepRecord(step="s", key=key, input_hash=input_hash, attempt=attempt)


def stored(input_hash: str, attempt: int = 1) -> StepRecord:
    """The record of a result that is too large for its event."""
    return StepRecord(step="s", input_hash=input_hash, attempt=attempt, payload=PAYLOAD)


def done(input_hash: str, result: msgspec.Raw, attempt: int = 1, key: str = "") -> StepRecord:
    return StepRecord(step="s", key=key, input_hash=input_hash, attempt=attempt, result=result)


CASES: Final[list[tuple[list[StepRecord], OnChanged, bool, StepDecision]]] = [
    ([], OnChanged.RERUN, False, RunStep(1)),
    ([done("a", ONE, key="k"), begun(key="k")], OnChanged.FAIL, True, RunStep(1)),
    ([done("a", ONE)], OnChanged.FAIL, True, UseResult(2, ONE, 1)),
    ([done("a", ONE), done("b", TWO, 2)], OnChanged.RERUN, False, UseResult(2, ONE, 1)),
    ([begun(), done("a", ONE)], OnChanged.FAIL, True, UseResult(2, ONE, 1)),
    ([begun(), stored("a")], OnChanged.FAIL, True, UseResult(2, msgspec.UNSET, 1, PAYLOAD)),
    ([begun()], OnChanged.FAIL, True, RefuseInterrupted(3, 1)),
    ([begun("b", 2)], OnChanged.KEEP, True, RefuseInterrupted(3, 2)),
    ([done("b", ONE), begun("c", 2)], OnChanged.KEEP, True, RefuseInterrupted(3, 2)),
    ([begun()], OnChanged.FAIL, False, RunStep(4)),
    ([done("b", ONE)], OnChanged.RERUN, False, RunStep(5)),
    ([done("b", ONE), done("c", TWO, 2)], OnChanged.KEEP, False, UseResult(5, TWO, 2)),
    ([done("b", ONE), stored("c", 2)], OnChanged.KEEP, False, UseResult(5, msgspec.UNSET, 2, PAYLOAD)),
    ([done("b", ONE), done("c", TWO, 2)], OnChanged.FAIL, True, RefuseChanged(5, 2)),
    ([begun("b"), done("b", ONE)], OnChanged.KEEP, True, UseResult(5, ONE, 1)),
]


@pytest.mark.parametrize(("records", "on_changed", "at_most_once", "expected"), CASES)
def test_each_row(
    records: list[StepRecord], on_changed: OnChanged, *, at_most_once: bool, expected: StepDecision
) -> None:
    """The first row that matches wins."""
    assert StepHistory(records).decide("s", "", "a", on_changed=on_changed, at_most_once=at_most_once) == expected


def test_the_page_has_each_row() -> None:
    """The table of the page has the rows of the code."""
    numbers = re.findall(r"^\| (\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(one) for one in numbers] == sorted({expected.row for *_, expected in CASES})


def test_what_must_run_once_never_runs_after_it_began() -> None:
    """Whatever else is recorded, and whatever its options are."""
    others = [begun("b"), done("b", ONE), done("c", TWO)]
    for before, on_changed, hash_ in product(others, OnChanged, "abc"):
        decision = StepHistory([before, begun("d", 2)]).decide("s", "", hash_, on_changed=on_changed, at_most_once=True)
        assert not isinstance(decision, RunStep)


def test_records_come_from_events() -> None:
    """Results and starts, in their order; nothing else of the operation."""
    history = History().append(request(), started(), step_done(result=b'{"a":1}'), started(2), step_done(2, key="k"))
    assert step_records(history.events) == (
        StepRecord(step="copy", input_hash="0" * 64, attempt=1, position=3, result=msgspec.Raw(b'{"a":1}')),
        StepRecord(step="copy", key="k", input_hash="0" * 64, attempt=2, position=5, result=msgspec.Raw(b"7")),
    )
