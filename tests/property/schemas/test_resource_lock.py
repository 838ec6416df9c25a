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
    """One lock, and the operations that want it.

    Args:
        replacing: for each operation whether it replaces those before it.
        naps: how often each sleeps without the lock before it ends.
    """

    def __init__(self, replacing: list[bool], naps: list[int]) -> None:
        self.claims = [
            Claim(operation_id=f"op-{number}", sequence=number, kind="a:b", replaces=replaces)
            for number, replaces in enumerate(replacing, 1)
        ]
        self.stages = {claim.operation_id: OperationStage.REQUESTED for claim in self.claims}
        self.naps = {claim.operation_id: count for claim, count in zip(self.claims, naps, strict=True)}
        self.let_go = dict.fromkeys(self.stages, 0)
        """How often each has slept so far."""
        self.versions = dict.fromkeys(self.stages, 0)
        self.asleep: dict[str, Claim] = {}
        """Events of sleeps that the projector has not acknowledged."""
        self.alarms: dict[int, int] = {}
        """Of messages that are the end of a sleep: of which."""
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
            self.versions[claim.operation_id] += 1
            self.unsettled[claim.operation_id] = claim

    def sleep(self, claim: Claim) -> None:
        """Record that an attempt ended because its action sleeps."""
        operation_id = claim.operation_id
        self.naps[operation_id] -= 1
        self.let_go[operation_id] += 1
        self.versions[operation_id] += 1
        self.stages[operation_id] = OperationStage.REQUESTED  # no attempt has begun, as for the lock
        self.asleep[operation_id] = claim

    def arm(self, claim: Claim) -> None:
        """Store the message at the end of a sleep."""
        self.send(claim)
        self.alarms[self._sent] = self.let_go[claim.operation_id]

    def run(self, ticket: int, claim: Claim, *, is_again: bool) -> Acting:
        """The steps of a runner for a message, up to its acknowledgement."""
        yield
        has_begun = self._is_own(ticket, claim)  # and its process died
        if self.stages[claim.operation_id] is OperationStage.REQUESTED:
            if self.alarms.get(ticket, 0) != self.let_go[claim.operation_id]:
                yield
                self.arm(claim)  # row 9: only the end of this sleep begins an attempt
                yield
                self.owed.pop(ticket, None)
                return
            has_begun = yield from self._try_to_begin(ticket, claim, is_again=is_again)
        yield
        if self._is_own(ticket, claim):
            if not has_begun:
                return  # another delivery of this message runs it
            yield
            if self.naps[claim.operation_id]:
                slept = self.let_go[claim.operation_id] + 1
                self.sleep(claim)
                yield
                self.arm(claim)
                yield
                self.owed.pop(ticket, None)
                yield from self.give_up(claim, slept)
                return
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

    def settle_sleep(self, claim: Claim) -> Acting:
        """The steps of the projector for the event of a sleep, up to its acknowledgement."""
        slept = self.let_go[claim.operation_id]
        yield from self.give_up(claim, slept)
        yield
        if self.let_go[claim.operation_id] == slept:
            self.asleep.pop(claim.operation_id, None)

    def give_up(self, claim: Claim, slept: int) -> Acting:
        """Give the lock of a sleeper to the next one, unless it has claimed it again (`ResourceLocks.let_go`)."""
        yield
        owner, revision = self.owner, self.revision
        if owner is not None:
            yield
            is_old = owner.operation_id == claim.operation_id and owner.let_go < slept
            if not is_old or not self._write(None, revision):
                return
        yield from self._decide(None, is_listing=False)

    def release(self, claim: Claim) -> Acting:
        """Leave the queue, and pass the lock on."""
        yield
        self.waiters.pop(claim.operation_id, None)
        yield from self._decide(None, is_listing=False)

    def _is_own(self, ticket: int, claim: Claim) -> bool:
        return self.stages[claim.operation_id] is OperationStage.STARTED and self.tickets[claim.operation_id] == ticket

    def _try_to_begin(self, ticket: int, claim: Claim, *, is_again: bool) -> Acting:
        version = self.versions[claim.operation_id]
        claim = msgspec.structs.replace(claim, let_go=self.let_go[claim.operation_id])
        answer = yield from self._decide(claim, is_listing=False)
        if isinstance(answer, LockBusy):
            yield
            self.waiters[claim.operation_id] = claim
            answer = yield from self._decide(claim, is_listing=True)
            yield
            if self.versions[claim.operation_id] != version:
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
        elif isinstance(answer, LockOwned) and self.versions[claim.operation_id] == version:
            assert OperationStage.STARTED not in self.stages.values(), "two run at once"
            self.stages[claim.operation_id] = OperationStage.STARTED
            self.versions[claim.operation_id] += 1
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
        before = self.owner
        is_free = before is None or self.stages[before.operation_id] is OperationStage.ENDED
        is_asleep = (
            before is not None
            and before.let_go < self.let_go[before.operation_id]
            and self.stages[before.operation_id] is not OperationStage.STARTED
        )
        is_own = before is not None and owner is not None and before.operation_id == owner.operation_id
        assert is_free or is_asleep or is_own, "an open one was robbed"
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
        owed, unsettled, asleep = sorted(model.owed), sorted(model.unsettled), sorted(model.asleep)
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
        elif what == 10 and asleep:
            acting.append(model.settle_sleep(model.asleep[asleep[which % len(asleep)]]))
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
        if not model.owed and not model.unsettled and not model.asleep:
            return
        for ticket in list(model.owed):
            exhaust(model.deliver(ticket))
        for claim in list(model.unsettled.values()):
            exhaust(model.settle(claim))
        for claim in list(model.asleep.values()):
            exhaust(model.settle_sleep(claim))
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
    st.lists(st.sampled_from([0, 0, 1, 2]), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5), steps), min_size=20, max_size=60),
)
def test_no_two_run_at_once_and_all_end(
    replacing: list[bool], naps: list[int], choices: list[tuple[int, int, int]]
) -> None:
    """With crashes, redeliveries and sleeps without the lock, one operation runs at a time, none that is awake loses
    the lock, and all end."""
    model = Model(replacing, naps[: len(replacing)])
    play(model, choices)
    redeliver(model)

    assert set(model.stages.values()) == {OperationStage.ENDED}


def test_a_projector_that_is_late_takes_nothing_away() -> None:
    """A sleeper whose runner died before it gave the lock up claims it again at the end of its sleep. A projector that
    has read the lock before then finds another revision, one that reads it later another claim."""
    for is_read_before in (True, False):
        model = Model([False, False], [1, 0])
        first, second = model.claims
        run = model.deliver(1)
        while not model.asleep:
            assert not is_over(run)
        next(run)  # the end of its sleep is scheduled; then its runner dies
        late = model.settle_sleep(first)
        if is_read_before:
            for _ in range(3):  # it has read the lock, and is about to write
                next(late)
        alarm = next(iter(model.alarms))
        again = model.deliver(alarm)
        while model.stages[first.operation_id] is not OperationStage.STARTED:
            assert not is_over(again)
        exhaust(late)
        exhaust(model.deliver(2))
        assert model.stages[second.operation_id] is OperationStage.REQUESTED
        redeliver(model)
        assert set(model.stages.values()) == {OperationStage.ENDED}


claims = st.builds(
    Claim,
    operation_id=st.sampled_from([f"op-{number}" for number in range(8)]),
    sequence=st.integers(1, 8),
    kind=st.just("a:b"),
    replaces=st.booleans(),
)
"""None has slept."""
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
