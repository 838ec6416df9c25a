"""The timeline of one operation, as text and as JSON."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone

import msgspec
import pytest

from opstream.terminal.timeline_text import timeline_json, timeline_lines
from opstream_schemas.events import (
    Canceled,
    CancelRequested,
    ChildWait,
    EventData,
    Failed,
    OperationError,
    ParentRef,
    Progressed,
    RecordedEvent,
    StepFailed,
    StepStarted,
    Succeeded,
    WaitBegun,
    encode_event,
)
from opstream_schemas.operation.forced_end import OperationMessage, forced_end_event, inspect_messages
from opstream_schemas.timeline import PhaseKind, Timeline, build_timeline
from tests.support.schemas.histories import (
    FAILURE,
    NOW,
    FromTheFuture,
    History,
    handed_back,
    request,
    started,
    step_done,
)

pytestmark = pytest.mark.unit

LOST = OperationError(code="RunnerLost", message="gone")
ASKED = request(caller="ann@example.org", client_id="shop", client_address="192.0.2.7")


def messages(*datas: EventData) -> list[OperationMessage]:
    """The messages in the journal; each event is one second after the previous one."""
    events: list[RecordedEvent] = History().append(*datas).events
    return [OperationMessage(event.sequence, event.stored) for event in events]


def timeline_of(*datas: EventData) -> Timeline:
    """The timeline, ten seconds after the request."""
    return build_timeline("op-1", messages(*datas), NOW + timedelta(seconds=10))


def text(one: Timeline, *, is_whole: bool = False) -> str:
    """The printed timeline."""
    return "\n".join(
        f"{name:<10}  {line}".rstrip() for name, line in timeline_lines(one, is_whole=is_whole, has_colour=False)
    )


def test_a_long_timeline() -> None:
    """It shows each attempt with its end, and each phase with its length."""
    one = timeline_of(
        ASKED,
        started(),
        Progressed(percent=40, message="copying"),
        handed_back(counted=True),
        started(2),
        handed_back(2, counted=False),
        started(3),
        started(4),
        CancelRequested(by="bob", reason="wrong book"),
        Succeeded(result=msgspec.Raw(b"{}")),
    )
    assert [attempt.end for attempt in one.attempts] == ["failed", "handed back", "lost", "succeeded"]
    assert [(phase.kind, phase.attempt, phase.seconds) for phase in one.phases] == [
        (PhaseKind.QUEUED, 0, 1),
        (PhaseKind.RUNNING, 1, 2),
        (PhaseKind.WAITING, 1, 1),
        (PhaseKind.RUNNING, 2, 1),
        (PhaseKind.WAITING, 2, 1),
        (PhaseKind.RUNNING, 3, 1),
        (PhaseKind.RUNNING, 4, 2),
    ]
    assert [one.seconds(kind) for kind in PhaseKind] == [0, 1, 6, 2]
    assert text(one).splitlines() == [
        "operation   op-1",
        "action      book:upload-start of '42', version 1",
        "status      Succeeded",
        "asked       2026-03-14 09:26:53.589 UTC by ann@example.org with shop from 192.0.2.7",
        'input       {"files":[]}',
        "deadline    2026-03-15 09:26:53.589 UTC",
        "",
        "queued      1.00 s",
        "attempt 1   by runner-a: failed after 2.00 s, began at 2026-03-14 09:26:54.589 UTC",
        "            progress reported 1 time, the last 40 % copying",
        "            Throttled: try again",
        "waited      1.00 s, to be tried again at 2026-03-14 09:26:53.589 UTC",
        "attempt 2   by runner-a: handed back after 1.00 s, not counted, began at 2026-03-14 09:26:57.589 UTC",
        "            Throttled: try again",
        "waited      1.00 s, to be tried again at 2026-03-14 09:26:53.589 UTC",
        "attempt 3   by runner-a: lost after 1.00 s, began at 2026-03-14 09:26:59.589 UTC",
        "attempt 4   by runner-a: succeeded after 2.00 s, began at 2026-03-14 09:27:00.589 UTC",
        "stop        asked for at 2026-03-14 09:27:01.589 UTC by bob: wrong book",
        "",
        "ended       2026-03-14 09:27:02.589 UTC as Succeeded",
        "result      {}",
        "took        9.00 s: queued 1.00 s, running 6.00 s, waiting 2.00 s",
        "events      10",
        "hashes      ok: each event carries the hash of the one before it",
    ]


def test_an_open_operation() -> None:
    """The last phase of an open operation ends now."""
    one = timeline_of(request(), started())
    assert (one.ended_at, one.total, one.seconds(PhaseKind.RUNNING)) == (None, 10, 9)
    assert "still running after 9.00 s" in text(one)
    assert "took        10.00 s so far" in text(one)
    assert "by an unnamed caller" in text(one)


def test_steps() -> None:
    """Each attempt has the steps that it ran; a start is replaced by what became of it."""
    begun = StepStarted(attempt=1, step="charge", input_hash="0" * 64)
    failed = StepFailed(attempt=1, step="ship", key="7", input_hash="0" * 64, error=FAILURE, seconds=2, tries=3)
    one = timeline_of(
        ASKED, started(), step_done(), begun, step_done(step="charge"), failed, handed_back(counted=True),
        started(2), StepStarted(attempt=2, step="mail", input_hash="0" * 64),
    )  # fmt: skip
    assert [[(step.name, step.end) for step in attempt.steps] for attempt in one.attempts] == [
        [("copy", "succeeded"), ("charge", "succeeded"), ("ship", "failed")],
        [("mail", "begun")],
    ]
    lines = text(one).splitlines()
    assert "            step copy: succeeded after 500.0 ms" in lines
    assert (
        "            step ship (7): failed after 2.00 s in 3 tries, ClientOutOfDate: update the client (version)"
        in lines
    )
    assert "            step mail: begun" in lines


def test_parents_and_children() -> None:
    """A child names its parent; a parent how many children it asked for, and whose end it waited for."""
    parent = ParentRef(id="tPARENT", own_id="print-42", name="pages", key="7", index=3)
    asks = StepStarted(attempt=1, step="pages", input_hash="0" * 64, children=9)
    alone = StepStarted(attempt=2, step="cover", input_hash="0" * 64, children=0)
    waits = WaitBegun(attempt=1, wait="pages", until=NOW, child=ChildWait(id="child-a"))
    lines = text(timeline_of(request(parent=parent), started(), asks, waits, started(2), alone)).splitlines()
    assert "child of    tPARENT, known as print-42, as pages (7), number 4" in lines
    assert "            step pages: begun, 9 children" in lines
    assert "waited      1.00 s, for its child child-a" in lines
    assert "            step cover: begun, 1 child" in lines


@pytest.mark.parametrize(
    ("datas", "line"),
    [
        ([Failed(error=FAILURE)], "error       ClientOutOfDate: update the client (version)"),
        ([started(), Failed(error=LOST)], "attempt 1   by runner-a: lost after 1.00 s"),
        ([started(), Failed(error=FAILURE)], "attempt 1   by runner-a: failed after 1.00 s"),
        ([Canceled(by="bob", reason="no")], "canceled    by bob: no"),
        ([started(), Canceled()], "canceled    by an unnamed caller"),
        ([FromTheFuture()], "events      2, 1 of a type that is not known here"),
    ],
)
def test_outcomes(datas: list[EventData], line: str) -> None:
    """Each outcome is shown with its members."""
    assert line in text(timeline_of(request(), *datas))


def test_a_forced_end() -> None:
    """A forced end is shown with the operator's reason and the messages that it passed over."""
    found = [*messages(request(), started()), OperationMessage(9, b"garbage")]
    end = forced_end_event(inspect_messages("op-1", found), FAILURE, "broken disk", id="x", source="test", time=NOW)
    one = build_timeline("op-1", [*found, OperationMessage(10, encode_event(end))], NOW)
    assert (one.status, one.foreign, one.chain.is_intact) == ("Failed", 1, True)
    assert "forced      by an operator: broken disk; 1 messages were skipped, the last at sequence 9" in text(one)
    assert "foreign     1 messages are not events of it" in text(one)


