"""What a runner does with requests that were made for another version of its action."""

from __future__ import annotations

import logging
import threading
from typing import Any

import msgspec
import pytest

from opstream_runner import Action, ActionContext, ActionError, action
from opstream_runner.dispatch.admission import Admit, Reject, Requeue
from opstream_runner.dispatch.version_gate import OTHER_VERSION_WAIT, VersionGate
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Failed
from opstream_schemas.operation.state import Operation
from tests.support.schemas.histories import History, request

pytestmark = pytest.mark.unit

NEW = b'{"pages": 7}'
OLD = b'{"page": "seven"}'


class Pages(msgspec.Struct, forbid_unknown_fields=True):
    pages: int

    def __post_init__(self) -> None:
        if self.pages == 13:
            raise ActionError("BadLuck", "not that many")
        if self.pages == 0:
            raise LookupError("no paper")


@action("book:print", version=3)
async def printing(request: Pages, ctx: ActionContext) -> int:
    return request.pages


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> VersionGate:
    one: Action[..., int] = printing
    return VersionGate(one, clock, no_runners)


async def no_runners() -> tuple[int, ...]:
    """Nobody else is there."""
    return ()


def asked(version: int, operation_id: str = "op-1") -> Operation:
    """An operation that was requested for a version of the action."""
    operation = History().append(request(action_version=version)).operation
    return msgspec.structs.replace(operation, id=operation_id)


def raw(document: bytes) -> msgspec.Raw:
    return msgspec.Raw(document)


@pytest.mark.parametrize("document", [NEW, OLD])
async def test_its_own_version(gate: VersionGate, document: bytes) -> None:
    """A request of the runner's own version is run; whether its input can be read is found when it runs."""
    assert await gate.admit(asked(3), raw(document)) == Admit()


async def test_a_later_version(gate: VersionGate, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A request of a later version is left to its runners for ever, with one warning that names both versions."""
    for _ in range(50):
        assert await gate.admit(asked(4), raw(NEW)) == Requeue(1.0)
    clock.now += 20
    assert await gate.admit(asked(4, "op-2"), raw(NEW)) == Requeue(1.0)
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "this runner has version 3" in line
    assert "operation op-1 is of version 4" in line


async def test_an_earlier_version_that_can_be_read(gate: VersionGate, caplog: pytest.LogCaptureFixture) -> None:
    """A request of an earlier version runs if its input is one of this version, too."""
    assert await gate.admit(asked(1), raw(NEW)) == Admit()
    assert not caplog.records


async def test_an_earlier_version_that_can_not_be_read(
    gate: VersionGate, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left to others for some minutes, with growing pauses and a warning, and then fails with the reason."""
    begin = clock.now
    delays = []
    while isinstance(admission := await gate.admit(asked(1), raw(OLD)), Requeue):
        delays.append(admission.delay)
        clock.now += admission.delay
    assert delays[:5] == [1.0] * 5
    assert delays == sorted(delays)
    assert max(delays) == 10.0
    assert OTHER_VERSION_WAIT <= clock.now - begin <= OTHER_VERSION_WAIT + 10
    assert isinstance(admission, Reject)
    assert isinstance(admission.data, Failed)
    error = admission.data.error
    assert error.code == ErrorCode.INVALID_INPUT
    assert "the request was made for version 1 of book:print" in error.message
    assert "its input is not one of version 3: " in error.message
    first = caplog.records[0].getMessage()
    assert first.startswith("requests for an earlier version of book:print are left to its runners, since version 3")
    assert "operation op-1 is of version 1: " in first
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) <= 11  # one each 30 s


async def test_each_operation_waits_by_itself(gate: VersionGate, clock: Clock) -> None:
    """A request that is seen later waits as long as the first one."""
    assert isinstance(await gate.admit(asked(1), raw(OLD)), Requeue)
    clock.now += OTHER_VERSION_WAIT
    assert isinstance(await gate.admit(asked(2, "op-2"), raw(OLD)), Requeue)
    assert isinstance(await gate.admit(asked(1), raw(OLD)), Reject)


async def test_what_the_input_type_raises(gate: VersionGate) -> None:
    """Its mistake is no input of this version; what it means as an outcome is recorded by the attempt."""
    assert await gate.admit(asked(1), raw(b'{"pages": 0}')) == Requeue(1.0)
    assert await gate.admit(asked(1, "op-2"), raw(b'{"pages": 13}')) == Admit()


class Part(msgspec.Struct):
    """Open, as msgspec's structs are by default: its decoder passes over members that it does not know."""

    number: int
    new: int = 7
    parts: list[Part] = []


