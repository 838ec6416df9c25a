"""A lock under any interleaving, with crashes anywhere: never two owners at once, and no waiter is forgotten.

The model has the journal (the stage of each operation), the key of the owner, the keys of the waiters and the messages
that are not acknowledged. Each process is a generator that yields before each read and each write, so Hypothesis
chooses which one acts next, which one dies, and which message is delivered again to another one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opstream_schemas.operation.resource_lock import (
    CheckOperation,
    Claim,
    ClearLock,
    GrantLock,
    ListWaiters,
    LockBusy,
    LockFree,
    LockOwned,
    LockReplaced,
    LockState,
    LockStep,
    OperationStage,
    decide_lock,
)

pytestmark = pytest.mark.unit

Acting: TypeAlias = Generator[None, None, Any]


class Model:
    """One lock, and the operations that want it."""

    def __init__(self, replacing: list[bool]) -> None:
        self.claims = [
            Claim(operation_id=f"op-{number}", sequence=number, kind="a:b", replaces=replaces)
            for number, replaces in enumerate(replacing, 1)
        ]
        self.stages = {claim.operation_id: OperationStage.REQUESTED for claim in self.claims}
        self.tickets: dict[str, int] = {}
        """Of those that have begun: the message that owns the attempt."""
        self.owner: Claim | None = None
        self.revision = 0
        self.waiters: dict[str, Claim] = {}
        self.owed: dict[int, Claim] = {}
        """Messages that are not acknowledged, by ticket: requests and wake-up timers."""
        self.delivered: set[int] = set()
        """Tickets that were delivered at least once."""
        self.unsettled: dict[str, Claim] = {}
        """Terminal events that the projector has not acknowledged."""
        self._sent = 0
        for claim in self.claims:
            self.send(claim)

    def send(self, claim: Claim) -> None:
        """Store a message for the runners: a request, or later a wake-up timer."""
        self._sent += 1
        self.owed[self._sent] = claim

    def deliver(self, ticket: int) -> Acting:
        """Deliver a message to a runner, for the first time or again."""
        is_again = ticket in self.delivered
        self.delivered.add(ticket)
        return self.run(ticket, self.owed[ticket], is_again=is_again)

    def end(self, claim: Claim) -> None:
        """Record a terminal event, if there is none."""
        if self.stages[claim.operation_id] is not OperationStage.ENDED:
            self.stages[claim.operation_id] = OperationStage.ENDED
            self.unsettled[claim.operation_id] = claim

    def run(self, ticket: int, claim: Claim, *, is_again: bool) -> Acting:
        """The steps of a runner for a message, up to its acknowledgement."""
        yield
        has_begun = self._is_own(ticket, claim)  # and its process died
        if self.stages[claim.operation_id] is OperationStage.REQUESTED:
            has_begun = yield from self._try_to_begin(ticket, claim, is_again=is_again)
        yield
        if self._is_own(ticket, claim):
            if not has_begun:
                return  # another delivery of this message runs it
            yield
            self.end(claim)
        if self.stages[claim.operation_id] is OperationStage.ENDED:
            yield from self.release(claim)
        yield
        self.owed.pop(ticket, None)

    def settle(self, claim: Claim) -> Acting:
        """The steps of the projector for a terminal event, up to its acknowledgement."""
        yield from self.release(claim)
        yield
        self.unsettled.pop(claim.operation_id, None)

    def release(self, claim: Claim) -> Acting:
        """Leave the queue, and pass the lock on."""
        yield
        self.waiters.pop(claim.operation_id, None)
        yield from self._decide(None, is_listing=False)

    def _is_own(self, ticket: int, claim: Claim) -> bool:
        return self.stages[claim.operation_id] is OperationStage.STARTED and self.tickets[claim.operation_id] == ticket

    def _try_to_begin(self, ticket: int, claim: Claim, *, is_again: bool) -> Acting:
        answer = yield from self._decide(claim, is_listing=False)
        if isinstance(answer, LockBusy):
            yield
            self.waiters[claim.operation_id] = claim
            answer = yield from self._decide(claim, is_listing=True)
            yield
            if self.stages[claim.operation_id] is not OperationStage.REQUESTED:
                yield
                self.waiters.pop(claim.operation_id, None)
                return False  # the caller decides again, from the new stage
        yield
        if isinstance(answer, LockReplaced):
            self.end(claim)
        elif isinstance(answer, LockBusy) and claim.replaces:
            earlier = [one for one in (answer.owner, *self.waiters.values()) if one.order < claim.order]
            for one in earlier:
                yield
                if self.stages[one.operation_id] is OperationStage.REQUESTED:  # a started one is only asked to stop
                    self.end(one)
        elif isinstance(answer, LockOwned) and answer.is_handed and ticket <= len(self.claims):
            if is_again:
                self.send(claim)
        elif isinstance(answer, LockOwned) and self.stages[claim.operation_id] is OperationStage.REQUESTED:
            assert OperationStage.STARTED not in self.stages.values(), "two run at once"
            self.stages[claim.operation_id] = OperationStage.STARTED
            self.tickets[claim.operation_id] = ticket
            return True
        return False

    def _decide(self, claim: Claim | None, *, is_listing: bool) -> Acting:
        while True:
            yield
            revision, hold = self.revision, LockState(owner=self.owner)
            if is_listing:
                hold = yield from self._listed(hold)
            known: dict[str, OperationStage] = {}
            while isinstance(step := decide_lock(hold, claim, known), CheckOperation | ListWaiters):
                if isinstance(step, CheckOperation):
                    yield
                    known[step.operation_id] = self.stages[step.operation_id]
                else:
                    hold = yield from self._listed(hold)
            yield
            match step:
                case GrantLock(to):
                    if self._write(to, revision):
                        is_own = claim is not None and to.operation_id == claim.operation_id
                        yield from self._pass_on(to)
                        return LockOwned(to.is_handed) if is_own else LockBusy(to, OperationStage.REQUESTED)
                case ClearLock():
                    if self._write(None, revision):
                        return None
                case LockBusy(owner, life):
                    if claim is None and life is OperationStage.REQUESTED:
                        self.send(owner)
                    return step
                case _:
                    return step

    def _listed(self, hold: LockState) -> Acting:
        yield
        return LockState(owner=hold.owner, waiters=tuple(self.waiters.values()))

    def _write(self, owner: Claim | None, revision: int) -> bool:
        if self.revision != revision:
            return False
        assert self.owner is None or self.stages[self.owner.operation_id] is OperationStage.ENDED, (
            "an open one was robbed"
        )
        self.owner = owner
        self.revision += 1
        return True

    def _pass_on(self, to: Claim) -> Acting:
        yield
        if to.is_handed:
            self.send(to)
            yield
        self.waiters.pop(to.operation_id, None)


def play(model: Model, choices: list[tuple[int, int, int]]) -> None:
    """Let processes act for some steps: start, die, cancel, as the choices say."""
    acting: list[Acting] = []
    for what, which, steps in choices:
        owed, unsettled = sorted(model.owed), sorted(model.unsettled)
        if what < 6 and acting:
            one = acting[which % len(acting)]
            if any(is_over(one) for _ in range(steps)):
                acting.remove(one)
        elif what == 6 and acting:
            acting.pop(which % len(acting))  # a process dies
        elif what == 7:
            claim = model.claims[which % len(model.claims)]
            if model.stages[claim.operation_id] is OperationStage.REQUESTED:
                model.end(claim)  # a client cancels
        elif what in {8, 9} and unsettled:
            acting.append(model.settle(model.unsettled[unsettled[which % len(unsettled)]]))
        elif owed:
            ticket = owed[which % len(owed)]
            acting.append(model.deliver(ticket))
    for one in acting:
        exhaust(one)


def redeliver(model: Model) -> None:
    """Redeliver unacknowledged messages, without crashes, until none is left."""
    for _ in range(100):
        if not model.owed and not model.unsettled:
            return
        for ticket in list(model.owed):
            exhaust(model.deliver(ticket))
        for claim in list(model.unsettled.values()):
            exhaust(model.settle(claim))
    raise AssertionError("messages make messages for ever")


def exhaust(one: Acting) -> None:
    """Let one process act to its end."""
    while not is_over(one):
        pass


def is_over(one: Acting) -> bool:
    """Let one process take a step. Return True if it was the last."""
    try:
        next(one)
    except StopIteration:
        return True
    return False


steps = st.integers(1, 10) | st.just(100)


@settings(max_examples=max(300, settings.default.max_examples))
@given(
    st.lists(st.booleans() | st.just(False), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5), steps), min_size=20, max_size=60),
)
def test_no_two_run_at_once_and_all_end(replacing: list[bool], choices: list[tuple[int, int, int]]) -> None:
    """With crashes and redeliveries, one operation runs at a time, no open owner loses the lock, and all end."""
    model = Model(replacing)
    play(model, choices)
    redeliver(model)

    assert set(model.stages.values()) == {OperationStage.ENDED}


claims = st.builds(
    Claim,
    operation_id=st.sampled_from([f"op-{number}" for number in range(8)]),
    sequence=st.integers(1, 8),
    kind=st.just("a:b"),
    replaces=st.booleans(),
)
known = st.fixed_dictionaries({f"op-{number}": st.sampled_from(OperationStage) for number in range(8)})
waiting = st.lists(claims, max_size=6, unique_by=lambda claim: claim.operation_id)


@given(st.none() | claims, waiting, st.none() | claims, known)
def test_the_first_waiter_is_next(
    owner: Claim | None, waiters: list[Claim], claim: Claim | None, known: dict[str, OperationStage]
) -> None:
    """A free lock goes to the open operation with the lowest `requested` sequence, and to no other."""
    step = decide_lock(LockState(owner=owner, waiters=tuple(waiters)), claim, known)
    others = [one for one in waiters if known[one.operation_id] is not OperationStage.ENDED]
    candidates = [one for one in others if claim is None or one.operation_id != claim.operation_id]
    candidates += [claim] if claim is not None else []

    if isinstance(step, GrantLock):
        assert owner is None or known[owner.operation_id] is OperationStage.ENDED
        first = min(candidates, key=lambda one: one.order)
        assert msgspec.structs.replace(step.to, is_handed=False) == first
        is_new = claim is not None and first == claim and claim.operation_id not in {w.operation_id for w in waiters}
        assert step.to.is_handed is not is_new
    elif isinstance(step, ClearLock | LockFree):
        assert candidates == []


@given(claims, waiting, claims, known)
def test_an_open_owner_keeps_its_lock(
    owner: Claim, waiters: list[Claim], claim: Claim, known: dict[str, OperationStage]
) -> None:
    """While the owner is open nothing is written, and only the owner gets `LockOwned`."""
    known[owner.operation_id] = OperationStage.STARTED
    for asking in (claim, None):
        step: LockStep = decide_lock(LockState(owner=owner, waiters=tuple(waiters)), asking, known)

        assert not isinstance(step, GrantLock | ClearLock)
        assert isinstance(step, LockOwned) is (asking is not None and asking.operation_id == owner.operation_id)
