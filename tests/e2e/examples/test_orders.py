"""The orders with real processes: the runner is killed in every step, of the order and of its clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from opstream_journal.runtime.crash_points import CrashPoint
from orders.bank import Bank
from orders.ledger import Ledger
from orders.warehouse import Warehouse
from tests.support.chaos.state import gather_quiet
from tests.support.chaos.system import ChaosSystem
from tests.support.system.invariants import breaches
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

ORDER: Final = {"customer": "Ada", "address": "London", "items": [{"name": "engine", "cents": 25_000}]}
MODULE: Final = """
from opstream import action
from orders import actions

place = action("order:place", clean_up=True, deadline=actions.DAY, lease=1, backoff=0.1)(actions.place.handler)
"""
"""The action as it is, with a short lease, so that another attempt follows soon."""
APPROVED: Final = [
    CrashPoint.RUNNER_STARTED,
    CrashPoint.RUNNER_STEP_DONE,
    CrashPoint.RUNNER_STEP_RECORDED,
    CrashPoint.RUNNER_WAITING,
    CrashPoint.RUNNER_WAKE_ARMED,
    f"{CrashPoint.RUNNER_STARTED}:2",
    f"{CrashPoint.RUNNER_STEP_DONE}:2",
    f"{CrashPoint.RUNNER_STEP_RECORDED}:2",
    f"{CrashPoint.RUNNER_HANDLED}:2",
    CrashPoint.RUNNER_CONCLUDED,
]
CANCELED: Final = [
    f"{CrashPoint.RUNNER_STARTED}:2",
    f"{CrashPoint.RUNNER_STEP_DONE}:2",
    f"{CrashPoint.RUNNER_STEP_RECORDED}:2",
    f"{CrashPoint.RUNNER_STEP_DONE}:3",
    f"{CrashPoint.RUNNER_STEP_RECORDED}:3",
    f"{CrashPoint.RUNNER_HANDLED}:2",
    CrashPoint.RUNNER_CONCLUDED,
]
_numbers = count(1)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosSystem]:
    """A system with one process of each service, which runs the orders."""
    folder = tmp_path_factory.mktemp("orders")
    (folder / "quick_orders.py").write_text(MODULE, encoding="utf-8")
    with ExitStack() as stack:
        variables = {"ORDERS_FOLDER": str(folder / "entries")}
        system = ChaosSystem(folder, stack, environment=variables, actions="quick_orders")
        system.begin()
        yield system


def entries(system: ChaosSystem) -> tuple[Bank, Warehouse]:
    """What bank and warehouse have."""
    folder = Path(system.folder) / "entries"
    return Bank(Ledger(folder / "bank")), Warehouse(Ledger(folder / "warehouse"))


async def read(http: httpx.AsyncClient, operation_id: str) -> dict[str, Any]:
    """A status."""
    monitor: dict[str, Any] = (await http.get(f"/status/{operation_id}")).json()
    return monitor


async def play(system: ChaosSystem, point: str, path: str, body: Any) -> dict[str, Any]:
    """Place an order with a runner that dies at a point, do something once it waits, and return its end."""
    operation_id = f"order-{next(_numbers)}"
    system.revive()
    system.kill("runner")
    armed = system.start("runner", crash=point)

    async def watch() -> None:
        await eventually(lambda: not armed.is_running, within=30)
        system.start("runner")

    async def work() -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=20) as http:
            placed = await http.post("/order/7:place", json=ORDER, headers={"Operation-Id": operation_id})
            assert placed.status_code == 202, placed.text
            await eventually(lambda: waits(http), poll=0.05)
            done = await http.post(f"/status/{operation_id}:{path}", json=body)
            assert done.status_code == 200, done.text
            return await eventually(lambda: ended(http), poll=0.05)

    async def waits(http: httpx.AsyncClient) -> bool:
        return (await read(http, operation_id)).get("waitingFor") == "Signal"

    async def ended(http: httpx.AsyncClient) -> dict[str, Any]:
        monitor = await read(http, operation_id)
        return monitor if monitor["status"] in {"Succeeded", "Failed", "Canceled"} else {}

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        worked = group.create_task(work())
    await system.ready("runner")
    left = await gather_quiet(system.nats, within=20)
    assert breaches(left.evidence) == []
    assert system.complaints() == []
    return worked.result()


@pytest.mark.parametrize("point", APPROVED)
async def test_approved(system: ChaosSystem, point: str) -> None:
    """The customer pays once, and gets one parcel."""
    monitor = await play(system, point, "signal/approval", {"approved": True})
    key = monitor["id"]
    assert (monitor["status"], monitor["result"]) == ("Succeeded", {"cents": 25_000, "parcel": f"P-{key}"})
    bank, warehouse = entries(system)
    assert (bank.balance()[key], key in warehouse.sent()) == (25_000, True)


@pytest.mark.parametrize("point", CANCELED)
async def test_canceled(system: ChaosSystem, point: str) -> None:
    """While it waits for the approval: the money is given back, and nothing is sent."""
    monitor = await play(system, point, "cancel", {"reason": "changed my mind"})
    bank, warehouse = entries(system)
    assert monitor["status"] == "Canceled"
    assert (monitor["id"] in bank.balance(), monitor["id"] in warehouse.sent()) == (False, False)
