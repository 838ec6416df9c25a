"""Which priorities a key may ask for, and that it gets no higher one by another way."""

from __future__ import annotations

import pytest

from opstream_journal import Connection, announce_action
from opstream_schemas.names import Kind
from tests.support.access.desk import AccessDesk, CallerWithKey, serving_with_keys
from tests.support.api.service import spec
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

HEADER = "Operation-Priority"
URGENT = Kind("book", "publish")


async def submitted(caller: CallerWithKey, operation_id: str, priority: str = "", path: str = "") -> str:
    """Submit, and return the priority of the operation, or the code of the error."""
    headers = {"Operation-Id": operation_id} | ({HEADER: priority} if priority else {})
    answer = await caller.submit(path or "/book/42:upload-start", headers=headers)
    if answer.status_code == 202:
        return str(answer.json()["priority"])
    assert answer.json()["error"]["target"] == HEADER
    return str(answer.json()["error"]["code"])


async def capped(desk: AccessDesk, most: str) -> CallerWithKey:
    return await desk.caller("acme", f"{most or 'any'}", "submit", "read", most_priority=most)


async def test_a_key_caps_what_it_may_ask_for(broker: Broker, link: Connection) -> None:
    """What is beyond the cap is refused, not lowered; without a cap all may be asked for."""
    await announce_action(link, spec(priority="normal"))
    async with serving_with_keys(broker, link) as desk:
        found = {}
        for most in ("", "high", "normal", "low"):
            caller = await capped(desk, most)
            found[most] = [await submitted(caller, f"op-{most}-{one}", one) for one in ("high", "normal", "low")]

    everything = ["high", "normal", "low"]
    assert found == {
        "": everything,
        "high": everything,
        "normal": ["Forbidden", "normal", "low"],
        "low": ["Forbidden", "Forbidden", "low"],
    }


async def test_what_is_not_asked_for_is_lowered(broker: Broker, link: Connection) -> None:
    """The action's own priority, and that of an operation that is done again, are lowered to the cap."""
    await announce_action(link, spec(URGENT, priority="high"))
    async with serving_with_keys(broker, link) as desk:
        caller, other = await capped(desk, "low"), await desk.caller("acme", "ann", "submit", "read:all", "cancel")
        path = f"/{URGENT.resource}/42:{URGENT.action}"
        assert await submitted(caller, "op-1", path=path) == "low"
        assert await submitted(other, "op-2", path=path) == "high"
        assert (await other.cancel("op-2")).status_code == 200
        reader = await desk.caller("acme", "bob", "submit", "read:all", most_priority="normal")

        answer = await reader.client.post("/status/op-2:retry")

        assert (answer.status_code, answer.json()["priority"]) == (202, "normal")
