"""A step as a handler calls it, without a runner: names, options, results as a later attempt sees them, tries."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_runner import (
    ActionCanceledError,
    ActionError,
    InvalidStep,
    RecordingContext,
    RetryAfter,
    StepInputChanged,
    StepInterrupted,
)
from opstream_runner.steps.step_table import NO_LIMIT, StepTable
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import StepFailed, StepStarted, StepSucceeded
from opstream_schemas.steps.step_history import StepRecord

pytestmark = pytest.mark.unit


class Copied(msgspec.Struct):
    files: tuple[str, ...]
    size: int = 0


@dataclass
class Line:
    text: str


def copy(source: str, count: int = 1) -> Copied:
    return Copied(tuple(f"{source}/{number}" for number in range(count)))


async def copy_slowly(source: str, count: int = 1) -> Copied:
    await asyncio.sleep(0)
    return copy(source, count)


class Later:
    """An object with an async method of the name that makes it callable."""

    async def __call__(self, number: int) -> int:
        return number + 1


async def in_async(ctx: RecordingContext, *args: Any, **kwargs: Any) -> Any:
    """Come to a step as an async handler does."""
    return await ctx.step(*args, **kwargs)


async def in_plain(ctx: RecordingContext, *args: Any, **kwargs: Any) -> Any:
    """Come to a step as a plain handler does, in its thread."""
    return await asyncio.to_thread(lambda: ctx.step(*args, **kwargs))


both = pytest.mark.parametrize("come_to", [in_async, in_plain])
ComeTo = Callable[..., Any]


@pytest.fixture
def ctx() -> RecordingContext:
    return RecordingContext(attempt=3)


@both
async def test_a_result_is_recorded_and_returned(ctx: RecordingContext, come_to: ComeTo) -> None:
    """The handler gets the value that a later attempt will get; the event has name, hash, result and tries."""
    assert await come_to(ctx, "copy", copy, "a", count=2, key=7) == Copied(("a/0", "a/1"))
    (event,) = ctx.steps
    assert isinstance(event, StepSucceeded)
    assert (event.attempt, event.step, event.key, event.tries) == (3, "copy", "7", 1)
    assert msgspec.json.decode(event.result) == {"files": ["a/0", "a/1"], "size": 0}
    assert len(event.input_hash) == 64
    assert event.seconds >= 0


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (copy_slowly, ("a",), Copied(("a/0",))),
        (functools.partial(copy_slowly, "b"), (), Copied(("b/0",))),
        (lambda: copy_slowly("c"), (), {"files": ["c/0"], "size": 0}),
        (Later(), (1,), 2),
    ],
    ids=["async", "partial", "lambda", "object"],
)
async def test_async_functions(ctx: RecordingContext, function: Any, arguments: Any, expected: object) -> None:
    """An async handler awaits whatever the function is; without an annotation the result is plain JSON."""
    assert await ctx.step("copy", function, *arguments) == expected


async def test_a_plain_function_does_not_block_the_loop(ctx: RecordingContext) -> None:
    """It runs in another thread, with the handler's context variables."""
    here = threading.current_thread()

    def where() -> bool:
        return threading.current_thread() is here

    assert await ctx.step("where", where) is False


def give(value: Any) -> Any:
    return value


def as_line(value: Any) -> Line:
    return value  # type: ignore[no-any-return]


def as_nothing(value: Any) -> None:
    return value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (give, (1, 2), [1, 2]),
        (give, {1: "a"}, {"1": "a"}),
        (as_line, Line("x"), Line("x")),
        (as_line, {"text": "x"}, Line("x")),
        (as_nothing, None, None),
    ],
)
def test_the_first_run_gets_what_a_later_one_gets(
    ctx: RecordingContext, function: Any, value: Any, expected: object
) -> None:
    """A tuple is a list at once, not in the second attempt; what is declared is made again."""
    assert ctx.step("one", functools.partial(function, value)) == expected


