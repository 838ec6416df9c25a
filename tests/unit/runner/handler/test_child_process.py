"""The process of an isolated action: its messages, its signal, its imports."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from opstream.terminal import logs
from opstream_runner.handler import child_main as child
from opstream_runner.handler.child_main import HandlerInterrupt, RunnerChannel
from opstream_runner.handler.child_protocol import (
    FRAME_HEADER,
    Begun,
    ChildMessage,
    Reported,
    decode_child_message,
    encode_frame,
)
from opstream_runner.handler.invocation import UNEXPECTED_ERROR, HandlerOutcome, Raised, Returned, Stopped
from opstream_schemas.events import OperationError

pytestmark = pytest.mark.unit


def failure(code: int | str, message: str = "m") -> Raised:
    return Raised(OperationError(code=code, message=message, target="t"), is_meant=True)


@pytest.mark.parametrize(
    "said",
    [Begun(), Reported(1.5, "é"), Returned(b'{"a": [1]}'), failure("Meant"), failure(404), Stopped()],
    ids=lambda said: type(said).__name__,
)
def test_a_message(said: ChildMessage) -> None:
    """A message that one side sends is what the other reads."""
    data = encode_frame(said)
    (length,) = FRAME_HEADER.unpack(data[: FRAME_HEADER.size])
    assert (length, decode_child_message(data[FRAME_HEADER.size :])) == (len(data) - FRAME_HEADER.size, said)


def said_by(outcome: HandlerOutcome) -> list[ChildMessage]:
    """The outcome that the runner reads."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = RunnerChannel(theirs, "op-1", lambda: None)
        channel.send(Reported(50.0, "half"))
        channel.send_outcome(outcome)
        theirs.close()
        heard = []
        while header := ours.recv(FRAME_HEADER.size, socket.MSG_WAITALL):
            heard.append(decode_child_message(ours.recv(*FRAME_HEADER.unpack(header), socket.MSG_WAITALL)))
        return heard


def test_an_outcome_is_the_last_message() -> None:
    """Once `send_outcome` returns, the kernel has all messages, in order."""
    assert said_by(Returned(b"1")) == [Reported(50.0, "half"), Returned(b"1")]


@pytest.mark.parametrize("text", ["\ud800", "x" * 10_000, "é" * 4095])
def test_a_failure_of_any_text(text: str) -> None:
    """Lone surrogates and long texts in a failure are cut as an event's would be."""
    _, told = said_by(failure(text, text))
    assert isinstance(told, Raised)
    assert (told.is_meant, len(told.error.message.encode()) <= 4096) == (True, True)


def test_a_failure_without_json(caplog: pytest.LogCaptureFixture) -> None:
    """A code that no event could contain is the author's bug."""
    assert said_by(failure(10**5000))[1] == Raised(UNEXPECTED_ERROR, is_meant=False)
    assert "op-1" in caplog.text


def test_a_channel_without_a_reader() -> None:
    """Sending to a runner that has ended raises nothing: this process is about to be killed."""
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        channel = RunnerChannel(theirs, "op-1", lambda: None)
        channel.send(Reported(1.0, ""))
        channel.send_outcome(Stopped())
        assert not channel._writer.is_alive()


class Interrupted(BaseException):
    """The exception of the interrupt in these tests."""


def raising() -> None:
    raise Interrupted


def signaled(interrupt: HandlerInterrupt) -> Callable[[], None]:
    return lambda: interrupt.on_signal(15, None)


def test_an_interrupt_comes_once() -> None:
    """The first signal interrupts; later ones do not disturb the clean-up."""
    interrupt = HandlerInterrupt()
    interrupt.interrupt = raising
    send = signaled(interrupt)
    cleaned: list[bool] = []

    def handle() -> None:
        with interrupt:
            try:
                send()
            finally:
                send()
                cleaned.append(interrupt.is_requested)

    with pytest.raises(Interrupted):
        handle()
    assert cleaned == [True]


def test_an_interrupt_that_came_before() -> None:
    """A signal that came before the handler prevents its call."""
    interrupt = HandlerInterrupt()
    interrupt.interrupt = raising
    signaled(interrupt)()
    with pytest.raises(Interrupted), interrupt:
        raise AssertionError("it was called")


def test_an_interrupt_that_comes_too_late() -> None:
    """A signal after the handler has returned does not change its result."""
    interrupt = HandlerInterrupt()
    interrupt.interrupt = raising
    with interrupt:
        pass
    signaled(interrupt)()
    assert interrupt.is_requested


def test_lines_look_like_the_runners() -> None:
    """The process logs in the format of the `opstream` command, which it must not import."""
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "levelno": 20, "msg": "hello", "created": 1.5})
    formatter = logging.Formatter(child.LOG_FORMAT, child.LOG_TIME_FORMAT)
    formatter.converter = logs._LogFormatter.converter
    assert formatter.format(record) == logs._LogFormatter(has_colour=False).format(record)


@pytest.mark.parametrize("is_held", [False, True], ids=["closed", "held by a process that the runner forked"])
def test_the_lifeline_without_the_kernels_help(is_held: bool) -> None:
    """If the kernel does not kill the group, a thread does: when the pipe is closed, or the parent has changed."""
    lifeline, held = os.pipe()
    runner = os.getpid() + (1 if is_held else 0)
    call = f"lifeline.watch_lifeline({lifeline}, {runner})"
    script = f"from opstream_runner.handler import lifeline; print(flush=True); {call}"
    with subprocess.Popen(
        [sys.executable, "-c", script], pass_fds=[lifeline], start_new_session=True, stdout=subprocess.PIPE
    ) as process:
        os.close(lifeline)
        assert process.stdout is not None
        process.stdout.readline()
        if not is_held:
            assert process.poll() is None
            os.close(held)
        assert process.wait(5) == -signal.SIGKILL
    if is_held:
        os.close(held)


def test_no_broker_code_is_loaded() -> None:
    """The process, and an author's `from opstream import action`, load neither broker nor web code."""
    script = "import json, sys, opstream, opstream_runner.handler.child_main; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    loaded = {name.partition(".")[0] for name in msgspec.json.decode(done.stdout)}
    assert {"opstream_runner", "opstream_schemas", "asyncio"} <= loaded
    heavy = {"nats", "faststream", "litestar", "uvicorn", "httpx", "anyio", "pydantic", "opstream_journal", "uvloop"}
    assert not loaded & heavy
