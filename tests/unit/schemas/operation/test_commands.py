"""`decide`: the event, or the error, of each command in each state."""

from datetime import timedelta

import msgspec
import pytest

from opstream_schemas.errors import (
    AttemptFenced,
    DecisionRefused,
    OperationExists,
    OperationFinished,
    SchemasError,
)
from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    OperationError,
    Progressed,
    Started,
    Succeeded,
)
from opstream_schemas.operation.commands import (
    BeginWait,
    Command,
    ConfirmCancel,
    Fail,
    FailAttempt,
    FailOperation,
    RecordStep,
    ReportProgress,
    RequestAction,
    RequestCancel,
    StartAttempt,
    Succeed,
    canceled_outcome,
    deadline_outcome,
    decide,
    runner_lost_outcome,
    truncate_error,
)
from opstream_schemas.operation.state import Operation
from tests.support.schemas.histories import FAILURE, NOW, History, handed_back, request, started, step_done, waits

pytestmark = pytest.mark.unit

LATER = NOW + timedelta(seconds=5)
START = StartAttempt(runner="runner-b", token="token-b", ticket=1, lease=30.0)
OF_THE_LIVE_ATTEMPT: list[tuple[Command, EventData]] = [
    (ReportProgress(token="token-1", percent=40.0, message="files"), Progressed(percent=40.0, message="files")),
    (RecordStep(token="token-1", data=step_done(9)), step_done(1)),
    (BeginWait(token="token-1", data=waits(9)), waits(1)),
    (Succeed(token="token-1", result=b'{"a":1}'), Succeeded(result=msgspec.Raw(b'{"a":1}'))),
    (Fail(token="token-1", error=FAILURE), Failed(error=FAILURE)),
    (
        FailAttempt(token="token-1", error=FAILURE, retry_at=LATER, counted=False),
        AttemptFailed(attempt=1, error=FAILURE, retry_at=LATER, counted=False),
    ),
    (ConfirmCancel(token="token-1"), Canceled(reason="")),
]
OF_ANYONE: list[Command] = [START, RequestCancel(), FailOperation(error=FAILURE)]
COMMANDS: list[Command] = [*(command for command, _ in OF_THE_LIVE_ATTEMPT), *OF_ANYONE]


def after(*datas: EventData) -> Operation:
    """The state of a requested operation after some events."""
    return History().append(request(), *datas).operation


def kind_of(value: object) -> str:
    """A name for a parameter."""
    return type(value).__name__


def test_a_request_begins_an_operation() -> None:
    """Without an operation, the request becomes the first event unchanged."""
    requested = request()

    assert requested is decide(None, RequestAction(requested=requested))


@pytest.mark.parametrize("operation", [after(), after(started()), after(Canceled())])
def test_an_id_is_requested_once(operation: Operation) -> None:
    """A second request for an id raises `OperationExists`, even after the first operation has ended."""
    with pytest.raises(OperationExists, match="op-1"):
        decide(operation, RequestAction(requested=request()))


@pytest.mark.parametrize("command", COMMANDS, ids=kind_of)
def test_nothing_happens_to_an_operation_that_does_not_exist(command: Command) -> None:
    """Any other command needs an operation."""
    with pytest.raises(DecisionRefused, match="no such operation"):
        decide(None, command)


@pytest.mark.parametrize("outcome", [Succeeded(result=msgspec.Raw(b"1")), Failed(error=FAILURE)])
@pytest.mark.parametrize("command", COMMANDS, ids=kind_of)
def test_a_terminal_state_is_never_left(command: Command, outcome: EventData) -> None:
    """After an outcome every command raises `OperationFinished`, a late cancel request too."""
    with pytest.raises(OperationFinished):
        decide(after(started(), outcome), command)


@pytest.mark.parametrize("command", COMMANDS, ids=kind_of)
def test_a_canceled_operation_can_be_canceled_again(command: Command) -> None:
    """Canceling a canceled operation causes no error and no event; every other command raises an error."""
    operation = after(started(), CancelRequested(), Canceled())

    if isinstance(command, RequestCancel):
        assert decide(operation, command) is None
    else:
        with pytest.raises(OperationFinished):
            decide(operation, command)


@pytest.mark.parametrize(
    ("before", "number"),
    [([], 1), ([started()], 2), ([started(), handed_back(counted=True)], 2), ([started(), started(2)], 3)],
)
def test_an_attempt_takes_the_next_number(before: list[EventData], number: int) -> None:
    """Attempts are numbered without gaps, however the previous one ended."""
    expected = Started(attempt=number, runner="runner-b", token="token-b", ticket=1, lease=30.0)

    assert expected == decide(after(*before), START)


def test_a_live_attempt_of_another_ticket_is_not_replaced() -> None:
    """Only the message that caused the live attempt may start the next one."""
    with pytest.raises(DecisionRefused, match="attempt 1 of operation op-1 is already running"):
        decide(after(started(ticket=5)), START)


def test_a_waiting_operation_starts_under_any_ticket() -> None:
    """The wake-up timer is another message than the one that caused the previous attempt."""
    data = decide(after(started(ticket=5), handed_back(counted=True)), START)

    assert isinstance(data, Started)


@pytest.mark.parametrize(("command", "expected"), OF_THE_LIVE_ATTEMPT, ids=kind_of)
def test_the_live_attempt_records_events(command: Command, expected: EventData) -> None:
    """A command of the live attempt becomes an event."""
    assert expected == decide(after(started()), command)


