"""`run`: an action in this process, without a broker, on a clock that skips what it would wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar, overload

from opstream.testing.play.crash_moment import CrashMoment, Plan
from opstream.testing.play.request import encoded_input, requested
from opstream.testing.play.signals import Signal
from opstream.testing.play.stage import Stage
from opstream.testing.virtual_time import VirtualClock
from opstream_runner import Action
from opstream_schemas.errors import InvalidName
from opstream_schemas.event_types.claims import MAX_UPLOADS, check_file_name
from opstream_schemas.names import Kind, check_operation_id

from .errors import FaultFound, RunRefused
from .results import RunResult

T = TypeVar("T")

EVERY_STEP: Final = "every step"
"""For `run(crash_at=...)`: once for each moment at which its runner may die."""
_OPERATION_ID: Final = "op-1"
_SHOWN: Final = 10
"""Moments that a message lists."""

_WHAT: Final = {"crash_at": "its runner dies", "cancel_at": "its client cancels"}

Outcome = Callable[[RunResult[Any]], object]
"""Returns of a run what must be the same, whenever its runner dies."""


@overload
def run(
    action: Action[..., Coroutine[Any, Any, T]],
    action_input: object = ...,
    *,
    resource_id: str = ...,
    operation_id: str = ...,
    caller: str = ...,
    start: datetime | None = ...,
    signals: Sequence[Signal] = ...,
    children: Mapping[str, object] = ...,
    uploads: Mapping[str, bytes] = ...,
    crash_at: str | CrashMoment = ...,
    cancel_at: str | CrashMoment = ...,
    setup: Callable[[], object] | None = ...,
    check: Callable[[RunResult[T]], object] | None = ...,
    outcome: Outcome | None = ...,
) -> RunResult[T]: ...
@overload
def run(
    action: Action[..., T],
    action_input: object = ...,
    *,
    resource_id: str = ...,
    operation_id: str = ...,
    caller: str = ...,
    start: datetime | None = ...,
    signals: Sequence[Signal] = ...,
    children: Mapping[str, object] = ...,
    uploads: Mapping[str, bytes] = ...,
    crash_at: str | CrashMoment = ...,
    cancel_at: str | CrashMoment = ...,
    setup: Callable[[], object] | None = ...,
    check: Callable[[RunResult[T]], object] | None = ...,
    outcome: Outcome | None = ...,
) -> RunResult[T]: ...
def run(
    action: Action[..., Any],
    action_input: object = b"{}",
    *,
    resource_id: str = "",
    operation_id: str = _OPERATION_ID,
    caller: str = "",
    start: datetime | None = None,
    signals: Sequence[Signal] = (),
    children: Mapping[str, object] = MappingProxyType({}),
    uploads: Mapping[str, bytes] = MappingProxyType({}),
    crash_at: str | CrashMoment = "",
    cancel_at: str | CrashMoment = "",
    setup: Callable[[], object] | None = None,
    check: Callable[[RunResult[Any]], object] | None = None,
    outcome: Outcome | None = None,
) -> RunResult[Any]:
    """Run an action to its end: all of its attempts, with the code of a runner, in this process and without a broker.

    Waits between attempts take no time, nor does `asyncio.sleep`, as long as nothing real is waited for. Nothing else
    is different: what the action calls, it calls.

    Args:
        action: the action.
        action_input: its input: a dict, an instance of its input type, or JSON as bytes. The API's rules apply.
        resource_id: of the request's path; empty without one.
        operation_id: what `ctx.operation_id` has.
        caller: who asks; empty for nobody that is known.
        start: when the request comes; with a time zone. None for now.
        signals: what is sent to the operation, each when it waits for it. Without one, a wait ends with its time.
        children: by `resource:action`, what becomes of such children: a result, a function that makes it of their
            input, the exception with which they fail, or an action. Actions of the same module run without it.
        uploads: the files that its client has uploaded for it, by name.
        crash_at: a moment at which its runner dies, as text or as `RunResult.moments` has it: another runner goes
            on when the lease has run out. `"every step"`: one run without, and one more for each of its moments, which
            must all have the same outcome.
        cancel_at: a moment at which its client cancels. `"every step"`: one run without, and one more for each of its
            moments; `check` says whether all is well.
        setup: called before each run, to put back what a test keeps outside of the action.
        check: called with the result after each run.
        outcome: returns what must be the same in all runs; None for status, result and the code of the error.

    Returns:
        The run in which nothing happened, or the one with what was asked for.

    Raises:
        FaultFound: a run whose runner died has another outcome, or the check of one that died or was canceled failed;
            it lists all such moments.
        RunRefused: the input or a signal is not valid, a run did not come to the moment, a child's action is not known,
            or this thread has a running event loop.
        BaseException: what `setup` raises, and what `check` raises of a run in which nothing happened.
    """
    _check(action, operation_id, start, children)
    _check_files(uploads)
    document = encoded_input(action, action_input)

    def play(crash: str, cancel: str) -> RunResult[Any]:
        if setup is not None:
            setup()
        clock, plan = VirtualClock(start or datetime.now(UTC)), Plan(crash, cancel)
        stage = Stage(action, operation_id, clock, plan, signals, children)
        stage.request(
            requested(action, document, operation_id=operation_id, resource_id=resource_id, caller=caller, clock=clock),
            uploads,
        )
        stage.play()
        if plan.missed:
            raise RunRefused(_not_reached(plan))
        return RunResult(
            action, stage.events, seconds=clock.seconds(), plan=plan, children=stage.children, store=stage.store
        )

    crash, cancel = ("" if one == EVERY_STEP else str(one) for one in (crash_at, cancel_at))
    result = play(crash, cancel)
    if check is not None:
        check(result)
    if crash_at == EVERY_STEP:
        result.crashes = _play_everywhere("crash_at", result, lambda at: play(at, cancel), check, outcome or _outcome)
    if cancel_at == EVERY_STEP:
        result.cancels = _play_everywhere(
            "cancel_at", result, lambda at: play(crash, at), check, outcome or (lambda _: None)
        )
    return result


async def run_async(action: Action[..., Any], action_input: object = b"{}", **options: Any) -> RunResult[Any]:  # noqa: ANN401 - those of `run`
    """Do as `run` does, from a test that is async: in a thread, so that this event loop runs on."""
    return await asyncio.to_thread(partial(run, action, action_input, **options))


def _play_everywhere(
    option: str,
    whole: RunResult[Any],
    play: Callable[[str], RunResult[Any]],
    check: Callable[[RunResult[Any]], object] | None,
    outcome: Outcome,
) -> tuple[RunResult[Any], ...]:
    played: list[RunResult[Any]] = []
    faults: list[str] = []
    cause: BaseException | None = None
    expected = outcome(whole)
    for moment in map(str, whole.moments):
        found = play(moment)
        played.append(found)
        if outcome(found) != expected:
            faults.append(f"{moment}: {found}")
            continue
        try:
            if check is not None:
                check(found)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - `pytest.fail` raises no Exception
            cause = cause or error
            faults.append(f"{moment}: the check fails: {str(error) or type(error).__name__}")
    if faults:
        kind, what = whole.operation.kind, _WHAT[option]
        number = f"{len(faults)} of {len(played)} moments"
        listed = "\n".join(f"- {fault}" for fault in faults)
        raise FaultFound(
            f"{kind} is not safe if {what} at {number}; otherwise it is {whole}\n{listed}\n"
            f'Run one of them alone with {option}="…", as it is written before the colon.'
        ) from cause
    return tuple(played)


def _outcome(result: RunResult[Any]) -> object:
    error = result.error
    return result.status, result.recorded_result, error and error.code


def _check(action: object, operation_id: str, start: datetime | None, children: Iterable[str]) -> None:
    if not isinstance(action, Action):
        raise RunRefused(f"{action!r} is no action: give the function that @action(...) decorates")
    try:
        check_operation_id(operation_id)
        for kind in children:
            Kind.parse_routable(kind)
    except InvalidName as error:
        raise RunRefused(str(error)) from error
    if start is not None and start.tzinfo is None:
        raise RunRefused(f"start needs a time zone (datetime(..., tzinfo=UTC)), {start!r} has none")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RunRefused("run() can't be called in an event loop, which it would block: write 'await run_async(...)'")


def _check_files(uploads: Mapping[str, bytes]) -> None:
    try:
        for name in uploads:
            check_file_name(name)
    except InvalidName as error:
        raise RunRefused(str(error)) from error
    if len(uploads) > MAX_UPLOADS:
        raise RunRefused(f"an operation takes {MAX_UPLOADS} uploads, not {len(uploads)}")


def _not_reached(plan: Plan) -> str:
    shown = "; ".join(map(str, plan.passed[:_SHOWN])) + ("; …" if len(plan.passed) > _SHOWN else "")
    return (
        f"the run did not come to {plan.missed}. It came to: {shown}. If an earlier run came to it, something is kept "
        "between the runs: put it back in setup="
    )