@pytest.mark.parametrize(
    "document",
    [b'{"number": 1, "old": "mine"}', b'{"number": 1, "parts": [{"number": 2, "old": "mine"}]}'],
    ids=["member", "nested"],
)
async def test_a_member_that_this_version_does_not_know(
    document: bytes, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What the client sent may not be dropped in silence: the request is left to runners that know the member."""

    @action("book:bind", version=2)
    async def binding(request: Part, ctx: ActionContext) -> int:
        return request.new

    one: Action[..., int] = binding
    gate = VersionGate(one, clock, no_runners)
    assert await gate.admit(asked(1), raw(b'{"number": 1}')) == Admit()
    assert not caplog.records
    assert await gate.admit(asked(1), raw(document)) == Requeue(1.0)
    assert "Object contains unknown field `old`" in caplog.text
    clock.now += OTHER_VERSION_WAIT
    admission = await gate.admit(asked(1), raw(document))
    assert isinstance(admission, Reject)
    assert isinstance(admission.data, Failed)
    assert "unknown field `old`" in admission.data.error.message


class Noted(msgspec.Struct):
    """Notes where its code runs."""

    at: int

    def __post_init__(self) -> None:
        threads.append(threading.current_thread())
        if self.at == 2:
            raise SystemExit(3)


threads: list[threading.Thread] = []


async def test_the_code_of_a_type_does_not_run_in_the_loop(clock: Clock) -> None:
    """It may block, or exit: a thread of its own decodes, and the attempt will meet the exit again."""

    @action("book:bind", version=2)
    async def binding(request: Noted, ctx: ActionContext) -> Any:
        return request.at

    one: Action[..., Any] = binding
    gate = VersionGate(one, clock, no_runners)
    threads.clear()
    assert await gate.admit(asked(1), raw(b'{"at": 1}')) == Admit()
    assert await gate.admit(asked(1), raw(b'{"at": 2}')) == Admit()
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_what_is_left_to_others_is_shown(gate: VersionGate, clock: Clock) -> None:
    """Requests of other versions count while they come back, the first since it came first; what ran here does not."""
    for one, version in (("op-1", 4), ("op-2", 2)):
        await gate.admit(asked(version, one), raw(OLD))
    clock.now += 7
    await gate.admit(asked(4, "op-1"), raw(NEW))
    assert gate.waits == (2, 7.0)
    await gate.admit(asked(2, "op-2"), raw(NEW))
    assert gate.waits == (1, 7.0)
    clock.now += 60
    assert gate.waits == (0, 0.0)


def from_earlier(given: Any, version: int) -> Any:
    """Version 1 had `page`, version 2 had texts."""
    if version == 1:
        given = {"pages": given["page"]}
    if given["pages"] == "none":
        raise ValueError("there is nothing to print")
    return {"pages": int(given["pages"])}


@action("book:print", version=3, upcast=from_earlier)
async def upcasting(request: Pages, ctx: ActionContext) -> int:
    return request.pages


@pytest.fixture
def upcaster(clock: Clock) -> VersionGate:
    one: Action[..., int] = upcasting
    return VersionGate(one, clock, no_runners)


@pytest.mark.parametrize(
    ("version", "given", "expected"),
    [(1, b'{"page": "7"}', b'{"pages":7}'), (2, b'{"pages": "7"}', b'{"pages":7}'), (2, NEW, b'{"pages":7}')],
)
async def test_an_upcast(upcaster: VersionGate, version: int, given: bytes, expected: bytes) -> None:
    """Each input of an earlier version goes through it, also one that could be read as it is."""
    assert await upcaster.admit(asked(version), raw(given)) == Admit(msgspec.Raw(expected))


async def test_no_upcast_of_its_own_version(upcaster: VersionGate) -> None:
    """What was requested for this version is taken as it is."""
    assert await upcaster.admit(asked(3), raw(b'{"page": "7"}')) == Admit()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b'{"pages": "none"}', "its upcast refused it: there is nothing to print"),
        (b'{"secret": 1}', "its upcast raised KeyError; the runner's log has the details"),
    ],
)
async def test_an_upcast_that_fails(upcaster: VersionGate, clock: Clock, given: bytes, said: str) -> None:
    """The operation is left to a runner of its version, and fails with the reason if there is none; the text of a
    mistake is not for the client."""
    assert isinstance(await upcaster.admit(asked(2), raw(given)), Requeue)
    clock.now += OTHER_VERSION_WAIT
    rejected = await upcaster.admit(asked(2), raw(given))
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.data, Failed)
    assert rejected.data.error.message.endswith(said)


async def test_a_runner_of_its_version_is_there(clock: Clock) -> None:
    """As long as one is, the request is left to it; once there is none, it fails."""
    one: Action[..., int] = printing
    there = [(1, 3)]

    async def read_versions() -> tuple[int, ...]:
        return there[-1]

    gate = VersionGate(one, clock, read_versions)
    for _ in range(5):
        assert isinstance(await gate.admit(asked(1), raw(OLD)), Requeue)
        clock.now += OTHER_VERSION_WAIT
    assert isinstance(await gate.admit(asked(2, "op-2"), raw(OLD)), Requeue)
    there.append((2, 3))
    assert isinstance(await gate.admit(asked(1), raw(OLD)), Reject)


async def test_another_schema_of_its_own_version(gate: VersionGate, clock: Clock) -> None:
    """Where runners have one version with two schemas, what fits runs, and the rest is left to others for a while."""
    gate.expect_other_schemas()
    assert await gate.admit(asked(3), raw(NEW)) == Admit()
    assert isinstance(await gate.admit(asked(3), raw(OLD)), Requeue)
    clock.now += OTHER_VERSION_WAIT
    rejected = await gate.admit(asked(3), raw(OLD))
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.data, Failed)
    assert "made for another schema of version 3 of book:print" in rejected.data.error.message