def test_another_operations_event_is_foreign() -> None:
    """An event of another operation on these subjects is foreign."""
    other = History("op-2").append(request()).events[0]
    one = build_timeline("op-1", [*messages(request()), OperationMessage(2, other.stored)], NOW)
    assert (one.events, one.foreign) == (1, 1)


def test_a_broken_chain() -> None:
    """The first event that does not continue the one before it is shown."""
    whole = messages(request(), started(), Progressed(percent=1), Progressed(percent=2))
    one = build_timeline("op-1", [whole[0], *whole[2:]], NOW)
    assert (one.chain.is_intact, one.chain.broken_at) == (False, 3)
    assert "hashes      broken at position 3: it does not carry the hash of the message before it" in text(one)


def test_an_expired_beginning() -> None:
    """The remaining events are shown."""
    one = build_timeline("op-1", messages(request(), started(), Progressed(percent=1), Failed(error=FAILURE))[2:], NOW)
    assert text(one).splitlines()[1:4] == [
        "status      Failed; its request has expired, or was removed",
        "",
        "running     1.00 s; the event of its start has expired, or was removed",
    ]
    assert "ok from position 3 on" in text(one)


def test_events_after_the_outcome() -> None:
    """They have no effect, and are counted."""
    whole = messages(request(), Failed(error=FAILURE))
    late = History().append(request(), started()).events[1]
    one = build_timeline("op-1", [*whole, OperationMessage(9, late.stored)], NOW)
    assert (one.status, one.late, one.attempts) == ("Failed", 1, [])
    assert "events      3, 1 after the end" in text(one)


