"""`opstream.testing` and a runner on a real broker leave the same events of the same action."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opstream.testing import run
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.events import RecordedEvent
from opstream_schemas.names import Kind
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked, opened
from tests.support.runner.stage import RunnerStage
from tests.support.testing.played_actions import Act, Program, played_async, played_plain
from tests.support.testing.same_events import comparable

pytestmark = pytest.mark.broker

_numbers = itertools.count(1)

names = st.sampled_from(["a", "b", "c"])
middles = st.builds(
    Act,
    what=st.sampled_from(["step", "step", "once", "failing", "progress", "sleep"]),
    name=names,
    number=st.integers(0, 2),
)
ends = st.builds(Act, what=st.sampled_from(["raise", "retry", "fail"]), name=names)
attempts = st.builds(lambda acts, end: [*acts, *end], st.lists(middles, max_size=4), st.lists(ends, max_size=1))
programs = st.builds(Program, attempts=st.lists(attempts, min_size=1, max_size=4))
"""Steps and waits have the line as their key, so an attempt finds those of another one only where both have them."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker that has everything."""
    with Broker() as broker:

        async def prepare() -> None:
            async with linked(broker.url) as link:
                await provision(link, Sizing())

        asyncio.run(prepare())
        yield broker.url


async def on_a_broker(url: str, kind: Kind, program: Program) -> list[RecordedEvent]:
    """Run the action for real."""
    operation_id = f"op-{next(_numbers)}"
    async with linked(url) as link:
        stage = RunnerStage(link, await opened(link))
        async with stage.runner([played_async, played_plain]):
            await stage.request(operation_id, kind=kind, given=msgspec.json.encode(program))
            await stage.ended(operation_id, within=30)
            return await stage.events(operation_id)


@pytest.mark.parametrize("action", [played_async, played_plain], ids=["async", "plain"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(program=Program([[Act("step"), Act("once", "b"), Act("sleep"), Act("raise")], [Act("step"), Act("fail")]]))
@example(program=Program([[Act("failing"), Act("retry")], [Act("progress"), Act("sleep", "b"), Act("raise")]]))
@given(program=programs)
def test_the_same_events(url: str, action: Any, program: Program) -> None:
    """Whatever an action does, in any attempts: type, position and data of all events are equal, but for the times."""
    real = asyncio.run(on_a_broker(url, action.kind, program))
    played = run(action, program)
    assert comparable(played.events) == comparable(real)
