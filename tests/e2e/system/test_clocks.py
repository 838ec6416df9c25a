"""Services whose clock differs from the broker's say so, in their log and to probes."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from tests.support.broker.server import Broker, free_port
from tests.support.disaster.fake_clock import fake_clock, library
from tests.support.journal.journals import linked
from tests.support.system.processes import Process
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

PORT = "PORT"


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.mark.parametrize(
    "command",
    [
        ("api", "--port", PORT),
        ("runner", "--actions", "tests.support.runner.stubborn_actions", "--health-port", PORT),
        ("projector", "--health-port", PORT),
        ("webhooks", "--health-port", PORT),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize(("seconds", "place"), [(3600, "ahead of"), (-3600, "behind")])
async def test_an_hour_off(
    broker: Broker, http: httpx.Client, command: tuple[str, ...], seconds: int, place: str
) -> None:
    """An hour is a warning with the next step; the service stays ready."""
    if library() is None:
        pytest.skip("libfaketime is not installed")
    async with linked(broker.url) as link:
        await provision(link, Sizing())
    port = str(free_port())
    options = [port if one == PORT else one for one in command]
    with Process(*options, "--nats", broker.url, extra=fake_clock(seconds)) as process:

        def conditions() -> list[dict[str, str]]:
            try:
                response = http.get(f"http://127.0.0.1:{port}/readyz")
            except httpx.TransportError:
                return []
            found: list[dict[str, str]] = response.json().get("conditions", [])
            return found if response.status_code == 200 else []

        (condition,) = await eventually(conditions, within=30, poll=0.1)
        assert condition["name"] == "ClockSkew"
        assert f"the clock of this machine is 3600 s {place} that of the broker" in condition["message"]
        assert "NTP" in condition["nextStep"]
        process.wait_for("ClockSkew: the clock of this machine")
