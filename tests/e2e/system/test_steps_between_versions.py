"""Steps, signals, clean-ups, children, payloads beside the last release: it shows nothing wrong, and breaks nothing."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.releases.sources import LAST
from tests.support.journal.journals import linked
from tests.support.system.invariants import breaches, gather
from tests.support.system.kill_actions import CHILDREN
from tests.support.system.processes import run
from tests.support.system.services import BROKER
from tests.support.system.versions import UpgradableSystem
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

NAK_A_MINUTE = b'-NAK {"delay": 60000000000}'
LARGE = 300_000
"""Characters of an input that is too large for an event."""


async def submit(
    http: httpx.AsyncClient, operation_id: str, pause: float, nap: float = 0.0, action: str = "steps", filler: str = ""
) -> None:
    """Submit an operation with steps, or another one."""
    headers = {"Operation-Id": operation_id}
    given = {"number": 1, "pause": pause, "nap": nap} | ({"filler": filler} if filler else {})
    response = await http.post(f"/kill:{action}", json=given, headers=headers)
    assert response.status_code == 202, response.text


async def status(http: httpx.AsyncClient, operation_id: str) -> dict[str, Any]:
    """What the API says."""
    response = await http.get(f"/status/{operation_id}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def reaches(http: httpx.AsyncClient, operation_id: str, within: float = 20, **wanted: object) -> dict[str, Any]:
    """Wait until a status has these members."""

    async def probe() -> dict[str, Any] | None:
        found = await status(http, operation_id)
        return found if wanted.items() <= found.items() else None

    found: dict[str, Any] | None = await eventually(probe, within=within, poll=0.05)
    assert found is not None
    return found


def calls(system: UpgradableSystem, operation_id: str) -> list[str]:
    """The calls of the functions of its steps."""
    return (system.folder / "data" / f"steps-{operation_id}").read_text(encoding="utf-8").split()


async def _has_event(http: httpx.AsyncClient, operation_id: str, name: str) -> bool:
    events = (await http.get(f"/status/{operation_id}/events")).json()["value"]
    return any(one["type"].split(".")[2] == name for one in events)


async def test_steps_beside_the_last_release(tmp_path: Path) -> None:
    """API and projector of the last release show an operation with steps as it is; its runner hands one back that a
    runner of this version has left, until one is there again, and leaves a request whose input is a payload. Then each
    step has run once, and after the upgrade the view is right. At last everything goes back, on the stream of this
    version."""
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before=LAST, replicas=1)
        system.begin()
        await asyncio.to_thread(system.provision)
        await asyncio.to_thread(system.stop, "runner")
        system.start_upgraded("runner")
        await asyncio.to_thread(system.wait_ready, "runner")
        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=10) as http:
            await submit(http, "parent", 0, action="family")
            await submit(http, "retried", 0)
            await reaches(http, "retried", status="Succeeded", attempt=2)
            assert calls(system, "retried") == ["1", "2"]
            events = (await http.get("/status/retried/events")).json()["value"]
            assert [one["type"].split(".")[2] for one in events][2:4] == ["step-succeeded", "step-succeeded"]

            await submit(http, "asleep", 0, nap=3600)
            await eventually(lambda: _has_event(http, "asleep", "waiting"), within=20)
            found = await status(http, "asleep")
            assert (found["status"], found["attempt"], found.get("waitingFor")) == ("Running", 1, None)

            for one in ("asked", "sorry"):
                await submit(http, one, 0, action="ask")
                await eventually(lambda one=one: _has_event(http, one, "waiting"), within=20)
                found = await status(http, one)
                assert (found["status"], found["attempt"], found.get("waitingFor")) == ("Running", 1, None)

            await eventually(lambda: _has_event(http, "parent", "waiting"), within=20)  # no API takes its children
            found = await status(http, "parent")
            assert (found["status"], found.get("waitingFor")) == ("Running", None)

            await submit(http, "left", 3600)
            await reaches(http, "left", status="Running", percentComplete=50)
            naks: list[bytes] = []

            async def note(message: Any) -> None:
                naks.append(message.data)

            async with linked(system.nats) as link:
                await link.nc.subscribe("$JS.ACK.OPERATIONS.runner_kill_steps.>", cb=note)
                await link.nc.flush()
                await asyncio.to_thread(system.kill, "runner")
                system.start_rolled_back("runner")
                await asyncio.to_thread(system.wait_ready, "runner")
                await eventually(lambda: NAK_A_MINUTE in naks, within=20)
                found = await status(http, "left")
                assert (found["status"], found["attempt"]) == ("Running", 1)
                assert (await http.post("/status/left:cancel")).status_code == 500

                await asyncio.to_thread(system.stop, "api")
                system.start_upgraded("api")
                await asyncio.to_thread(system.wait_ready, "api")
                naks.clear()
                await submit(http, "large", 0, filler="x" * LARGE)
                await eventually(lambda: NAK_A_MINUTE in naks, within=20)
                assert (await status(http, "large"))["status"] == "NotStarted"

            for name in ("projector", "runner", "api", BROKER):
                await asyncio.to_thread(system.kill if name == "runner" else system.stop, name)
                system.start_upgraded(name)
                await asyncio.to_thread(system.wait_ready, name)

            async def is_asked() -> bool:  # the broker has just been started
                return (await http.post("/status/left:cancel")).status_code == 200

            await eventually(is_asked, within=20, poll=0.2)
            assert (await status(http, "asleep"))["waitingFor"] == "Sleep"
            assert (await http.post("/status/asleep:cancel")).json()["status"] == "Canceled"
            assert (await status(http, "asked"))["waitingFor"] == "Signal"
            assert (await http.post("/status/asked:signal/answer", json=7)).status_code == 200
            assert (await reaches(http, "asked", within=90, status="Succeeded"))["result"] == {
                "number": 7,
                "attempt": 2,
            }
            assert (await http.post("/status/sorry:cancel")).json()["status"] == "Running"
            await reaches(http, "sorry", within=90, status="Canceled")
            assert (system.folder / "data" / "canceled-sorry").exists()
            await reaches(http, "left", within=90, status="Canceled")
            await reaches(http, "large", within=90, status="Succeeded")
            assert calls(system, "large") == ["1", "2"]
            await reaches(http, "retried", status="Succeeded", attempt=2)
            (group,) = (await reaches(http, "parent", within=90, status="Succeeded"))["children"]
            assert len(group["ids"]) == group["count"] == CHILDREN
            child = group["ids"][0]
            assert (await status(http, child))["parent"] == "parent"
            verified = await asyncio.to_thread(run, "verify", "--nats", system.nats, timeout=60)
            assert verified.returncode == 0, verified.stdout + verified.stderr

            rebuilt = await asyncio.to_thread(run, "rebuild", "--nats", system.nats, timeout=60)
            assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr

            for name in (BROKER, "api", "runner", "projector"):
                await asyncio.to_thread(system.stop, name)
                system.start_rolled_back(name)
                await asyncio.to_thread(system.wait_ready, name)
            await reaches(http, "retried", status="Succeeded", attempt=2)
            for one in ("parent", child):
                await reaches(http, one, status="Succeeded")
            assert calls(system, "left") == ["1", "2"]
        evidence = await gather(system.nats)
        assert breaches(evidence) == []
