"""Every recorded event is a CloudEvent for other programs."""

from __future__ import annotations

import pytest
from hypothesis import given

from opstream_schemas.events import Event, decode_event, encode_event
from tests.support.schemas.cloudevents import check_round_trip, check_rules, check_same, read
from tests.support.schemas.histories import History, events, histories

pytestmark = pytest.mark.unit


@given(events)
def test_the_sdk_reads_any_event(event: Event) -> None:
    """The SDK reads what our decoder reads, and keeps its meaning when it writes the event."""
    payload = encode_event(event)
    check_same(read(payload), decode_event(payload, 1))
    check_round_trip(payload)


@given(histories(unknown=True))
def test_any_history_follows_the_rules(history: History) -> None:
    """Each event follows the specification, one of an unknown type too; no two have the same source and id."""
    for payload in history.payloads:
        check_rules(payload)
        check_round_trip(payload)
    known = [(event.source, event.id) for event in history.events]
    assert len(set(known)) == len(known)
