"""Decoding a batch: events by operation, and other messages."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from opstream_projector.projection.event_batch import BatchDecoder
from tests.support.schemas.histories import FromTheFuture, History, request, started

pytestmark = pytest.mark.unit


def message(subject: str, data: bytes, sequence: int) -> Any:
    return SimpleNamespace(subject=subject, data=data, sequence=sequence, deliveries=1)


def of(history: History, number: int, subject: str = "") -> Any:
    event = history.events[number]
    default = f"operations.{history.id}.book.upload-start.started"
    return message(subject or default, history.payloads[number], event.sequence)


def test_events_are_sorted_by_operation_and_sequence() -> None:
    """Redelivered messages come late; the groups are in stream order."""
    one, two = (History(name).append(request(), started()) for name in ("op-1", "op-2"))

    groups, others = BatchDecoder().decode([of(one, 1), of(two, 0), of(one, 0)])

    assert {name: [delivery.event.stored for delivery in group] for name, group in groups.items()} == {
        "op-1": one.payloads,
        "op-2": [two.payloads[0]],
    }
    assert others == []


@pytest.mark.parametrize("subject", ["wake.book.upload-start.op-1.retry", "due.book.upload-start.op-1"])
def test_fired_timers_are_put_aside(subject: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged: the consumer has no filter, so they come with the events."""
    wake = message(subject, b"{}", 7)

    groups, others = BatchDecoder().decode([wake])

    assert (groups, others) == ({}, [wake])
    assert caplog.records == []


def test_damaged_messages_are_logged_and_put_aside(caplog: pytest.LogCaptureFixture) -> None:
    """The log has operation and sequence, so that an operator can find them."""
    one = History().append(request())
    damaged = message("operations.op-1.book.upload-start.started", b'{"specversion":"1.0"', 42)

    groups, others = BatchDecoder().decode([of(one, 0), damaged])

    assert list(groups) == ["op-1"]
    assert others == [damaged]
    assert "42" in caplog.text
    assert "operations.op-1." in caplog.text


@pytest.mark.parametrize("subject", ["operations.op-2.book.upload-start.started", "operations.op-1.started", "x"])
def test_an_event_under_a_foreign_subject_is_logged(subject: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is put aside: reads of its own operation would never find it."""
    misplaced = of(History().append(request()), 0, subject)

    groups, others = BatchDecoder().decode([misplaced])

    assert (groups, others) == ({}, [misplaced])
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_unknown_type_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is visible, without a line for each event."""
    one = History().append(request(), FromTheFuture(), FromTheFuture())
    sorter = BatchDecoder()

    for number in (1, 2):
        groups, _ = sorter.decode([of(one, number)])
        assert groups["op-1"][0].event.data is None

    assert len(caplog.records) == 1
    assert FromTheFuture.type in caplog.text
