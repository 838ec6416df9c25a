"""Several services in one process: how they stop, fail and log together."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from functools import partial
from io import StringIO

import pytest

from opstream.cli.joint_process import JointService, serve_together
from opstream.local.processes import CLOSE_SIGNAL
from opstream.terminal import logs
from opstream.terminal.console import CommandError
from opstream_journal import ConsumerGone
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit

logger = logging.getLogger(__name__)


class Trial:
    """Three services, and what happened to them."""

    names = ("door", "view", "post")

    def __init__(self) -> None:
        self.said: list[str] = []
        self.may_end = {name: asyncio.Event() for name in self.names}
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """With which `view` ends."""

    async def begin(self) -> asyncio.Task[None]:
        """Start them."""
        services = [JointService(name, self._serving(name), self._hang_up) for name in self.names]
        task = asyncio.create_task(serve_together(services))
        await eventually(lambda: len(self.said) == 3)
        self.said.clear()
        return task

    def _serving(self, name: str):
        async def serve(stopping: asyncio.Event) -> None:
            self.said.append(f"{name} begins")
            ends: list[asyncio.Future] = [asyncio.create_task(stopping.wait())]
            if name == "view":
                ends.append(self.failure)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if name == "view" and self.failure.done():
                raise self.failure.result()
            self.said.append(f"{name} stops")
            await self.may_end[name].wait()
            logger.warning("bye", exc_info=ValueError("traced"))
            self.said.append(f"{name} ends")

        return serve

    def _hang_up(self) -> None:
        logger.warning("hung up")
        self.said.append("hung up")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_one_after_the_other(number: signal.Signals) -> None:
    """The next one is asked to stop once the one before has ended."""
    trial = Trial()
    task = await trial.begin()
    os.kill(os.getpid(), number)
    expected: list[str] = []
    for name in trial.names:
        expected.append(f"{name} stops")
        await eventually(lambda: trial.said == expected)
        trial.may_end[name].set()
        expected.append(f"{name} ends")
    await task
    assert trial.said == expected


async def test_the_first_can_stop_alone() -> None:
    """After `CLOSE_SIGNAL` the others go on until they are stopped, too; SIGHUP reaches each."""
    trial = Trial()
    for event in trial.may_end.values():
        event.set()
    task = await trial.begin()
    os.kill(os.getpid(), CLOSE_SIGNAL)
    await eventually(lambda: trial.said == ["door stops", "door ends"])
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: trial.said[2:] == ["hung up"] * 3)
    assert not task.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    assert trial.said[5:] == ["view stops", "view ends", "post stops", "post ends"]


@pytest.mark.parametrize(
    ("failure", "raised", "text"),
    [
        (ConsumerGone("the consumer was deleted"), CommandError, "view: the consumer was deleted"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
    ],
)
async def test_one_that_fails_ends_all(failure: Exception, raised: type[Exception], text: str) -> None:
    """The others stop cleanly, and the error names the one that can't do its job."""
    trial = Trial()
    for event in trial.may_end.values():
        event.set()
    task = await trial.begin()
    trial.failure.set_result(failure)
    with pytest.raises(raised, match=text):
        await task
    assert trial.said == ["door stops", "door ends", "post stops", "post ends"]


async def test_all_that_fail_are_one_error(caplog: pytest.LogCaptureFixture) -> None:
    """What hits all services is said once, without a traceback; another reason gets a line of its own."""

    async def fail(reason: str, _stopping: asyncio.Event) -> None:
        raise ConsumerGone(reason)

    reasons = {"door": "no broker answered", "view": "no broker answered", "post": "the port is in use"}
    services = [JointService(name, partial(fail, reason)) for name, reason in reasons.items()]
    with pytest.raises(CommandError, match=r"^door: no broker answered$"):
        await serve_together(services)
    gc.collect()  # asyncio logs an exception that nothing asked for when its task is collected
    assert [record.getMessage() for record in caplog.records] == ["post: the port is in use"]


async def test_an_error_names_the_option_of_the_joint_command() -> None:
    """Where the joint command calls an option otherwise, what a service advises is changed to that."""

    async def fail(_stopping: asyncio.Event) -> None:
        raise ConsumerGone("choose another with --health-port")

    service = JointService("view", fail, renamed={"--health-port": "--view-health-port"})
    with pytest.raises(CommandError, match=r"^view: choose another with --view-health-port$"):
        await serve_together([service])


async def test_each_line_of_the_log_names_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a traceback, and of what SIGHUP calls."""
    written = StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("warning")
    try:
        trial = Trial()
        for event in trial.may_end.values():
            event.set()
        task = await trial.begin()
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: len(trial.said) == 3)
        os.kill(os.getpid(), signal.SIGTERM)
        await task
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = written.getvalue().splitlines()
    assert len(lines) == 9
    for name in trial.names:
        mine = [line for line in lines if line.startswith(f"{name} | ")]
        assert "hung up" in mine[0]
        assert "bye" in mine[1]
        assert mine[2:] == [f"{name} | ValueError: traced"]