@both
async def test_a_name_twice_names_both_places(ctx: RecordingContext, come_to: ComeTo) -> None:
    """The second call is an error before it does anything; with keys both are steps."""
    await come_to(ctx, "copy", copy, "a", key=1)
    await come_to(ctx, "copy", copy, "a", key=2)
    await come_to(ctx, "copy", copy, "a")
    with pytest.raises(InvalidStep) as found:
        await come_to(ctx, "copy", copy, "b")
    here = Path(__file__).name
    assert str(found.value).count(f"{here}:") == 2
    assert "give one another name, or each a key" in str(found.value)
    with pytest.raises(InvalidStep, match="with the key '1' is there twice"):
        await come_to(ctx, "copy", copy, "b", key="1")
    assert len(ctx.steps) == 3


def test_the_client_reads_no_places(ctx: RecordingContext) -> None:
    """The text of an `InvalidStep` is for its author; the client gets a code, and that it is so."""
    with pytest.raises(InvalidStep) as found:
        ctx.step("", copy, "a")
    assert found.value.code == ErrorCode.INVALID_STEP
    assert found.value.message == "the action uses a step wrongly; the runner's log has the details"
    assert "the name of a step must be 1 to 128 printable characters" in str(found.value)


class Session:
    """Something that has no JSON."""


@pytest.mark.parametrize(
    ("arguments", "options", "why"),
    [
        (("s", "not a function"), {}, "its second argument is the function to call"),
        (("s", copy, Session()), {}, "argument 1, a Session, has no JSON.*functools.partial"),
        (("s", copy), {"source": Session()}, "argument source, a Session, has no JSON"),
        (("s", copy, "a"), {"key": "x" * 129}, "the key of a step must be 1 to 128"),
        (("s", copy, "a"), {"key": True}, "the key of a step must be"),
        (("s\n", copy, "a"), {}, "the name of a step must be"),
        (("s", copy, "a"), {"on_changed": "maybe"}, "on_changed must be one of 'rerun', 'fail', 'keep', not 'maybe'"),
        (("s", copy, "a"), {"on_changed": "rerun", "at_most_once": True}, "which at_most_once forbids"),
        (("s", copy, "a"), {"max_attempts": 2, "at_most_once": True}, "max_attempts must be 1 with at_most_once"),
        (("s", copy, "a"), {"max_attempts": 0}, "max_attempts must be 1 to 1000, not 0"),
        (("s", copy, "a"), {"max_attempts": True}, "max_attempts must be 1 to 1000, not True"),
        (("s", copy, "a"), {"backoff": 0}, "backoff must be more than 0 seconds, not 0"),
        (("s", copy, "a"), {"backoff_max": float("inf")}, "backoff_max must be more than 0 seconds"),
        (("s", give, float("nan")), {}, "the result of step 's' has no JSON: it is nan"),
        (("s", as_line, 7), {}, "is not what its function says it returns: Expected `object`, got `int`"),
        (("s", copy_slowly, "a"), {}, "its function is async, and a plain handler awaits nothing"),
    ],
)
def test_what_is_not_valid(
    ctx: RecordingContext, arguments: tuple[Any, ...], options: dict[str, Any], why: str
) -> None:
    """Each mistake of an author is an error that says what to do, and no result is recorded."""
    with pytest.raises(InvalidStep, match=why):
        ctx.step(*arguments, **options)
    assert not any(isinstance(one, StepSucceeded) for one in ctx.steps)


def unresolved() -> Nowhere:  # type: ignore[name-defined] # noqa: F821
    return None


def unknown() -> Session:
    return Session()


@pytest.mark.parametrize(
    ("function", "why"),
    [(unresolved, "the annotations of unresolved can't be resolved"), (unknown, "has no JSON")],
)
def test_types_that_are_no_types_of_json(ctx: RecordingContext, function: Any, why: str) -> None:
    """A result that a later attempt could not read is an error in the first one."""
    with pytest.raises(InvalidStep, match=why):
        ctx.step("s", function)


