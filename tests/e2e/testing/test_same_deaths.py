"""A runner that dies in `opstream.testing` leaves what one leaves that is really killed at that moment."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import pytest

from opstream.testing import run_async
from opstream.testing.play.crash_moment import WAKE_UP
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.runtime.crash_points import CRASH_VARIABLE, CrashPoint
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked, opened
from tests.support.runner.stage import RunnerStage
from tests.support.system.processes import Process
from tests.support.system.wait import eventually
from tests.support.testing.played_actions import Act, Program, played_async
from tests.support.testing.same_events import comparable

pytestmark = pytest.mark.e2e

ACTIONS: Final = "tests.support.testing.played_actions"
PROGRAM: Final = Program([[Act("step"), Act("once", "b"), Act("sleep")]])
"""It records: started, the step, the begin of the other one, its result, the wait; then the same attempt again."""
_MOMENTS: Final = {CrashPoint.JOURNAL_PUBLISHES: "before", CrashPoint.JOURNAL_STORED: "after"}


@pytest.mark.parametrize("point", _MOMENTS, ids=str)
@pytest.mark.parametrize("number", [2, 4, 5])
async def test_the_same_events_after_a_death(point: CrashPoint, number: int) -> None:
    """Killed before or after its n-th event is stored, a runner leaves the same events, and so do its successors."""
    with Broker() as broker:
        async with linked(broker.url) as link:
            await provision(link, Sizing())
            stage = RunnerStage(link, await opened(link))
            command = ("runner", "--nats", broker.url, "--actions", ACTIONS)
            with Process(*command, extra={CRASH_VARIABLE: f"{point}:{number}"}) as mortal:
                mortal.wait_for("running played:async")
                await stage.request("op-1", kind=played_async.kind, given=msgspec.json.encode(PROGRAM))
                await eventually(lambda: not mortal.is_running, within=30)
                assert re.search(f"crash point {point} is reached", mortal.output)
            async with stage.runner([played_async]):
                await stage.ended("op-1", within=30)
                real = await stage.events("op-1")
    whole = await run_async(played_async, PROGRAM)
    moments = [one for one in whole.moments if one.event != WAKE_UP and one.when == _MOMENTS[point]]
    played = await run_async(played_async, PROGRAM, crash_at=moments[number - 1])
    assert comparable(played.events) == comparable(real)
