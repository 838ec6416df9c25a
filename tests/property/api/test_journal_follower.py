"""Whatever an API hears of the journal, late, twice, with gaps or out of order: a cached state is one that was true."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.operations.operation_cache import OperationCache
from opstream_api.operations.status import StatusReader
from opstream_payloads.documents import NO_DOCUMENTS
from opstream_schemas.errors import FoldRefused
from opstream_schemas.operation.fold import fold_for_reader
from tests.support.schemas.histories import History, histories

pytestmark = pytest.mark.unit


@given(history=histories(unknown=True), data=st.data())
def test_a_cached_state_is_a_prefix(history: History, data: st.DataObject) -> None:
    """Events are folded only where they follow; the state never goes back, and never skips an event."""
    states = [fold_for_reader(None, history.events[: count + 1]) for count in range(len(history.events))]
    begin = data.draw(st.integers(0, len(states) - 1))
    heard = data.draw(st.lists(st.sampled_from(history.events), max_size=12))
    cache = OperationCache()
    nothing = cast("Any", None)
    status = StatusReader(
        journal=nothing,
        snapshots=nothing,
        catalog=nothing,
        queue_positions=nothing,
        waiting_reasons=nothing,
        cache=cache,
        documents=NO_DOCUMENTS,
        keys=nothing,
        now=lambda: datetime.now(UTC),
    )
    state = states[begin]
    assert state is not None
    cache.put(state)
    at = begin
    for event in heard:
        if status.is_followed(state.id, event.sequence):
            try:
                status.fold_next(event)
            except FoldRefused:
                continue
            if event == history.events[min(at + 1, len(states) - 1)] and at + 1 < len(states):
                at += 1
        assert cache.peek(state.id) == states[at]
