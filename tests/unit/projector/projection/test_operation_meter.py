"""The projector's counters: each outcome once, with the times between its events, and no series for inventions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from opstream_journal.metrics.action_labels import OTHER, ActionLabels
from opstream_journal.metrics.instruments import Instrument
from opstream_projector.projection.operation_meter import OperationMeter
from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    EventData,
    Failed,
    OperationError,
    Started,
    Succeeded,
)
from opstream_schemas.names import Kind
from tests.support.schemas.histories import NOW, History, request

pytestmark = pytest.mark.unit

KIND = Kind("book", "upload-start")
ERROR = OperationError(code="Broken", message="it broke")


def started(attempt: int) -> Started:
    """An attempt begins."""
    return Started(attempt=attempt, runner="r", token=f"t-{attempt}", ticket=attempt, lease=30.0)


def history(*datas: EventData, **changes: Any) -> History:
    """An operation whose events are a second apart."""
    return History().append(request(**changes), *datas)


def count(meter: OperationMeter, one: History) -> None:
    """Count all its events, in two batches as they may come."""
    meter.count(one.operation, one.events[:2])
    meter.count(one.operation, one.events[2:])


def values(instrument: Instrument, suffix: str) -> dict[tuple[str, ...], float]:
    """The numbers of a family by their labels."""
    return {sample.labels: sample.value for sample in instrument.samples() if sample.suffix == suffix}


@pytest.fixture
def meter() -> OperationMeter:
    return OperationMeter(ActionLabels(lambda: {KIND}))


def test_an_operation_with_a_retry(meter: OperationMeter) -> None:
    """It waited until its first attempt, and took until its end; a later attempt is no second wait."""
    failed = AttemptFailed(attempt=1, error=ERROR, retry_at=NOW, counted=True)
    count(meter, history(started(1), failed, started(2), Failed(error=ERROR)))
    outcomes, queue, operation = meter.instruments
    assert values(outcomes, "_total")["book:upload-start", "failed"] == 1
    assert sum(values(outcomes, "_total").values()) == 1
    assert values(queue, "_count") == values(operation, "_count") == {("book:upload-start",): 1}
    assert values(queue, "_sum") == {("book:upload-start",): 1.0}
    assert values(operation, "_sum") == {("book:upload-start",): 4.0}


def test_times_count_from_the_start_time(meter: OperationMeter) -> None:
    """What a client asked to wait for is no waiting."""
    start_at = NOW + timedelta(seconds=0.25)
    count(meter, history(started(1), Succeeded(result=b"1"), start_at=start_at))
    _, queue, operation = meter.instruments
    assert values(queue, "_sum") == {("book:upload-start",): 0.75}
    assert values(operation, "_sum") == {("book:upload-start",): 1.75}


def test_each_outcome_has_its_word(meter: OperationMeter) -> None:
    """Operations that never began count as well; no word is missing."""
    for data in (Succeeded(result=b"1"), Failed(error=ERROR), Canceled()):
        ended = history(started(1), data) if isinstance(data, Succeeded) else history(data)
        meter.count(ended.operation, ended.events)
    (outcomes, queue, _) = meter.instruments
    assert set(values(outcomes, "_total").values()) == {1}
    assert {labels[1] for labels in values(outcomes, "_total")} == {"succeeded", "failed", "canceled"}
    assert values(queue, "_count") == {("book:upload-start",): 1}


def test_clocks_that_differ(meter: OperationMeter) -> None:
    """An end that another machine dated before the request took no time, not a negative one."""
    one = history(Canceled())
    early = History(start=NOW.replace(year=2025)).append(request(), Canceled())
    meter.count(one.operation, early.events)
    assert values(meter.instruments[2], "_sum") == {("book:upload-start",): 0.0}


def test_events_of_invented_actions_make_no_series(meter: OperationMeter) -> None:
    """A flood of operations of actions that the catalog does not have is one series of each family."""
    for number in range(1_000):
        one = history(started(1), Failed(error=ERROR), action=f"invented-{number}")
        meter.count(one.operation, one.events)
    outcomes, queue, operation = meter.instruments
    assert values(outcomes, "_total") == {(OTHER, "failed"): 1_000, (OTHER, "succeeded"): 0, (OTHER, "canceled"): 0}
    assert set(values(queue, "_count")) == set(values(operation, "_count")) == {(OTHER,)}
