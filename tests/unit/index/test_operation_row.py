"""What a row of the index has of an operation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from opstream_index.operation_row import NEVER, PLACE_BITS, first_place, instant_of, place_of, row_of, time_of
from opstream_schemas.events import Canceled, Failed, OperationError, Progressed, Succeeded
from tests.support.schemas.histories import NOW, History, request, started

pytestmark = pytest.mark.unit

AT = instant_of(NOW)
SECOND = 1_000_000


def begun(**changes: object) -> History:
    return History().append(request(**changes), started(), Progressed(percent=10.0, message="page 3 of 4"))


def test_an_open_operation() -> None:
    """A row has the times, the owner, the action and the progress text, and no end."""
    history = begun(caller="ann", tenant="press", own_id="mine", labels={"b": "2", "a": "1"}, retention_failed=10.0)
    row = row_of(history.operation)
    assert row_of(begun(retry_of="one").operation).retry_of == "one"
    assert (row.id, row.own_id, row.tenant, row.caller) == ("op-1", "mine", "press", "ann")
    assert (row.resource, row.action, row.resource_id, row.version) == ("book", "upload-start", "42", 1)
    assert (row.status, row.code, row.message, row.attempt) == ("Running", None, "page 3 of 4", 1)
    assert (row.created_at, row.start_at, row.started_at, row.finished_at) == (AT, None, AT + SECOND, None)
    assert (row.labels, row.retry_of) == ('{"a":"1","b":"2"}', None)
    assert row.position == history.operation.stream_sequence
    assert row.expires_at == NEVER


def test_an_operation_that_waits_for_its_time() -> None:
    """The row has the time, and no attempt."""
    row = row_of(History().append(request(start_at=NOW + timedelta(minutes=5))).operation)
    assert (row.status, row.start_at, row.started_at) == ("NotStarted", AT + 300 * SECOND, None)


def test_a_failed_operation() -> None:
    """Code and message are those of the error with which it ended, and the row ends with that outcome's retention."""
    history = begun(retention_failed=10.0).append(Failed(error=OperationError(code=404, message="no such page")))
    row = row_of(history.operation)
    assert (row.status, row.code, row.message) == ("Failed", "404", "no such page")
    assert (row.finished_at, row.expires_at) == (AT + 3 * SECOND, AT + 13 * SECOND)


@pytest.mark.parametrize("outcome", [Succeeded(result=None), Canceled(reason="for no reason")])  # type: ignore[arg-type]
def test_an_end_without_an_error(outcome: Succeeded | Canceled) -> None:
    """What ended without an error has neither code nor text."""
    row = row_of(begun().append(outcome).operation)
    assert (row.code, row.message) == (None, None)


def test_nothing_of_input_and_result() -> None:
    """No column has anything of the input or the result."""
    secret = "s3cr3t"
    data = request(input=f'{{"password":"{secret}"}}'.encode())
    history = History().append(data, started(), Succeeded(result=f'"{secret}"'.encode()))  # type: ignore[arg-type]
    assert secret not in repr(row_of(history.operation))


def test_places_are_in_the_order_of_creation() -> None:
    """A later operation has a higher place, those of one microsecond differ by their ids, and a time has the lowest."""
    early, late = place_of(AT, "x"), place_of(AT + 1, "a")
    assert first_place(AT) <= early < first_place(AT + 1) <= late
    assert place_of(AT, "x") != place_of(AT, "y")
    assert early >> PLACE_BITS == AT


def test_times_of_any_year_fit() -> None:
    """The places of all times that an event can have fit into 64 bits, in order up to 2255."""
    years = [datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1969, 1970, 2026, 2255, 9999)]
    places = [place_of(instant_of(time), "x") for time in years]
    assert places == sorted(places)
    assert all(-(2**63) <= place < 2**63 for place in (*places, *map(first_place, map(instant_of, years))))
    assert [time_of(instant_of(time)) for time in years] == years
    assert instant_of(NOW + timedelta(microseconds=1)) == AT + 1
