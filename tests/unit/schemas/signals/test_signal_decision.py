"""What the door says to a signal, row by row, and which row wins."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import (
    Canceled,
    EventData,
    RefusedSignal,
    Signaled,
    SignalWait,
    Succeeded,
    WaitBegun,
)
from opstream_schemas.operation.state import Operation
from opstream_schemas.signals.signal_book import MAX_KEPT, MAX_SIGNALS
from opstream_schemas.signals.signal_decision import (
    KnownSignal,
    NewSignal,
    SignalRefused,
    SignalState,
    decide_signal,
)
from tests.support.schemas.histories import NOW, History, request, started

pytestmark = pytest.mark.unit

SCHEMA = msgspec.Raw(b'{"type":"boolean"}')
UNTIL = NOW + timedelta(hours=1)


def waiting(
    name: str = "approval",
    *,
    approvers: int = 1,
    not_requester: bool = False,
    refused: tuple[RefusedSignal, ...] = (),
) -> WaitBegun:
    """The begin of a wait."""
    wait = SignalWait(schema=SCHEMA, approvers=approvers, not_requester=not_requester)
    return WaitBegun(attempt=1, wait=name, until=UNTIL, signal=wait, refused=refused)


def signal(name: str = "approval", by: str = "", *, request_id: str = "", request_hash: str = "") -> Signaled:
    """A signal."""
    return Signaled(signal=name, payload=msgspec.Raw(b"true"), by=by, request_id=request_id, request_hash=request_hash)


def after(*datas: EventData, caller: str = "") -> Operation:
    """The state after a request and what follows."""
    return History().append(request(caller=caller), *datas).operation


def refusal(operation: Operation, data: Signaled, *, is_proven: bool = True) -> tuple[int, ErrorCode]:
    """The row and the code of a signal that is refused."""
    with pytest.raises(SignalRefused) as refused:
        decide_signal(operation.receiver, data, is_proven=is_proven)
    return refused.value.row, refused.value.code


ONCE = {"request_id": "a" * 43, "request_hash": "1" * 64}
OTHER = {"request_id": "a" * 43, "request_hash": "2" * 64}


def test_a_repeated_request_is_known() -> None:
    """The same request is the same answer, while the signal is kept, after the wait has it, and after the end."""
    once = signal(**ONCE)
    kept = after(once)
    taken = after(started(), waiting(), once, started(2, ticket=9))
    ended = after(started(), waiting(), once, started(2, ticket=9), Succeeded(result=msgspec.Raw(b"1")))
    assert decide_signal(kept.receiver, once, is_proven=False) == KnownSignal(1, SignalState.KEPT)
    assert decide_signal(taken.receiver, once, is_proven=False) == KnownSignal(1, SignalState.DELIVERED)
    assert decide_signal(ended.receiver, once, is_proven=False) == KnownSignal(1, SignalState.DELIVERED)


def test_an_id_belongs_to_one_request() -> None:
    """Another payload with the same Repeatability headers is refused, also by an operation that has ended."""
    assert refusal(after(signal(**ONCE)), signal(**OTHER)) == (1, ErrorCode.REQUEST_ID_REUSED)
    assert refusal(after(signal(**ONCE), Canceled()), signal(**OTHER)) == (1, ErrorCode.REQUEST_ID_REUSED)


def test_nothing_is_sent_to_what_has_ended() -> None:
    """An operation with an outcome takes no signal."""
    assert refusal(after(Canceled()), signal()) == (2, ErrorCode.OPERATION_FINISHED)


@pytest.mark.parametrize("sent", [(), (signal(),)], ids=["timed out", "with its signal"])
def test_a_wait_that_is_over_takes_nothing(sent: tuple[Signaled, ...]) -> None:
    """A signal to a wait that is over would be taken by nothing, so its sender is told."""
    operation = after(started(), waiting(), *sent, started(2, ticket=9))
    assert refusal(operation, signal()) == (3, ErrorCode.SIGNAL_TOO_LATE)
    assert isinstance(decide_signal(operation.receiver, signal("other"), is_proven=False), NewSignal)


def test_a_complete_wait_takes_nothing() -> None:
    """Between the signal and the attempt that takes it, a second one is too late."""
    assert refusal(after(started(), waiting(), signal()), signal()) == (4, ErrorCode.SIGNAL_TOO_LATE)


@pytest.mark.parametrize(
    ("data", "is_proven", "expected"),
    [
        (signal(by="bob"), False, (5, ErrorCode.SENDER_NOT_ALLOWED)),
        (signal(by=""), True, (5, ErrorCode.SENDER_NOT_ALLOWED)),
        (signal(by="ann"), True, (5, ErrorCode.SENDER_NOT_ALLOWED)),
        (signal(by="cy"), True, (6, ErrorCode.SIGNAL_REPEATED)),
    ],
    ids=["no authentication", "by a URL", "the requester", "one who has sent it"],
)
def test_who_may_approve(data: Signaled, is_proven: bool, expected: tuple[int, ErrorCode]) -> None:
    """Approvals come from different callers that have proven who they are, and none from the requester."""
    wait = waiting(approvers=2, not_requester=True)
    operation = after(started(), wait, signal(by="cy"), caller="ann")
    assert refusal(operation, data, is_proven=is_proven) == expected


def test_two_approvals() -> None:
    """Two different callers complete a wait for two."""
    operation = after(started(), waiting(approvers=2), signal(by="ann"), caller="ann")
    assert not operation.has_its_signal
    decision = decide_signal(operation.receiver, signal(by="bob"), is_proven=True)
    assert decision == NewSignal(8, signal(by="bob"), SignalState.DELIVERED)
    assert after(started(), waiting(approvers=2), signal(by="ann"), signal(by="bob"), caller="ann").has_its_signal


def test_no_more_are_kept() -> None:
    """An operation keeps a limited number of signals for waits to come; a wait that has begun still gets its own."""
    kept = [signal(f"s{number}") for number in range(MAX_KEPT)]
    assert refusal(after(*kept), signal()) == (7, ErrorCode.TOO_MANY_SIGNALS)
    waits = after(started(), *kept, waiting())
    assert refusal(waits, signal("another")) == (7, ErrorCode.TOO_MANY_SIGNALS)
    assert decide_signal(waits.receiver, signal(), is_proven=False) == NewSignal(8, signal(), SignalState.DELIVERED)


def test_no_more_are_taken_in_all() -> None:
    """The number of signals that an operation takes is limited, whatever became of the earlier ones."""
    history = History().append(request())
    operation = history.operation
    book = operation.signals
    assert book is None
    full = msgspec.structs.replace(after(signal()).signals or pytest.fail("no signals"), count=MAX_SIGNALS, kept=())
    operation = msgspec.structs.replace(operation, signals=full)
    assert refusal(operation, signal()) == (7, ErrorCode.TOO_MANY_SIGNALS)


def test_before_the_wait_it_is_kept() -> None:
    """A signal that comes first is recorded, and its sender told that nothing waits for it yet."""
    for operation in (after(), after(started()), after(started(), waiting("other"))):
        assert decide_signal(operation.receiver, signal(), is_proven=False) == NewSignal(8, signal(), SignalState.KEPT)


def test_one_that_does_not_fit_is_passed_over() -> None:
    """A kept signal that the wait names as refused completes nothing, and the next one does."""
    misfit = RefusedSignal(position=2, reason="not a boolean")
    history = History().append(request(), signal(), started(), waiting(refused=(misfit,)))
    assert not history.operation.has_its_signal
    assert history.append(signal()).operation.has_its_signal


def test_a_kept_signal_completes_a_wait_at_once() -> None:
    """A wait whose signal was there before it has it with its first event."""
    operation = after(signal(), started(), waiting())
    assert operation.has_its_signal
    assert operation.wait is not None
    assert operation.wait.ready_at == NOW + timedelta(seconds=3)
