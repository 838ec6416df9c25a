"""Children on a real broker, with an API, a projector and a runner in the test's process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from opstream_journal import Connection, Journal
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.children.lineage import child_id
from opstream_schemas.events import CancelRequested, Requested, StepStarted, WaitBegun
from opstream_schemas.operation.state import Status
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker
from tests.support.children import child_actions
from tests.support.children.child_actions import calls, running
from tests.support.projector.service import projecting
from tests.support.runner.stage import RunnerStage
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def api(broker: Broker, stage: RunnerStage) -> AsyncIterator[Api]:
    """The whole system."""
    calls.clear()
    running[:] = [0, 0]
    async with (
        stage.runner(collect_actions([child_actions]), concurrency=16),
        serving(broker.url) as api,
        projecting(broker.url),
    ):
        yield api


async def done(api: Api, parent: str, operation_id: str = "op-1", **given: Any) -> dict[str, Any]:
    """Submit an operation, and return its status after its end."""
    response = await api.submit(f"/page:{parent}", given, {"Operation-Id": operation_id})
    assert response.status_code == 202, response.text
    while True:
        status = (await api.wait(operation_id, 10)).json()
        if status["status"] not in {"NotStarted", "Running"}:
            return dict(status)


async def is_running(stage: RunnerStage, operation_id: str) -> bool:
    """Whether an operation exists, and its attempt is live."""
    return bool(await stage.events(operation_id)) and (await stage.state(operation_id)).live is not None


@pytest.mark.parametrize("action", ["bind", "bind-plain"])
async def test_one_child(api: Api, stage: RunnerStage, action: str) -> None:
    """The parent waits without an attempt, and goes on with the result. Both know each other."""
    status = await done(api, action, pages=7)
    assert (status["status"], status["result"]) == ("Succeeded", 7), status
    child = child_id("op-1", "page:print", "", None)
    assert status["children"] == [{"name": "page:print", "count": 1, "ids": [child]}]
    found = (await api.status(child)).json()
    assert (found["parent"], found["status"], found["kind"]) == ("op-1", "Succeeded", "page:print")
    names = await stage.names("op-1")
    assert names == ["requested", "started", "step-started", "waiting", "started", "succeeded"]


@pytest.mark.parametrize(("action", "limit"), [("bind-all", 0), ("bind-all", 3), ("bind-apart", 0), ("bind-apart", 2)])
async def test_several(api: Api, stage: RunnerStage, action: str, limit: int) -> None:
    """Their results come in their order. Never are more of them open than may be."""
    status = await done(api, action, pages=9, max_parallel=limit, seconds=0.02)
    assert (status["status"], status["result"]) == ("Succeeded", list(range(9))), status
    assert running[1] <= (limit or 9)
    (view,) = status["children"]
    assert (view["name"], view["count"], len(set(view["ids"]))) == ("children", 9, 9)


async def test_a_parent_holds_no_slot(broker: Broker, stage: RunnerStage) -> None:
    """A runner with one slot runs a parent, its parent, and all their children."""
    async with (
        stage.runner(collect_actions([child_actions]), concurrency=1),
        serving(broker.url) as api,
        projecting(broker.url),
    ):
        status = await done(api, "grandparent", pages=3)
        assert (status["status"], status["result"]) == ("Succeeded", [0, 1, 2]), status


async def test_many_cost_few_wake_ups(api: Api, stage: RunnerStage) -> None:
    """Children end one by one, and their parent is not woken by each."""
    status = await done(api, "bind-all", pages=400)
    assert (status["status"], status["result"]) == ("Succeeded", list(range(400))), status
    waits = (await stage.names("op-1")).count(WaitBegun.name)
    assert waits <= 25


@pytest.mark.parametrize("fail", ["first", "all"])
async def test_one_fails(api: Api, stage: RunnerStage, fail: str) -> None:
    """The parent fails with it, and the message has the child's own error."""
    status = await done(api, "bind-all", pages=4, failing=0, fail=fail, seconds=0.05)
    assert status["status"] == "Failed"
    child = child_id("op-1", "children", "", 0)
    assert (status["error"]["code"], status["error"]["target"]) == ("ChildFailed", child)
    assert "OutOfPaper" in status["error"]["message"]