@pytest.mark.parametrize(
    ("datas", "data", "why"),
    [
        ((request(), Failed(error=FAILURE)), Progressed(percent=1), "it follows the outcome"),
        ((request(), Failed(error=FAILURE)), FromTheFuture(), "it follows the outcome"),
        ((request(), started()), request(), "the first event, and only the first, must be a request"),
    ],
)
def test_an_impossible_event_with_the_right_hash(datas: tuple[EventData, ...], data: EventData, why: str) -> None:
    """An inserted event where none may follow breaks the chain, although its hash is right."""
    history = History().append(*datas)
    put_in = encode_event(history.next_event(data))
    one = build_timeline("op-1", [*messages(*datas), OperationMessage(9, put_in)], NOW)
    assert (one.chain.is_intact, one.chain.broken_at, one.chain.why) == (False, 3, why)


def test_large_data() -> None:
    """A large input or result is shown by its size and hash, unless all data is asked for."""
    large = b'{"files":"' + b"x" * 500 + b'"}'
    one = timeline_of(request(input=msgspec.Raw(large)), started(), Succeeded(result=msgspec.Raw(large)))
    hashed = hashlib.sha256(large).hexdigest()
    assert text(one).count(f"{len(large)} bytes, SHA-256 {hashed}") == 2
    assert text(one, is_whole=True).count(large.decode()) == 2
    short = json.loads(timeline_json(one, is_whole=False))
    assert (short["request"]["inputBytes"], short["request"]["inputHash"]) == (len(large), hashed)
    assert (short["resultBytes"], short["resultHash"]) == (len(large), hashed)
    assert large not in timeline_json(one, is_whole=False)
    whole = json.loads(timeline_json(one, is_whole=True))
    assert (whole["request"]["input"], whole["result"]) == (json.loads(large), json.loads(large))


def test_json() -> None:
    """The JSON has the same members, and the seconds of each kind of phase."""
    found = json.loads(timeline_json(timeline_of(ASKED, started(), Failed(error=FAILURE)), is_whole=True))
    assert found["seconds"] == {"queued": 1, "running": 1, "waiting": 0, "total": 2}
    assert found["request"]["caller"] == "ann@example.org"
    assert found["chain"] == {"isIntact": True}
    assert [one["end"] for one in found["attempts"]] == ["failed"]


def test_foreign_text_moves_no_cursor() -> None:
    """Foreign names and texts can't recolour or overwrite a line."""
    nasty = "\x1b[2Jx\r\n"
    one = timeline_of(request(caller=nasty, resource_id="a"), started(), Canceled(by=nasty, reason=nasty))
    assert all(line.isprintable() for _, line in timeline_lines(one, is_whole=True, has_colour=False))


def test_times_at_the_end_of_the_calendar() -> None:
    """A foreign event may have any time; it is shown as it is."""
    asked = request(deadline=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))))
    assert "deadline    0001-01-01 00:00:00.000+14:00" in text(timeline_of(asked))


def test_a_start_time() -> None:
    """What comes before it is a phase of its own, and what comes after it is the queue."""
    one = timeline_of(request(start_at=NOW + timedelta(seconds=0.25)), started())
    assert [one.seconds(kind) for kind in PhaseKind] == [0.25, 0.75, 9, 0]
    assert json.loads(timeline_json(one, is_whole=False))["seconds"]["scheduled"] == 0.25
    assert "not before" in text(one)
    assert "scheduled" not in json.loads(timeline_json(timeline_of(ASKED, started()), is_whole=False))["seconds"]
