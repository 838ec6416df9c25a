"""Subjects, keys and consumer names, as they are on the broker."""

import pytest

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from opstream_schemas.events import EVENT_DATA
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import QUEUED_PRIORITIES

pytestmark = pytest.mark.unit

KIND = Kind("book", "upload-start")


def matches(pattern: str, subject: str) -> bool:
    """Return True if a NATS subject matches a pattern with `*` and `>`."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(one in {"*", token} for one, token in zip(wanted, tokens, strict=True))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("operations.*.*.*.succeeded", subjects.event_type_subject("succeeded")),
        ("operations.op-1.book.upload-start.requested", subjects.event_subject("op-1", KIND, "requested")),
        ("operations.op-1.>", subjects.operation_filter("op-1")),
        ("operations.*.book.upload-start.failed", subjects.action_events_filter(KIND, "failed")),
        ("runner_book_upload-start", subjects.runner_consumer(KIND)),
        ("timers.book.upload-start.op-1.retry", subjects.timer_subject(KIND, "op-1", "retry")),
        ("fire.book.upload-start.op-1.retry", subjects.fired_wake_subject(KIND, "op-1", "retry")),
        ("book.upload-start", subjects.action_key(KIND)),
        ("KV_operations", subjects.bucket_stream("operations")),
        ("$KV.operations.op-1", subjects.bucket_subject("operations", "op-1")),
    ],
)
def test_subjects_are_spelled_as_designed(expected: str, actual: str) -> None:
    """Each name is exactly this one: running brokers have them."""
    assert expected == actual


def test_the_runner_pulls_requests_and_wakes() -> None:
    """An action's consumer delivers its requests and its wake-up timers, and nothing else."""
    expected = ("operations.*.book.upload-start.requested", "wake.book.upload-start.*.*")

    assert expected == subjects.runner_filters(KIND)


@pytest.mark.parametrize("data", EVENT_DATA)
def test_the_stream_takes_every_event(data: type) -> None:
    """The stream stores every event, and the filter of its operation matches it."""
    subject = subjects.event_subject("op-1", KIND, data.name)

    assert matches(subjects.event_type_subject(data.name), subject)
    assert matches(subjects.operation_filter("op-1"), subject)
    assert not matches(subjects.operation_filter("op"), subject)


def test_a_wake_that_fires_reaches_the_runner_of_its_action() -> None:
    """A timer that fires in TIMERS and is copied to OPERATIONS reaches only its action's consumer."""
    fired = subjects.fired_wake_subject(KIND, "op-1", "retry")
    assert matches(subjects.WAKE_SOURCE, fired)

    wake = subjects.WAKE_DESTINATION.removesuffix(">") + fired.removeprefix(subjects.WAKE_SOURCE.removesuffix(">"))
    assert matches(subjects.runner_filters(KIND)[1], wake)
    assert not matches(subjects.runner_filters(Kind("book", "upload"))[1], wake)
    assert subjects.WakeSubject("op-1", KIND, "retry") == subjects.parse_wake_subject(wake)


@pytest.mark.parametrize("priority", QUEUED_PRIORITIES)
def test_a_wake_of_a_priority_reaches_its_queue_only(priority: str) -> None:
    """It reaches the consumer of its priority, and neither the one that each action has nor another one."""
    fired = subjects.fired_wake_subject(KIND, "op-1", "retry", priority)
    wake = fired.replace("fire.", "wake.", 1)

    found = [one for one in QUEUED_PRIORITIES if matches(subjects.priority_filter(KIND, one), wake)]

    assert found == [priority]
    assert matches(subjects.WAKE_SOURCE, fired)
    assert not any(matches(one, wake) for one in subjects.runner_filters(KIND))
    assert matches(subjects.fired_messages_filters(KIND, "op-1")[0], wake)
    assert subjects.WakeSubject("op-1", KIND, "retry", priority) == subjects.parse_wake_subject(wake)


def test_a_request_has_one_place_in_the_queue_of_its_priority() -> None:
    """The wake-up of a request is found by its subject in the journal."""
    wake = subjects.queued_request_subject(KIND, "op-1", "low")

    assert wake == "wake.book.upload-start.op-1.requested.low"
    assert matches(subjects.priority_filter(KIND, "low"), wake)


@pytest.mark.parametrize("priority", ["", *QUEUED_PRIORITIES])
def test_a_consumer_is_that_of_an_action_and_a_queue(priority: str) -> None:
    """The name of a consumer says both; another durable has neither."""
    name = subjects.runner_consumer(KIND, priority)

    assert subjects.parse_runner_consumer(name) == (KIND, priority)
    assert subjects.parse_runner_consumer("projector_due") is None
    assert subjects.parse_runner_consumer("runner_book") is None


def test_timers_listens_to_schedules_and_to_what_they_fire() -> None:
    """The broker accepts a schedule only if its target is in the same stream."""
    for subject in (subjects.timer_subject(KIND, "op-1", "retry"), subjects.fired_wake_subject(KIND, "op-1", "retry")):
        assert any(matches(pattern, subject) for pattern in subjects.TIMERS_SUBJECTS)


def test_no_two_kinds_share_a_consumer() -> None:
    """`a-b:c` and `a:b-c` have different consumers, because no name has a `_`."""
    assert subjects.runner_consumer(Kind("a-b", "c")) != subjects.runner_consumer(Kind("a", "b-c"))


def test_only_wakes_are_wakes() -> None:
    """A message is a wake-up timer exactly if its first token says so."""
    assert subjects.is_wake("wake.book.upload-start.op-1.retry")
    assert not subjects.is_wake("operations.wake.book.up.requested")
    assert not subjects.is_wake("wakeful.book.up.op-1.retry")


def test_an_event_subject_is_parsed() -> None:
    """The subject of an event has the operation, the action and the event's name."""
    subject = "operations.op-1.book.upload-start.attempt-failed"

    assert subjects.EventSubject("op-1", KIND, "attempt-failed") == subjects.parse_event_subject(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "operations",
        "operations.op-1.book.up",
        "operations.op-1.book.up.requested.v1",
        "operations..book.up.requested",
        "operations.op-1.book.up.",
        "operations.*.book.up.requested",
        "operations.op-1.book.up.>",
        "operations.op 1.book.up.requested",
        "operations.op-1.Book.up.requested",
        "operations.op-1.book.up.Requested",
        "operations.op-1.book.up.requested\n",
        f"operations.{'x' * 65}.book.up.requested",
        "wake.book.up.op-1.retry",
        "Operations.op-1.book.up.requested",
        "a" * 100_000,
    ],
)
def test_an_invalid_event_subject_is_refused(subject: str) -> None:
    """Another form, a wildcard or an invalid name raises an error."""
    with pytest.raises(InvalidName):
        subjects.parse_event_subject(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "wake",
        "wake.book.up.op-1",
        "wake.book.up.op-1.retry.low.again",
        "wake.book.up.op-1.retry.Low",
        "wake.book.up..retry",
        "wake.book.up.*.retry",
        "wake.book.up.op-1.Retry",
        "fire.book.up.op-1.retry",
        "operations.op-1.book.up.requested",
    ],
)
def test_an_invalid_wake_subject_is_refused(subject: str) -> None:
    """Another form, a wildcard or an invalid name raises an error."""
    with pytest.raises(InvalidName):
        subjects.parse_wake_subject(subject)
