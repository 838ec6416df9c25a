"""Names of actions as labels: an attack with invented ones makes no series."""

from __future__ import annotations

import pytest

from opstream_journal.metrics.action_labels import OTHER, ActionLabels
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit


def test_an_unknown_action_is_other() -> None:
    """A flood of invented actions shares one label, and one that the catalog gets later has its own from then on."""
    known = {Kind("book", "read")}
    labels = ActionLabels(lambda: known)
    assert labels.label(Kind("book", "read")) == "book:read"
    assert {labels.label(Kind("book", f"invented-{number}")) for number in range(10_000)} == {OTHER}
    known.add(Kind("book", "invented-7"))
    assert labels.label(Kind("book", "invented-7")) == "book:invented-7"


def test_a_catalog_full_of_actions_is_bounded() -> None:
    """Beyond the limit even actions of the catalog share the label."""
    kinds = [Kind("book", f"action-{number}") for number in range(10)]
    labels = ActionLabels(lambda: kinds, limit=3)
    assert [labels.label(kind) for kind in kinds] == ["book:action-0", "book:action-1", "book:action-2", *[OTHER] * 7]
    assert labels.label(kinds[0]) == "book:action-0"
