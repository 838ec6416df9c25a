"""What stored presence records say, and when an action has no runner."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
import pytest

from opstream_journal.jetstream.rpc import StoredMessage
from opstream_journal.queues.runner_records import (
    LIFETIME,
    NO_RUNNERS,
    ActionRunners,
    RunnerRecord,
    group_records,
    has_no_runner,
)
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

NOW: Final = 1_800_000_000.0
BOOK: Final = Kind("book", "upload")
RECORD: Final = RunnerRecord(runner="a", version=1, slots=4, free=3, since=datetime(2026, 11, 30, tzinfo=UTC))
ENCODED: Final = msgspec.json.encode(RECORD)
THERE: Final = ActionRunners((RECORD,), NOW)
GONE: Final = ActionRunners((), NOW - 60.0)


def stored(key: str, age: float, data: bytes = ENCODED) -> StoredMessage:
    at = datetime.fromtimestamp(NOW - age, UTC).isoformat()
    return StoredMessage(f"$KV.runners.{key}", 1, data, time=at)


def test_a_record_counts_while_it_is_young() -> None:
    """One that is older than its lifetime is a runner's that has gone, whatever kept the broker from removing it."""
    found = group_records(
        [stored("book.upload.alive.a", LIFETIME - 1.0), stored("book.upload.alive.b", LIFETIME + 1.0)], NOW
    )
    assert found[BOOK].runners == (RECORD,)
    assert found[BOOK].versions == (1,)


def test_what_can_not_be_read_is_passed_over() -> None:
    """Foreign subjects and values say nothing; a removed record says when there was a runner."""
    found = group_records(
        [
            stored("book.upload.alive.c", 3.0, b"no JSON"),
            stored("book.upload.alive.d", 2.0, b""),
            stored("book.upload.else", 1.0),
            stored("book.upload.alive.a.b", 1.0),
            stored("Book.upload.seen", 1.0),
            stored("shop.order.seen", 500.0, b"{}"),
        ],
        NOW,
    )
    assert found == {BOOK: ActionRunners((), NOW - 2.0), Kind("shop", "order"): ActionRunners((), NOW - 500.0)}


@pytest.mark.parametrize(
    ("presence", "num_waiting", "num_ack_pending", "expected"),
    [
        (THERE, 0, 0, True),  # it takes nothing any more: it stops, or was killed a moment ago
        (THERE, 0, 1, False),
        (THERE, 1, 0, False),
        (GONE, 0, 1, True),  # killed in the middle of an attempt
        (GONE, 1, 0, False),  # a runner of 0.5.0 pulls
        (NO_RUNNERS, 0, 1, False),  # there never was a runner with records, so one of 0.5.0 may work
        (NO_RUNNERS, 0, 0, True),
        (None, 0, 1, False),
        (None, 0, 0, True),
        (None, 1, 1, False),
    ],
)
def test_when_there_is_no_runner(
    presence: ActionRunners | None, num_waiting: int, num_ack_pending: int, *, expected: bool
) -> None:
    """Who pulls is a runner. The records decide only where the broker may count the messages of one that was killed."""
    assert has_no_runner(presence, num_waiting=num_waiting, num_ack_pending=num_ack_pending) is expected


def test_the_subject_of_a_record() -> None:
    """It names the action, and tells a runner's record from that of the last runner."""
    key = subjects.presence_key(BOOK, "host-1")
    assert subjects.parse_presence_subject(subjects.bucket_subject("runners", key)) == (BOOK, True)
    key = subjects.last_presence_key(BOOK)
    assert subjects.parse_presence_subject(subjects.bucket_subject("runners", key)) == (BOOK, False)
    for wrong in ("$KV.runners.book.upload", "$KV.runners.book.upload.alive", "$KV.runners.book.UP.seen", "x"):
        with pytest.raises(InvalidName):
            subjects.parse_presence_subject(wrong)
