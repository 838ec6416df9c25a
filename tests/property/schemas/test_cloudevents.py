"""Whatever is recorded is a CloudEvent to others, too."""

from __future__ import annotations

import pytest
from hypothesis import given

from opstream_schemas.events import Event, decode_event, encode_event
from tests.support.schemas.cloudevents import check_round_trip, check_rules, check_same, read
from tests.support.schemas.histories import History, events, histories

pytestmark = pytest.mark.unit


@given(events)
def test_the_sdk_reads_any_event(event: Event) -> None:
    """As our decoder does, and keeps its meaning when it writes it again."""
    payload = encode_event(event)
    check_same(read(payload), decode_event(payload, 1))
    check_round_trip(payload)


@given(histories(unknown=True))
def test_any_history_follows_the_rules(history: History) -> None:
    """Each event of it, be its type one that this version does not know; and no two have the same source and id."""
    for payload in history.payloads:
        check_rules(payload)
        check_round_trip(payload)
    known = [(event.source, event.id) for event in history.events]
    assert len(set(known)) == len(known)
