"""@azure/core-lro drives operations from submit to result, failure and cancel, without knowing opstream.

Its poller runs in Node, on a pipeline of fetch alone (`js/driver.js`), and tells what it sees in lines of JSON. npm
installs it from `js/package-lock.json`, which has the hash of every package.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.support.azure.actions import PACE, write_module
from tests.support.azure.gate import WORD, FileGate
from tests.support.system import npm
from tests.support.system.services import System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

SOURCES: Final = Path(__file__).parent / "js"

Told = dict[str, Any]


class Driver:
    """A running `driver.js`, and its messages."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def of(self, event: str) -> list[Told]:
        """Return all messages of a name, without the name."""
        return [{key: one[key] for key in one if key != "event"} for one in self.told if one["event"] == event]

    @property
    def polls(self) -> list[Told]:
        """Its GETs with a response."""
        return [one for one in self.of("exchange") if one["method"] == "GET"]

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        """Read all messages up to its end."""
        assert process.stdout is not None
        async for line in process.stdout:
            self.told.append(msgspec.json.decode(line))
        assert await process.wait() == 0


@asynccontextmanager
async def driving(scripts: Path, **command: Any) -> AsyncIterator[Driver]:
    """Start a driver; its end is waited for when the block is over."""
    argument = msgspec.json.encode(command).decode()
    process = await asyncio.create_subprocess_exec(
        "node", "driver.js", argument, cwd=scripts, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            driver = Driver()
            group.create_task(driver.listen(process))
            yield driver
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def drive(scripts: Path, **command: Any) -> Driver:
    """Run a driver to its end."""
    async with driving(scripts, **command) as driver:
        pass
    return driver


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and what they import. Nothing is installed into the repository."""
    return npm.install(SOURCES, tmp_path_factory.mktemp("scripts"))


@pytest.fixture(scope="module")
def system(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that serves."""
    folder = tmp_path_factory.mktemp("azure")
    with ExitStack() as stack:
        system = System(folder, stack, write_module(folder))
        system.begin()
        yield system


@pytest.fixture
def gate(tmp_path: Path) -> FileGate:
    """What `azure:pass` waits at."""
    return FileGate(tmp_path / "gate")


def named() -> dict[str, str]:
    """A header with a new operation id."""
    return {"Operation-Id": f"azure-{uuid.uuid4()}"}


async def test_a_result(scripts: Path, system: System) -> None:
    """The poller ends with the monitor's `result`. It polls only the status URL of the 202."""
    headers = named()
    driver = await drive(scripts, url=f"{system.api}/azure:say", body={"text": "hello"}, headers=headers)
    assert driver.of("error") == []
    assert driver.of("result") == [{"result": {"text": "hello"}}]
    assert driver.of("state") == [{"status": "succeeded", "isDone": True, "result": {"text": "hello"}}]
    first, *polls = driver.of("exchange")
    assert (first["method"], first["status"]) == ("POST", 202)
    assert polls == driver.polls
    assert {(one["url"], one["status"]) for one in polls} == {(f"{system.api}/status/{headers['Operation-Id']}", 200)}


async def test_the_pace(scripts: Path, system: System, gate: FileGate) -> None:
    """It polls as often as `Retry-After` says, twice as often as by default, and reports progress each time."""
    body = {"path": str(gate.path)}
    async with driving(scripts, url=f"{system.api}/azure/1:pass", body=body, headers=named()) as driver:
        await eventually(lambda: len(driver.polls) >= 3, within=15)
        await gate.open()
    assert driver.of("result") == [{"result": {"text": WORD}}]
    pauses = [(later["begun"] - earlier["ended"]) / 1000 for earlier, later in pairwise(driver.polls)]
    assert len(pauses) >= 2
    assert PACE - 0.01 <= min(pauses)
    assert max(pauses) < 2 * PACE
    steps = [one["status"] for one in driver.of("progress")]
    assert steps == ["running"] * (len(driver.polls) - 1) + ["succeeded"]


@pytest.mark.parametrize("code", [400, "ClientOutOfDate"])
async def test_a_failure(scripts: Path, system: System, code: int | str) -> None:
    """It throws the error that it throws for Azure, with the code and the message of the action."""
    fault = {"code": code, "message": "there is a newer client"}
    driver = await drive(scripts, url=f"{system.api}/azure:fail", body=fault, headers=named())
    (error,) = driver.of("error")
    assert error["message"] == f"The long-running operation has failed. {code}. there is a newer client"
    assert driver.of("state") == [{"status": "failed", "isDone": True, "error": error["message"]}]
    assert driver.of("result") == []


async def test_a_cancel(scripts: Path, system: System) -> None:
    """Canceled through the same pipeline while it runs, the poller ends as canceled and throws."""
    body = {"text": "for ever"}
    driver = await drive(scripts, url=f"{system.api}/azure:wait", body=body, headers=named(), until="cancel")
    (cancel,) = [one for one in driver.of("exchange") if one["url"].endswith(":cancel")]
    assert (cancel["method"], cancel["status"]) == ("POST", 200)
    assert cancel["monitor"] in {"Running", "Canceled"}
    assert driver.of("error") == [{"name": "Error", "message": "Operation was canceled"}]
    assert driver.of("state") == [{"status": "canceled", "isDone": True}]


async def test_another_process_continues(scripts: Path, system: System, gate: FileGate) -> None:
    """A serialized poller is all that the next process needs."""
    body = {"path": str(gate.path)}
    first = await drive(scripts, url=f"{system.api}/azure/1:pass", body=body, headers=named(), until="handover")
    (handover,) = first.of("handover")
    assert [one["isDone"] for one in first.of("state")] == [False]
    async with driving(scripts, restoreFrom=handover["serialized"]) as second:
        await eventually(lambda: second.polls)
        await gate.open()
    assert second.of("result") == [{"result": {"text": WORD}}]
    assert second.of("exchange") == second.polls


@pytest.mark.parametrize(("code", "message"), [(None, ""), ("ClientOutOfDate", "there is a newer client")])
async def test_a_request_that_is_sent_again(scripts: Path, system: System, code: str | None, message: str) -> None:
    """After the operation has ended, the poller of the second 202 with the same Operation-Id ends like the first."""
    body = {"text": "hello"} if code is None else {"code": code, "message": message}
    url = f"{system.api}/azure:{'say' if code is None else 'fail'}"
    headers = named()
    first = await drive(scripts, url=url, body=body, headers=headers)
    again = await drive(scripts, url=url, body=body, headers=headers)
    assert [one["isDone"] for one in first.of("state")] == [True]
    assert [again.of(event) for event in ("result", "error", "state")] == [
        first.of(event) for event in ("result", "error", "state")
    ]
    assert (again.of("exchange")[0]["status"], len(again.polls)) == (202, 1)


async def test_a_refusal(scripts: Path, system: System) -> None:
    """An error response reaches the caller with status and code; to a poll, it makes the poller fail."""
    refused = await drive(scripts, url=f"{system.api}/azure:say", body={"text": 1}, headers=named())
    (error,) = refused.of("error")
    assert (error["name"], error["statusCode"], error["code"]) == ("RestError", 400, "InvalidInput")
    config = {"operationLocation": f"{system.api}/status/nobody", "metadata": {"mode": "OperationLocation"}}
    poller = {"state": {"status": "running", "config": config}}
    unknown = await drive(scripts, restoreFrom=msgspec.json.encode(poller).decode())
    (error,) = unknown.of("error")
    assert (error["statusCode"], error["code"]) == (404, "OperationNotFound")
    assert [one["status"] for one in unknown.of("state")] == ["failed"]