@pytest.mark.parametrize("command", [command for command, _ in OF_THE_LIVE_ATTEMPT], ids=kind_of)
@pytest.mark.parametrize(
    "before",
    [
        [],
        [started(token="token-2")],
        [started(), started(2)],
        [started(), handed_back(counted=True)],
        [started(), handed_back(counted=True), started(2)],
    ],
    ids=["not started", "another's", "taken over", "handed back", "followed"],
)
def test_every_other_attempt_is_fenced(command: Command, before: list[EventData]) -> None:
    """A command of an attempt that is not the live one raises `AttemptFenced`."""
    with pytest.raises(AttemptFenced):
        decide(after(*before), command)


@pytest.mark.parametrize("before", [[], [started(), handed_back(counted=True)]], ids=["not started", "waiting"])
def test_an_operation_without_a_live_attempt_is_canceled_at_once(before: list[EventData]) -> None:
    """Without a live attempt a cancel request ends the operation."""
    expected = Canceled(by="ann", reason="late")

    assert expected == decide(after(*before), RequestCancel(by="ann", reason="late"))


def test_a_live_attempt_is_asked_to_stop_once() -> None:
    """A cancel request is recorded for a live attempt; a second one causes no event."""
    command = RequestCancel(by="ann", reason="late")

    assert CancelRequested(by="ann", reason="late") == decide(after(started()), command)
    assert decide(after(started(), CancelRequested()), command) is None


def test_a_stopped_attempt_ends_for_the_reason_that_was_given() -> None:
    """The outcome has the caller and the reason of the cancel request."""
    operation = after(started(), CancelRequested(by="ann", reason="late"))

    assert Canceled(by="ann", reason="late") == canceled_outcome(operation)
    assert Canceled(by="ann", reason="late") == decide(operation, ConfirmCancel(token="token-1"))


@pytest.mark.parametrize("before", [[], [started()], [started(), handed_back(counted=True)]])
def test_an_operation_can_be_failed_from_outside(before: list[EventData]) -> None:
    """A deadline or an operator can end any open operation."""
    assert Failed(error=FAILURE) == decide(after(*before), FailOperation(error=FAILURE))


def test_an_unknown_command_is_refused() -> None:
    """A command that `decide` has no rule for changes nothing."""
    with pytest.raises(DecisionRefused, match="unknown command Command"):
        decide(after(), Command())


def test_data_is_made_as_it_will_be_decoded() -> None:
    """Whole numbers become floats and space around a result is removed, so the writer's snapshot has the same bytes."""
    operation = after(started())

    commands = [
        ReportProgress(token="token-1", percent=40),
        Succeed(token="token-1", result=b' {"a": 1}\n'),
        StartAttempt(runner="r", token="t", ticket=1, lease=30),
    ]
    expected = [
        b'{"percent":40.0}',
        b'{"result":{"a": 1}}',
        b'{"attempt":2,"runner":"r","token":"t","ticket":1,"lease":30.0}',
    ]

    assert expected == [msgspec.json.encode(decide(operation, command)) for command in commands]


@pytest.mark.parametrize(
    "command",
    [
        ReportProgress(token="token-1", percent=1.0, message="é" * 5000),
        Fail(token="token-1", error=OperationError(code="é" * 300, message="é" * 5000, target="é" * 300)),
        FailAttempt(
            token="token-1",
            error=OperationError(code="é" * 300, message="é" * 5000, target="é" * 300),
            retry_at=LATER,
            counted=True,
        ),
        RequestCancel(by="é" * 5000, reason="é" * 5000),
        FailOperation(error=OperationError(code="x", message="é" * 5000)),
    ],
    ids=kind_of,
)
def test_texts_are_cut(command: Command) -> None:
    """An event holds at most 4 KiB of a text."""
    data = msgspec.to_builtins(decide(after(started()), command))

    values = [*data.values(), *data.get("error", {}).values()]
    texts = [value for value in values if isinstance(value, str)]
    assert any("…" in text for text in texts)
    assert all(len(text.encode()) <= 4096 for text in texts)


def test_a_late_cancel_reason_is_cut_too() -> None:
    """The reason of an operation that is canceled at once is cut as well."""
    data = decide(after(), RequestCancel(reason="é" * 5000))

    assert isinstance(data, Canceled)
    assert data.reason.endswith("…")


@pytest.mark.parametrize("code", [400, 0, -1, "ClientOutOfDate"])
def test_an_error_code_stays_as_given(code: int | str) -> None:
    """An integer stays an integer and a word a word; only long texts are cut."""
    error = OperationError(code=code, message="m", target="t")

    assert error == truncate_error(error)
    assert code == truncate_error(error).code


def test_codes_and_targets_are_cut_shorter() -> None:
    """A code and a target are names, and get 256 bytes."""
    error = OperationError(code="c" * 300, message="m", target="t" * 300)

    expected = OperationError(code="c" * 253 + "…", message="m", target="t" * 253 + "…")
    assert expected == truncate_error(error)


def test_the_error_names_the_deadline() -> None:
    """The client reads which deadline was missed."""
    expected = OperationError(
        code="DeadlineExceeded", message="the operation did not finish by its deadline, 2026-03-15T09:26:53.589793Z"
    )

    assert expected == deadline_outcome(after()).error


def test_the_error_counts_the_lost_attempts() -> None:
    """The client reads the number of attempts; released ones don't count."""
    operation = after(started(), handed_back(counted=False), started(2), started(3))

    message = "the last of 2 attempts ended with the runner that executed it"
    expected = OperationError(code="RunnerLost", message=message)
    assert expected == runner_lost_outcome(operation).error


@pytest.mark.parametrize("refusal", [OperationExists, OperationFinished, AttemptFenced])
def test_every_error_is_a_decision_refused(refusal: type[Exception]) -> None:
    """Every error of `decide` is a `DecisionRefused`, and every error of the package a `SchemasError`."""
    assert issubclass(refusal, DecisionRefused)
    assert issubclass(refusal, SchemasError)
