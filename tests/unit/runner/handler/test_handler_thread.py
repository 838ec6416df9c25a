"""The thread of a plain handler: all of an author's code runs in it, and its end is noticed."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

import msgspec
import pytest

from opstream_runner import ActionContext, action
from opstream_runner.handler import handler_thread
from opstream_runner.handler.handler_thread import run_in_thread
from opstream_runner.handler.invocation import UNEXPECTED_ERROR, Raised, Returned, invoke

pytestmark = pytest.mark.unit

_seen: list[tuple[str, str]] = []


def see(what: str) -> None:
    """Note the thread that runs this."""
    _seen.append((what, threading.current_thread().name))


class Given(msgspec.Struct):
    """An input with code of its own."""

    text: str = ""

    def __post_init__(self) -> None:
        see("input")


class Made(msgspec.Struct):
    """A result with code of its own."""

    text: str = ""

    def __post_init__(self) -> None:
        see("result")


class Talking(Exception):
    """An exception with code of its own."""

    def __str__(self) -> str:
        see("error")
        return "text"


@action("book:act")
def act(request: Given, ctx: ActionContext) -> Made:
    """Return or raise."""
    see("handler")
    if request.text == "raise":
        raise Talking
    return Made()


@action("book:act-async")
async def act_async(request: Given, ctx: ActionContext) -> Made:
    """Return or raise, in the loop."""
    return act(request, ctx)


def context() -> ActionContext:
    """A context of no attempt."""

    async def report(percent: float, message: str) -> None: ...

    return ActionContext(
        operation_id="op-1", resource_id="r", attempt=1, traceparent="", report=report, cancel_requested=lambda: False
    )


@pytest.mark.parametrize("text", ["", "raise"])
@pytest.mark.parametrize(("one", "thread"), [(act, "book:act op-1"), (act_async, threading.main_thread().name)])
async def test_where_it_runs(one: Any, thread: str, text: str) -> None:
    """Input, handler, result and exception are read, called, checked and shown in one thread, that of the handler."""
    _seen.clear()
    outcome = await invoke(one, msgspec.Raw(msgspec.json.encode({"text": text})), context(), 1000)
    assert isinstance(outcome, Raised if text else Returned)
    whats, threads = {what for what, _ in _seen}, {name for _, name in _seen}
    assert whats == {"input", "handler", "error" if text else "result"}
    assert threads == {thread}


async def test_a_thread_that_ends_early(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is the end of the attempt, and the log names a possible cause."""

    def refuse(*_: Any) -> NoReturn:
        raise RuntimeError("not with me")

    monkeypatch.setattr(handler_thread, "_CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    before = threading.gettrace()
    threading.settrace(refuse)
    try:
        async with asyncio.timeout(5):
            outcome = await invoke(act, msgspec.Raw(b"{}"), context(), 1000)
    finally:
        threading.settrace(before)  # type: ignore[arg-type]
    assert outcome == Raised(UNEXPECTED_ERROR, is_meant=False)
    assert "does threading.settrace() have a function?" in caplog.text


@pytest.mark.parametrize("how", ["none", "deleted"])
async def test_no_excepthook(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A handler that takes the hook of threads away fails no later handler."""
    before = threading.excepthook
    monkeypatch.setattr(threading, "excepthook", None)
    if how == "deleted":
        del threading.excepthook
    try:
        assert isinstance(await invoke(act, msgspec.Raw(b"{}"), context(), 1000), Returned)
        assert threading.excepthook is threading.__excepthook__
    finally:
        threading.excepthook = before


@pytest.mark.parametrize("text", ["", "raise"])
@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
async def test_a_hook_that_a_handler_leaves(hook: str, text: str) -> None:
    """A trace or profile function that a handler sets is called in the handler, and in no code of ours."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if not event.startswith("c_"):
            called.append(frame.f_code.co_name)

    @action("book:hook")
    def leave(request: Given, ctx: ActionContext) -> Made:
        getattr(sys, hook)(note)
        return act.handler(request, ctx)  # type: ignore[no-any-return]

    outcome = await invoke(leave, msgspec.Raw(msgspec.json.encode({"text": text})), context(), 1000)
    assert isinstance(outcome, Raised if text else Returned)
    assert "act" in called
    assert set(called) <= {"act", "see", "current_thread", "__init__", "__post_init__", "leave", "name"}


async def test_a_trace_function_that_raises() -> None:
    """A handler that sets one and returns has returned."""

    @action("book:trace")
    def leave(request: Given, ctx: ActionContext) -> Made:
        made = Made()
        sys.settrace(lambda *_: 1 / 0)  # type: ignore[arg-type, return-value]
        return made

    assert isinstance(await invoke(leave, msgspec.Raw(b"{}"), context(), 1000), Returned)


async def test_a_thread_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that still runs is not given up."""
    monkeypatch.setattr(handler_thread, "_CHECK_INTERVAL", 0.001)
    loop, released = asyncio.get_running_loop(), threading.Event()
    loop.call_later(0.05, released.set)
    assert await run_in_thread(lambda: released.wait(5), "long") is True


async def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that can start no more threads fails the attempt."""

    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await invoke(act, msgspec.Raw(b"{}"), context(), 1000) == Raised(UNEXPECTED_ERROR, is_meant=False)
