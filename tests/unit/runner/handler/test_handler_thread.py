"""The thread of a plain handler: all of an author's code runs in it, and its end is noticed."""

from __future__ import annotations

import asyncio
import threading
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