async def test_the_first_failure_cancels_the_others(api: Api, stage: RunnerStage) -> None:
    """The parent does not wait for those that go on, and they are canceled with it."""
    status = await done(api, "bind-mixed")
    assert (status["status"], status["error"]["code"]) == ("Failed", "ChildFailed")
    for index in (0, 2):
        assert (await stage.ended(child_id("op-1", "children", "", index))).status is Status.CANCELED


async def test_a_failure_that_is_caught(api: Api) -> None:
    """The parent goes on, and knows which child has failed, and why."""
    status = await done(api, "forgive")
    assert status["result"] == [child_id("op-1", "page:print", "", None), "failed", "OutOfPaper"]


async def test_a_cancel_goes_down(api: Api, stage: RunnerStage) -> None:
    """What runs is asked to stop, what has not begun ends, and grandchildren follow their parents."""
    await api.submit("/page:grandparent", {"pages": 3, "seconds": 600}, {"Operation-Id": "op-1"})
    parent = child_id("op-1", "page:bind-all", "", None)
    children = [child_id(parent, "children", "", index) for index in range(3)]
    for child in children:
        await eventually(lambda child=child: is_running(stage, child), within=20)
    assert (await api.cancel("op-1")).json()["status"] == "Canceled"
    for one in (parent, *children):
        ended = await stage.ended(one)
        assert ended.status is Status.CANCELED
        assert "has ended" in ended.reason
    assert CancelRequested.name in await stage.names(children[0])


async def test_the_deadline_goes_down(api: Api, stage: RunnerStage) -> None:
    """A child has no later deadline than its parent."""
    status = await done(api, "bind-hurried", pages=1)
    assert status["status"] == "Succeeded"
    parent = await stage.state("op-1")
    child = await stage.state(child_id("op-1", "page:print", "", None))
    assert child.deadline == parent.deadline


async def test_a_refused_child(api: Api) -> None:
    """An action that does not exist, an input that does not fit: the parent fails, and says which and why."""
    status = await done(api, "bind", action="page:burn")
    assert (status["status"], status["error"]["code"]) == ("Failed", "ChildRefused")
    assert "page:burn" in status["error"]["message"]
    status = await done(api, "bind", "op-2", action="page:bind")
    assert (status["status"], status["error"]["code"]) == ("Failed", "ChildRefused")
    assert "InvalidInput" in status["error"]["message"]


async def test_an_action_that_begins_itself(api: Api, stage: RunnerStage) -> None:
    """It ends at a depth, and each parent fails with its child."""
    status = await done(api, "endless")
    assert (status["status"], status["error"]["code"]) == ("Failed", "ChildFailed")


async def test_a_retry_finds_its_children(api: Api, stage: RunnerStage) -> None:
    """The attempt after a failure begins nothing twice, and records once that it has children."""
    status = await done(api, "bind-twice", pages=3)
    assert (status["status"], status["result"]) == ("Succeeded", [0, 1, 2]), status
    names = await stage.names("op-1")
    assert names.count(StepStarted.name) == 1
    for index in range(3):
        assert (await stage.names(child_id("op-1", "children", "", index))).count(Requested.name) == 1


async def test_other_children_under_a_name(api: Api) -> None:
    """An attempt that asks for others than the one before fails, and begins none of them."""
    status = await done(api, "bind-other")
    assert (status["status"], status["error"]["code"]) == ("Failed", "StepInputChanged")


async def test_no_client_takes_an_id_of_a_child(api: Api) -> None:
    """A submit with such an id is refused."""
    name = child_id("op-1", "a", "", None)
    response = await api.submit("/page:print", {"number": 1}, {"Operation-Id": name})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "InvalidHeader")
