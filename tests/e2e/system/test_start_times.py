"""Start times in real processes: nothing begins early or twice, whichever service is killed or of another version."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.journal.journals import linked
from tests.support.projector.deadlines import scheduled
from tests.support.system.invariants import breaches, gather
from tests.support.system.kill_actions import write_module
from tests.support.system.services import BROKER, System
from tests.support.system.versions import UpgradableSystem
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

WORK = {"number": 1}
NAK_A_MINUTE = b'-NAK {"delay": 60000000000}'


async def submit(http: httpx.AsyncClient, api: str, operation_id: str, seconds: int) -> dict[str, Any]:
    """Submit an operation with a start time."""
    headers = {"Operation-Id": operation_id, "Operation-Start-After": str(seconds)}
    response = await http.post(f"{api}/kill:quick", json=WORK, headers=headers)
    assert response.status_code == 202, response.text
    monitor: dict[str, Any] = response.json()
    return monitor


async def test_kills_before_the_start(tmp_path: Path) -> None:
    """Every service is killed while an operation waits for its time, and the broker while another does; each begins
    once, not before."""
    with ExitStack() as stack:
        system = System(tmp_path, stack, write_module(tmp_path))
        system.begin()
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            for operation_id, killed in (("later", ("runner", "projector", "api")), ("restart", (BROKER,))):
                monitor = await submit(http, system.api, operation_id, 4)
                async with linked(system.nats) as link:
                    await eventually(lambda: _has_timer(link, operation_id))  # noqa: B023 - called before the next one
                for name in killed:
                    system.kill(name)
                system.revive()
                again = await submit(http, system.api, operation_id, 4)
                assert again["startAt"] == monitor["startAt"]
                ended = await _end(http, system.api, operation_id)
                assert (ended["status"], ended["attempt"]) == ("Succeeded", 1)
                assert datetime.fromisoformat(ended["startedAt"]) >= datetime.fromisoformat(ended["startAt"])
        assert breaches(await gather(system.nats)) == []


async def _end(http: httpx.AsyncClient, api: str, operation_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def has_ended() -> bool:
        found.update((await http.get(f"{api}/status/{operation_id}")).json())
        return found.get("status") in {"Succeeded", "Failed"}

    await eventually(has_ended, within=30, poll=0.1)
    return found


async def _has_timer(link: Any, operation_id: str) -> bool:
    return any(one.endswith(".start") and operation_id in one for one in await scheduled(link))


async def test_a_runner_of_an_earlier_version(tmp_path: Path) -> None:
    """Beside an API of this version, a runner that knows no start times hands the request back for a minute, again and
    again, and does not begin it, neither before its time nor after. Other operations go on."""
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before="0.5.0", replicas=1)
        system.begin()
        await asyncio.to_thread(system.provision)
        await asyncio.to_thread(system.stop, "api")
        system.start_upgraded("api")
        await asyncio.to_thread(system.wait_ready, "api")
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http, linked(system.nats) as link:
            naks: list[bytes] = []

            async def note(message: Any) -> None:
                naks.append(message.data)

            await link.nc.subscribe("$JS.ACK.OPERATIONS.runner_kill_quick.>", cb=note)
            await link.nc.flush()
            monitor = await submit(http, system.api, "later", 1)
            await eventually(lambda: NAK_A_MINUTE in naks, within=15)
            start_at = datetime.fromisoformat(monitor["startAt"])
            response = await http.post(f"{system.api}/kill:quick", json=WORK, headers={"Operation-Id": "now"})
            assert response.status_code == 202

            async def is_past() -> bool:
                now = (await http.get(f"{system.api}/status/now")).json()
                is_over = now["status"] == "Succeeded"
                return is_over and datetime.now(start_at.tzinfo) > start_at

            await eventually(is_past, within=15)
            events = (await http.get(f"{system.api}/status/later/events")).json()["value"]
            assert [one["type"] for one in events] == ["opstream.action.requested.v2"]
            canceled = await http.post(f"{system.api}/status/later:cancel")
            assert canceled.json()["status"] == "Canceled"
