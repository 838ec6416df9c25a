"""Filters of events: which events pass, and which messages are events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.event_filter import (
    EVENT_NAMES,
    EventFilter,
    EventTypeFilter,
    decode_envelope,
    is_event_subject,
    parse_action_filter,
)
from opstream_schemas.events import CloudEvent, Failed, OperationError, Succeeded, decode_event
from tests.support.schemas.histories import FromTheFuture, History, request

pytestmark = pytest.mark.unit

SUBJECT = "operations.op-1.book.upload-start.requested"
STORED = History().append(request()).payloads[0]


def envelope(**changes: Any) -> CloudEvent:
    """The envelope of a request, changed."""
    members = json.loads(STORED) | changes
    name = members["type"].split(".")[2]
    return decode_envelope(f"operations.{members['subject']}.book.upload-start.{name}", json.dumps(members).encode())


@pytest.mark.parametrize(
    ("selection", "journal", "archive"),
    [
        (EventFilter(), (), ()),
        (EventFilter(resource="book"), ("operations.*.book.*.*",), ("archive.book.*.*",)),
        (
            EventFilter(operation_id="op-1", resource="book", action="up", types=(EventTypeFilter("failed"),)),
            ("operations.op-1.book.up.failed",),
            ("archive.book.up.failed",),
        ),
        (EventFilter(operation_id="op-1"), ("operations.op-1.*.*.*",), ()),
        (
            EventFilter(types=tuple(map(EventTypeFilter.parse, ("succeeded", "opstream.action.failed.v2", "failed")))),
            ("operations.*.*.*.failed", "operations.*.*.*.succeeded"),
            ("archive.*.*.failed", "archive.*.*.succeeded"),
        ),
    ],
)
def test_filters(selection: EventFilter, journal: tuple[str, ...], archive: tuple[str, ...]) -> None:
    """The subject filters are as narrow as subjects allow and don't overlap; there are none if every event passes."""
    assert (selection.subject_filters(is_archive=False), selection.subject_filters(is_archive=True)) == (
        journal,
        archive,
    )


@pytest.mark.parametrize(
    ("selection", "is_held"),
    [
        (EventFilter(), True),
        (EventFilter(operation_id="op-1"), True),
        (EventFilter(operation_id="op-2"), False),
        (EventFilter(types=(EventTypeFilter.parse("requested"),)), True),
        (EventFilter(types=(EventTypeFilter.parse("opstream.action.requested.v1"),)), True),
        (EventFilter(types=(EventTypeFilter.parse("opstream.action.requested.v2"),)), False),
        (
            EventFilter(
                types=(EventTypeFilter.parse("opstream.action.requested.v2"), EventTypeFilter.parse("requested"))
            ),
            True,
        ),
        (
            EventFilter(types=(EventTypeFilter.parse("opstream.action.requested.v2"), EventTypeFilter.parse("failed"))),
            False,
        ),
    ],
)
def test_what_a_subject_does_not_say(selection: EventFilter, is_held: bool) -> None:
    """The archive's subjects have no operation id, and no subject has a version."""
    assert selection.matches(envelope()) is is_held


def test_types() -> None:
    """A short name must be a known one; a full type may be of a newer version."""
    assert [EventTypeFilter.parse(name).name for name in EVENT_NAMES] == list(EVENT_NAMES)
    assert EventTypeFilter.parse("opstream.action.paused.v7") == EventTypeFilter("paused", "opstream.action.paused.v7")


@pytest.mark.parametrize("text", ["", "suceeded", "opstream.action.succeeded", "com.example.succeeded.v1", "*", "a b"])
def test_an_invalid_type(text: str) -> None:
    """A misspelled type raises an error instead of matching nothing; the message lists the names."""
    with pytest.raises(InvalidName, match="attempt-failed"):
        EventTypeFilter.parse(text)


def test_actions() -> None:
    """Resource or action may be `*`."""
    assert parse_action_filter("book:upload-start") == ("book", "upload-start")
    assert parse_action_filter("book:*") == ("book", "*")
    assert parse_action_filter("*:reindex") == ("*", "reindex")


@pytest.mark.parametrize("text", ["", "book", "book:", ":x", "book:a:b", "book:*x", "b.k:x", "book:>"])
def test_an_invalid_action(text: str) -> None:
    """Any other text raises an error."""
    with pytest.raises(InvalidName):
        parse_action_filter(text)


def test_timers_are_not_events() -> None:
    """The journal's stream also holds timers that fired."""
    assert is_event_subject(SUBJECT)
    assert is_event_subject("archive.book.upload-start.requested")
    assert not is_event_subject("wake.book.upload-start.op-1.retry")
    assert not is_event_subject("due.book.upload-start.op-1")


def test_an_envelope_is_decoded_without_its_data() -> None:
    """The data may be of any type and version."""
    history = History().append(request(), FromTheFuture())
    future = decode_envelope("operations.op-1.book.upload-start.paused", history.payloads[1])
    assert (future.type, future.position) == ("opstream.action.paused.v1", 2)
    assert envelope(type="opstream.action.requested.v9", data=[1]).type == "opstream.action.requested.v9"
    assert decode_envelope("archive.book.upload-start.requested", STORED).subject == "op-1"


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        (SUBJECT, b""),
        (SUBJECT, b"garbage"),
        (SUBJECT, b"{}"),
        (SUBJECT, STORED[:-1]),
        (SUBJECT, STORED.replace(b'"42"', b'"\xff"')),
        (SUBJECT, STORED.replace(b'{"files":[]}', b"[" * 5000 + b"]" * 5000)),
        (SUBJECT, STORED.replace(b'"op-1"', b'"op-2"')),
        ("operations.op-1.book.upload-start.failed", STORED),
        ("operations.op-1.book.upload-start", STORED),
        ("archive.book.upload-start.failed", STORED),
        ("archive.op-1.book.upload-start.requested", STORED),
        ("archive.book.upload-start.requested", STORED.replace(b'"op-1"', b'"op.1"')),
        ("operations.op-1.\x1b[31mbook.upload-start.requested", STORED),
        ('operations.op-1.book.up","event":"load.requested', STORED),
        ("archive.book.\u202eupload-start.requested", STORED),
    ],
    ids=range(15),
)
def test_a_message_that_is_not_an_event(subject: str, payload: bytes) -> None:
    """Damaged and foreign messages raise an error, and so do events on the wrong subject."""
    with pytest.raises(InvalidEvent, match="is not an event of that subject"):
        decode_envelope(subject, payload)


def test_every_event_has_an_envelope() -> None:
    """What the journal's decoder reads as an event has an envelope here."""
    failed = Failed(error=OperationError(code=1, message="\u202e"))
    for outcome in (Succeeded.name, Failed.name):
        data = failed if outcome == Failed.name else request()
        history = History().append(request(), data) if data is failed else History().append(data)
        event = decode_event(history.payloads[-1], 1)
        name = event.type.split(".")[2]
        assert decode_envelope(f"operations.op-1.book.upload-start.{name}", event.stored).id == event.id
