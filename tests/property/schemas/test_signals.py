"""Signals and waits, for any history: none is lost, none is taken twice, and a wait has one result for ever."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given

from opstream_schemas.events import Signaled, Started, WaitBegun
from opstream_schemas.signals.signal_book import NO_SIGNALS
from opstream_schemas.signals.wait_history import closed_waits, wait_events
from tests.support.schemas.histories import History, signal_histories

pytestmark = pytest.mark.unit


def payloads(history: History, name: str) -> list[bytes]:
    """All payloads that were sent under a name, in order."""
    return [
        bytes(event.data.payload)
        for event in history.events
        if isinstance(event.data, Signaled) and event.data.signal == name
    ]


@given(signal_histories())
def test_the_two_folds_agree(history: History) -> None:
    """What an attempt learns of the waits that are over is what the state says, name by name."""
    operation = history.operation
    closed = closed_waits(wait_events(history.events), operation.caller)
    assert set(closed) == set((operation.signals or NO_SIGNALS).closed)


@given(signal_histories())
def test_a_result_never_changes(history: History) -> None:
    """What a wait has returned once it returns in each later attempt, whatever is sent afterwards."""
    known = dict[str, tuple[bytes, ...]]()
    for number in range(1, len(history.events) + 1):
        events = wait_events(history.events[:number])
        closed = closed_waits(events, history.operation.caller)
        found = {name: tuple(map(bytes, one.payloads)) for name, one in closed.items()}
        assert known.items() <= found.items()
        known = found


@given(signal_histories())
def test_none_is_lost(history: History) -> None:
    """Each signal is kept until a wait for its name is over, or the wait has named it as one that does not fit."""
    refused = {
        one.position for event in history.events if isinstance(event.data, WaitBegun) for one in event.data.refused
    }
    book = history.operation.signals or NO_SIGNALS
    kept = {one.position for one in book.kept}
    for event in history.events:
        if isinstance(event.data, Signaled):
            is_over = event.data.signal in book.closed
            assert event.position in kept or is_over or event.position in refused


@given(signal_histories())
def test_a_wait_takes_what_was_sent_to_it(history: History) -> None:
    """A wait returns as many payloads as it asks for, each sent under its name, in their order."""
    closed = closed_waits(wait_events(history.events), history.operation.caller)
    waits = {event.data.wait: event.data.signal for event in history.events if isinstance(event.data, WaitBegun)}
    for name, one in closed.items():
        if not one.has_timed_out:
            wait = waits[name]
            assert wait is not None
            assert len(one.payloads) == wait.approvers
            rest = iter(payloads(history, name))
            assert all(bytes(payload) in rest for payload in one.payloads)


@given(signal_histories())
def test_approvals_come_from_different_callers(history: History) -> None:
    """No wait that needs proof is complete by the requester, by an unknown sender, or by one sender twice."""
    requester = history.operation.caller
    sent = list[Signaled]()
    for event, state in zip(history.events, history.states, strict=True):
        if isinstance(event.data, Signaled):
            sent.append(event.data)
        wait = state.receiver.wait
        if wait is not None and wait.needs_proof and state.has_its_signal:
            names = {one.by for one in sent if one.signal == state.receiver.awaited} - {""}
            proven = names - {requester} if wait.not_requester else names
            assert len(proven) >= wait.approvers


@given(signal_histories())
def test_a_wait_is_ready_once(history: History) -> None:
    """Once an operation has its signal, only the next attempt or its end changes that; and what is ready begins."""
    for (before, after), event in zip(pairwise(history.states), history.events[1:], strict=True):
        if before.has_its_signal and not after.has_its_signal:
            assert isinstance(event.data, Started) or after.is_terminal
