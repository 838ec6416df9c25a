"""The query of a bulk request, and what it selects."""

from __future__ import annotations

import pytest

from opstream_api.bulk.bulk_request import BulkRequest, parse_bulk_request, selected
from opstream_api.errors import ApiError
from opstream_index.filters.syntax import Conjunction, FieldCondition, Operator
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.errors import ErrorCode

pytestmark = pytest.mark.unit

KIND = "kind%20eq%20'book:upload'"


def test_what_is_asked_for() -> None:
    """A filter is enough; the other parameters have defaults."""
    plain = parse_bulk_request(BulkAct.RETRY, f"filter={KIND}".encode())
    assert plain == BulkRequest(act=BulkAct.RETRY, filter="kind eq 'book:upload'", is_dry_run=False, per_second=50)
    other = parse_bulk_request(BulkAct.CANCEL, f"dryRun=true&perSecond=500&filter={KIND}&api-version=1".encode())
    assert (other.is_dry_run, other.per_second) == (True, 500)


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("", "filter"),
        ("filter=", "filter"),
        ("filter=%20", "filter"),
        ("filter=kind", "filter"),
        ("filter=kind%20eq%20'x'", "filter"),
        (f"filter={KIND}&filter={KIND}", "filter"),
        (f"filter={KIND}&dryRun=yes", "dryRun"),
        (f"filter={KIND}&dryRun=", "dryRun"),
        (f"filter={KIND}&perSecond=0", "perSecond"),
        (f"filter={KIND}&perSecond=501", "perSecond"),
        (f"filter={KIND}&perSecond=1.5", "perSecond"),
        (f"filter={KIND}&perSecond=%C2%B2", "perSecond"),
        (f"filter={KIND}&dry-run=true", "dry-run"),
        (f"filter={KIND}&orderby=createdAt", "orderby"),
        ("filter=%ff", ""),
    ],
)
def test_what_is_no_bulk_request(query: str, target: str) -> None:
    """It is refused with the parameter that is wrong; nothing means everything."""
    with pytest.raises(ApiError) as caught:
        parse_bulk_request(BulkAct.RETRY, query.encode())
    assert (caught.value.code, caught.value.body.error.target) == (ErrorCode.INVALID_PARAMETER, target)


@pytest.mark.parametrize(
    ("act", "statuses"),
    [(BulkAct.RETRY, ("Failed", "Canceled")), (BulkAct.CANCEL, ("NotStarted", "Running"))],
)
def test_a_filter_is_narrowed(act: BulkAct, statuses: tuple[str, ...]) -> None:
    """To the statuses to which the act can be done, and to what was there before."""
    term = selected(act, "attempt gt 1 or version eq 2", before=17)
    assert isinstance(term, Conjunction)
    assert FieldCondition("status", Operator.IN, statuses) in term.terms
    assert FieldCondition("createdAt", Operator.LT, (17,)) in term.terms