async def hash_of(**options: Any) -> str:
    ctx = RecordingContext()
    await ctx.step("s", give, **options)
    (event,) = ctx.steps
    return event.input_hash


async def test_equal_arguments_have_one_hash() -> None:
    """The order of members and the kind of a path make no difference, another value does."""
    assert await hash_of(value={"a": 1, "b": [2]}) == await hash_of(value={"b": [2], "a": 1})
    assert await hash_of(value=["/a/b"]) != await hash_of(value=["/a/c"])
    ctx = RecordingContext()
    ctx_of_path = RecordingContext()
    await asyncio.gather(ctx.step("s", lambda _: None, Path("/a/b")), ctx_of_path.step("s", lambda _: None, "/a/b"))
    assert ctx.steps[0].input_hash == ctx_of_path.steps[0].input_hash


def test_at_most_once_says_that_it_begins(ctx: RecordingContext) -> None:
    """The start comes before the call, with the same hash as the result."""
    seen: list[int] = []
    ctx.step("charge", lambda: seen.append(len(ctx.steps)), at_most_once=True)
    first, second = ctx.steps
    assert (type(first), type(second), seen) == (StepStarted, StepSucceeded, [1])
    assert first.input_hash == second.input_hash


class Flaky:
    """A function that fails as often as it is told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.at: list[float] = []

    def __call__(self) -> int:
        self.at.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        return len(self.at)


@both
async def test_tries_of_its_own(ctx: RecordingContext, come_to: ComeTo) -> None:
    """It is tried again until it works; only the last try is recorded, with how many there were."""
    flaky = Flaky(OSError("away"), OSError("away"))
    assert await come_to(ctx, "call", flaky, max_attempts=3, backoff=0.05) == 3
    (event,) = ctx.steps
    assert isinstance(event, StepSucceeded)
    assert event.tries == 3
    assert flaky.at[1] - flaky.at[0] >= 0.025
    assert flaky.at[2] - flaky.at[1] >= 0.05


@both
async def test_a_floor_between_tries(ctx: RecordingContext, come_to: ComeTo) -> None:
    """`RetryAfter` says the least; one that can't be waited for is the step's own backoff."""
    flaky = Flaky(RetryAfter(0.2), RetryAfter(float("nan")))
    assert await come_to(ctx, "call", flaky, max_attempts=3, backoff=0.01) == 3
    assert flaky.at[1] - flaky.at[0] >= 0.2
    assert flaky.at[2] - flaky.at[1] < 0.15


@both
@pytest.mark.parametrize(
    ("errors", "tries", "code"),
    [
        ([OSError("secret"), OSError("secret")], 2, 500),
        ([ActionError("Declined", "no money", target="card")], 1, "Declined"),
        ([RetryAfter(0.01, "busy"), RetryAfter(0.01, "busy")], 2, 503),
    ],
    ids=["unexpected", "meant", "later"],
)
async def test_the_last_try_fails(
    ctx: RecordingContext, come_to: ComeTo, errors: list[Exception], tries: int, code: object
) -> None:
    """The handler gets the error itself; people get a record that shows no more than the author meant."""
    last = errors[-1]
    with pytest.raises(type(last)) as found:
        await come_to(ctx, "call", Flaky(*errors), max_attempts=2, backoff=0.01)
    assert found.value is last
    (event,) = ctx.steps
    assert isinstance(event, StepFailed)
    assert (event.tries, event.error.code) == (tries, code)
    assert "secret" not in event.error.message


def test_a_stop_ends_the_tries(ctx: RecordingContext) -> None:
    """A plain handler that is to stop is not kept by the pause before another try."""
    threading.Timer(0.2, ctx.cancel).start()
    began = time.monotonic()
    with pytest.raises(ActionCanceledError):
        ctx.step("call", Flaky(OSError()), max_attempts=2, backoff=30)
    assert time.monotonic() - began < 5
    with pytest.raises(OSError, match="again"):
        ctx.step("other", Flaky(OSError("again")), max_attempts=9, backoff=30)


async def test_a_cancelled_handler_waits_for_its_thread(ctx: RecordingContext) -> None:
    """A thread can't be stopped: what it has done is recorded, and then the handler ends. No cancel is lost."""
    entered, leave = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        leave.wait(10)
        return "done"

    task = asyncio.create_task(ctx.step("work", work))
    await asyncio.to_thread(entered.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = ctx.steps
    assert isinstance(event, StepSucceeded)
    assert msgspec.json.decode(event.result) == "done"


async def test_a_cancelled_handler_stops_its_coroutine(ctx: RecordingContext) -> None:
    """An async function is cancelled, so nothing is recorded."""
    task = asyncio.create_task(ctx.step("work", asyncio.sleep, 30))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ctx.steps == []


async def test_steps_at_once(ctx: RecordingContext) -> None:
    """Steps run in parallel, each under its key."""
    found = await asyncio.gather(*(ctx.step("copy", copy_slowly, str(one), key=one) for one in range(9)))
    assert [one.files for one in found] == [(f"{one}/0",) for one in range(9)]
    assert {one.key for one in ctx.steps} == set(map(str, range(9)))


class Before(msgspec.Struct):
    name: str


class After(msgspec.Struct):
    name: str
    number: int


def as_before() -> Before:
    return Before("a")


def as_after() -> After:
    return After("a", 1)


def later_attempt(ctx: RecordingContext) -> RecordingContext:
    """The context of the next attempt, which knows what this one has recorded."""
    after = RecordingContext(attempt=ctx.attempt + 1)
    records = [
        StepRecord(
            step=one.step,
            key=one.key,
            input_hash=one.input_hash,
            attempt=one.attempt,
            result=one.result if isinstance(one, StepSucceeded) else msgspec.UNSET,
        )
        for one in ctx.steps
        if not isinstance(one, StepFailed)
    ]
    after._steps = StepTable(
        records, after._keep_step, attempt=after.attempt, limit=NO_LIMIT, should_stop=lambda: False
    )
    return after


@both
async def test_another_type(ctx: RecordingContext, come_to: ComeTo) -> None:
    """A recorded result that is not of the return type any more is another input: it runs again, once, and then the
    next attempt takes that result; or it fails."""
    await come_to(ctx, "s", as_before)
    second = later_attempt(ctx)
    assert await come_to(second, "s", as_after) == After("a", 1)
    second.steps[:0] = ctx.steps
    third = later_attempt(second)
    assert await come_to(third, "s", as_after) == After("a", 1)
    assert third.steps == []
    assert len({one.input_hash for one in second.steps}) == 2
    for on_changed in ("fail", "keep"):
        with pytest.raises(StepInputChanged, match="is not of the type that its function returns now"):
            await come_to(later_attempt(ctx), "s", as_after, on_changed=on_changed)


@both
async def test_another_input_is_kept(ctx: RecordingContext, come_to: ComeTo) -> None:
    """With `"keep"` the recorded result stays, whatever the arguments are now."""
    await come_to(ctx, "s", give, 1)
    after = later_attempt(ctx)
    assert await come_to(after, "s", give, 2, on_changed="keep") == 1
    assert after.steps == []


@both
async def test_interrupted(ctx: RecordingContext, come_to: ComeTo) -> None:
    """A step that must run once and had failed counts as interrupted, too: its error says not what it has done."""
    with pytest.raises(OSError, match="cut"):
        await come_to(ctx, "charge", Flaky(OSError("cut")), at_most_once=True)
    after, flaky = later_attempt(ctx), Flaky()
    with pytest.raises(StepInterrupted, match="step 'charge' was begun in attempt 3"):
        await come_to(after, "charge", flaky, at_most_once=True)
    assert (flaky.at, after.steps) == ([], [])
