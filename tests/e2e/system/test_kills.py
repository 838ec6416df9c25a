"""Each process is killed (SIGKILL) while it is busy and started again: each accepted operation ends exactly once.

The checks read what is left: the journal, the snapshots, and what clients saw (`tests/support/system/invariants.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from random import Random

import httpx
import msgspec
import pytest

from opstream_journal import Connection
from opstream_schemas import subjects
from tests.support.api.service import post
from tests.support.journal.journals import linked
from tests.support.system.invariants import Evidence, Promise, breaches, gather
from tests.support.system.kill_actions import CHILDREN, write_module
from tests.support.system.load import Load
from tests.support.system.services import BROKER, System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

BACKLOG = 240
MIXED = ("quick", "quick", "slow", "thread", "fail")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system; a test that kills a process starts it again."""
    folder = tmp_path_factory.mktemp("kills")
    with ExitStack() as stack:
        system = System(folder, stack, write_module(folder))
        system.begin()
        yield system


@pytest.fixture
async def load(system: System) -> AsyncIterator[Load]:
    """Clients of the running system, with a fixed seed."""
    system.revive()  # not in a thread: children end with the thread that started them (opstream/local/processes.py)
    async with Load(system.apis, Random(2)) as load:
        yield load


async def check(system: System, load: Load) -> Evidence:
    """Check that no invariant is broken, and that clients got only responses of the contract."""
    await asyncio.to_thread(system.wait_ready, *system.names)
    evidence = load.testify(await gather(system.nats))
    assert breaches(evidence) == []
    assert load.problems == []
    return evidence


async def test_the_runner_while_actions_run(system: System, load: Load) -> None:
    """The next runner takes over running operations with the next attempt number; ended ones are not repeated."""
    actions = ("held", "stuck", "held", "stuck", "quick", "fail")
    ids = [await load.submit(action) for action in actions]
    await asyncio.gather(*(load.reach(one, "Running") for one in ids[:4]), load.poll(*ids[4:]))
    system.kill("runner")
    late = await load.submit("quick")
    system.start("runner")
    await load.poll(*ids, late)
    evidence = await check(system, load)
    ends = [(operation.status, operation.attempt) for operation in map(evidence.fold, [*ids, late])]
    assert ends == [("Succeeded", 2)] * 4 + [("Succeeded", 1), ("Failed", 1), ("Succeeded", 1)]
    assert all(len(set(evidence.runners(one))) == 2 for one in ids[:4])


async def test_runner_and_projector_while_a_parent_waits(system: System, load: Load) -> None:
    """Children that end while no projector runs wake their parent once one runs again, and those of a parent that was
    canceled meanwhile end with it. Each was requested once."""
    async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=10) as http:
        parent, canceled = await load.submit("family", pause=0.2), await load.submit("family", pause=60)
        children, others = [await children_of(http, one) for one in (parent, canceled)]
        for name in ("projector", "runner"):
            system.kill(name)
        system.start("runner")
        await load.poll(*children)
        assert (await http.get(f"/status/{parent}")).json()["status"] == "Running"
        assert (await http.post(f"/status/{canceled}:cancel")).json()["status"] == "Canceled"
        system.kill("runner")
        system.start("projector")
        system.start("runner")
        await load.poll(parent, *others)
    evidence = await check(system, load)
    ends = [evidence.fold(one).status for one in (parent, canceled, *children, *others)]
    assert ends == ["Succeeded", "Canceled", *["Succeeded"] * CHILDREN, *["Canceled"] * CHILDREN]
    assert {evidence.requests(one) for one in (*children, *others)} == {1}


async def children_of(http: httpx.AsyncClient, parent: str) -> list[str]:
    """Wait until a parent waits for its children, and return their ids."""

    async def probe() -> list[str] | None:
        status = (await http.get(f"/status/{parent}")).json()
        return status["children"][0]["ids"] if status.get("waitingFor") == "Child" else None

    found: list[str] | None = await eventually(probe, within=20)
    assert found is not None
    return found


async def test_the_projector_between_batches(system: System, load: Load) -> None:
    """Killed repeatedly under load, the projector leaves snapshots equal to the fold, byte for byte."""
    async with linked(system.nats) as link, load.clients(8, MIXED):
        for _ in range(5):
            await writes(link, 1)
            system.kill("projector")
            system.start("projector")
        await writes(link, 1)
    assert load.ended > 20
    await check(system, load)


