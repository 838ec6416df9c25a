"""A runner listens to the events of its operations, and answers none of their writers."""

from __future__ import annotations

import msgspec
import pytest
from nats.aio.msg import Msg

from opstream_journal import Connection
from tests.support.broker.server import Broker
from tests.support.system.processes import Process
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("event", ["cancel-requested", "failed"])
async def test_only_jetstream_answers(broker: Broker, link: Connection, event: str) -> None:
    """The writer of a cancel request or a failure gets one answer, which is JetStream's."""
    answers: list[bytes] = []

    async def keep(message: Msg) -> None:
        answers.append(message.data)

    await link.nc.subscribe("answers", cb=keep)
    actions = "tests.support.runner.stubborn_actions"
    with Process("runner", "--nats", broker.url, "--actions", actions, "--log-level", "info") as runner:
        runner.wait_for("running ")
        published = 0

        async def publish_and_look() -> bool:
            # The runner logs what it got, because the id is not valid. What comes before FastStream listens is lost.
            nonlocal published
            published += 1
            await link.nc.publish(f"operations.{'x' * 200}.work.wait.{event}", b"", reply="answers")
            return runner.output.count("a notification was ignored") >= 5

        await eventually(publish_and_look, within=20, poll=0.1)
    # The runner has stopped, so whatever it answered has been sent before this.
    await link.nc.flush()
    await eventually(lambda: len(answers) >= published)
    assert [msgspec.json.decode(answer or b"null") for answer in answers] == [
        {"stream": "OPERATIONS", "seq": number} for number in range(1, published + 1)
    ]