async def test_the_projector_within_a_batch(system: System, load: Load) -> None:
    """Killed while it catches up within a batch, the projector continues with the rest."""
    system.kill("projector")
    ids = await asyncio.gather(*(load.submit("quick") for _ in range(BACKLOG)))
    await load.poll(*ids)
    async with linked(system.nats) as link:
        system.start("projector")
        await writes(link, BACKLOG // 2)
    system.kill("projector")
    system.start("projector")
    await check(system, load)


async def writes(link: Connection, count: int) -> None:
    """Wait until the projector writes so many further snapshots."""
    subscription = await link.nc.subscribe(subjects.bucket_subject(subjects.VIEW_BUCKET, ">"))
    for _ in range(count):
        await subscription.next_msg(timeout=20)
    await subscription.unsubscribe()


async def test_a_status_without_projector(system: System, load: Load) -> None:
    """Statuses are right while the projector is down, and while the snapshots catch up afterwards."""
    system.kill("projector")
    ended, held = await load.submit("fail"), await load.submit("held")
    await asyncio.gather(load.poll(ended), load.reach(held, "Running"))
    system.kill("runner")
    waiting = await load.submit("quick")
    await load.reach(waiting, "NotStarted")
    system.start("runner")
    await load.poll(held, waiting)
    system.start("projector")
    evidence = await check(system, load)
    assert [load.polled[one][-1]["status"] for one in (ended, held, waiting)] == ["Failed", "Succeeded", "Succeeded"]
    assert evidence.view.keys() >= {ended, held, waiting}


async def test_the_broker_under_load(system: System, load: Load) -> None:
    """Killed and restarted on its data, the broker has all acknowledged messages."""
    async with load.clients(8, MIXED):
        for _ in range(3):
            goal = load.ended + 10
            await eventually(lambda goal=goal: load.ended >= goal, within=20)
            system.kill(BROKER)
            system.start(BROKER)
    await check(system, load)


async def test_submits_without_broker(system: System, load: Load) -> None:
    """Each submit gets a 503 with an id within 5 s; sent again with that id, it is accepted and recorded once."""
    url, body = f"{system.api}/kill:quick", {"number": 1}
    async with load.clients(8, MIXED), httpx.AsyncClient(trust_env=False, timeout=5) as http:
        system.kill(BROKER)
        answer = await http.post(url, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "JournalUnavailable")
        assert answer.headers["Retry-After"] == "1"
        operation_id = answer.json()["error"]["operationId"]
        system.start(BROKER)

        async def is_accepted() -> bool:
            again = await http.post(url, json=body, headers={"Operation-Id": operation_id})
            return again.status_code == 202 and again.json()["id"] == operation_id

        for _ in range(2):
            await eventually(is_accepted, within=10)
    load.promised[operation_id] = Promise("kill:quick", body)
    await load.poll(operation_id)
    assert load.unavailable > 0
    assert (await check(system, load)).requests(operation_id) == 1


@pytest.mark.parametrize("answers", [0, 1])
async def test_the_api_right_after_submits(system: System, load: Load, answers: int) -> None:
    """Killed before its first answer or after it, it stored each request once or not at all; sent again, each is one
    operation."""
    ids = [f"kill-{uuid.uuid4()}" for _ in range(20)]
    accepted = await submit_and_kill(system, ids, answers)
    system.start("api")
    await asyncio.to_thread(system.wait_ready, "api")
    before = await gather(system.nats)
    assert {before.requests(one) for one in ids} <= {0, 1}
    assert {before.requests(one) for one in accepted} <= {1}
    for number, one in enumerate(ids):
        load.promised[one] = Promise("kill:quick", {"number": number})
        await load.send_again(one)
    await load.poll(*ids)
    assert [(await check(system, load)).requests(one) for one in ids] == [1] * len(ids)


async def submit_and_kill(system: System, ids: list[str], answers: int) -> list[str]:
    """Send submits, each on a connection of its own, and kill the API once so many are answered; the accepted ids."""
    accepted: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        streams = {one: await asyncio.open_connection("127.0.0.1", system.port("api")) for one in ids}
        for number, (one, (_, writer)) in enumerate(streams.items()):
            stack.callback(writer.close)
            body = msgspec.json.encode({"number": number})
            writer.write(post("/kill:quick", body, f"Operation-Id: {one}", host="127.0.0.1"))
        await asyncio.gather(*(writer.drain() for _, writer in streams.values()))

        async def read(one: str, reader: asyncio.StreamReader) -> None:
            with contextlib.suppress(ConnectionError):
                if (await reader.readline()).startswith(b"HTTP/1.1 202 "):
                    accepted.append(one)

        async with asyncio.TaskGroup() as group:
            for one, (reader, _) in streams.items():
                group.create_task(read(one, reader))
            await eventually(lambda: len(accepted) >= answers, poll=0)
            system.kill("api")
    return accepted
