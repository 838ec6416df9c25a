"""The limit of a caller's open operations, attacked over HTTP, in one process, in two, and across a restart."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from opstream_api.access.limits.open_operations import OpenOperations
from opstream_api.access.limits.open_survey import OpenSurvey
from opstream_api.access.principal import Owner
from opstream_journal import Connection, Journal, SnapshotStore, announce_action
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.timers import schedule_deadline
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.events import ParentRef, Succeeded
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import fold_for_reader
from tests.support.access.desk import serving_with_keys
from tests.support.api.service import OperationStory, serving, spec, started
from tests.support.broker.proxy import Proxy
from tests.support.broker.roles import RoleBroker
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ANN = ("acme", "ann", "submit", "read", "cancel")


async def test_a_burst_gets_no_more_than_the_limit(broker: Broker, link: Connection) -> None:
    """Other callers may go on, a repeated request gets its operation, and an end makes room."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, caller_open_operations=3) as desk:
        ann, twin = await desk.caller(*ANN), await desk.caller("evil", "ann", "submit")
        answers = await asyncio.gather(*(ann.submit(headers={"Operation-Id": f"op-{n}"}) for n in range(12)))
        assert sorted(one.status_code for one in answers) == [202] * 3 + [429] * 9
        refused = next(one for one in answers if one.status_code == 429)
        assert (refused.json()["error"]["code"], refused.headers["Retry-After"]) == ("TooManyRequests", "5")
        accepted = [f"op-{n}" for n, one in enumerate(answers) if one.status_code == 202]
        assert (await ann.submit(headers={"Operation-Id": accepted[0]})).status_code == 202
        assert (await twin.submit()).status_code == 202
        assert (await ann.cancel(accepted[0])).json()["status"] == "Canceled"

        async def has_room() -> bool:
            return (await ann.submit(headers={"Operation-Id": "next"})).status_code == 202

        await eventually(has_room, within=5)
        assert (await ann.submit(headers={"Operation-Id": "one-more"})).status_code == 429
        again = await ann.submit(headers={"Operation-Id": accepted[0]})
        assert (again.status_code, again.json()["status"]) == (202, "Canceled")


async def test_two_processes_and_a_restarted_one_count_the_same(
    broker: Broker, link: Connection, journal: Journal
) -> None:
    """What one has accepted is full for the other, and for one that starts later; its end is seen by both."""
    await announce_action(link, spec())
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(serving_with_keys(broker, link, caller_open_operations=2))
        ann = await desk.caller(*ANN)
        for operation_id in ("one", "two"):
            assert (await ann.submit(headers={"Operation-Id": operation_id})).status_code == 202
        key = {"Authorization": f"Bearer {ann.key}"}
        other = await stack.enter_async_context(serving(broker.url, auth=("keys",), caller_open_operations=2))
        assert (await other.submit(headers={**key, "Operation-Id": "three"})).status_code == 429
        story = await OperationStory.of(journal, desk.ids.stored_id("acme", "one"))
        await story.append(started(), Succeeded(result=msgspec.Raw(b"{}")))

        async def is_accepted() -> bool:
            return (await other.submit(headers={**key, "Operation-Id": "three"})).status_code == 202

        await eventually(is_accepted, within=5)

        numbers = itertools.count()

        async def is_refused() -> bool:
            # Each time another one: the first may be accepted, before this process has heard of the third.
            return (await ann.submit(headers={"Operation-Id": f"more-{next(numbers)}"})).status_code == 429

        await eventually(is_refused, within=5)


async def test_a_burst_at_several_processes(broker: Broker, link: Connection) -> None:
    """Each process lets pass as many as the limit at most, whatever the others do in the same moment. Once it has
    refused one, none accepts more before some have ended; then exactly the limit may begin."""
    await announce_action(link, spec())
    limit, processes = 3, 3
    async with AsyncExitStack() as stack:
        options = {"caller_open_operations": limit}
        desk = await stack.enter_async_context(serving_with_keys(broker, link, **options))
        ann = await desk.caller(*ANN)
        key = {"Authorization": f"Bearer {ann.key}"}
        apis = [
            desk.api,
            *[
                await stack.enter_async_context(serving(broker.url, auth=("keys",), **options))
                for _ in range(processes - 1)
            ],
        ]

        async def submit(number: int) -> tuple[str, int]:
            own_id = f"op-{number}"
            answer = await apis[number % processes].submit(headers={**key, "Operation-Id": own_id})
            return own_id, answer.status_code

        answers = dict(await asyncio.gather(*(submit(number) for number in range(10 * processes))))
        accepted = [one for one, status in answers.items() if status == 202]
        assert set(answers.values()) == {202, 429}
        assert limit <= len(accepted) <= limit * processes

        numbers = itertools.count(1_000)

        async def statuses() -> set[int]:
            return {(await submit(processes * next(numbers) + process))[1] for process in range(processes)}

        assert await statuses() == {429}  # each process has refused some, and none has ended
        for own_id in accepted:
            assert (await ann.cancel(own_id)).is_success

        async def begins(number: int) -> bool:
            return (await submit(number))[1] == 202

        for number in range(100, 100 + limit):
            await eventually(lambda number=number: begins(number), within=5)

        async def are_full() -> bool:
            return await statuses() == {429}

        await eventually(are_full, within=5)


async def test_the_count_is_true_after_a_lost_connection(broker: Broker, link: Connection, journal: Journal) -> None:
    """What has ended or begun while a process had no connection is found when it has one again."""
    await announce_action(link, spec())
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(broker.port))
        desk = await stack.enter_async_context(serving_with_keys(broker, link, caller_open_operations=2))
        ann = await desk.caller(*ANN)
        key = {"Authorization": f"Bearer {ann.key}"}
        far = await stack.enter_async_context(serving(proxy.url, auth=("keys",), caller_open_operations=2))
        for own_id in ("one", "two"):
            assert (await far.submit(headers={**key, "Operation-Id": own_id})).status_code == 202
        proxy.mute()
        for own_id in ("one", "two"):
            story = await OperationStory.of(journal, desk.ids.stored_id("acme", own_id))
            await story.append(started(), Succeeded(result=msgspec.Raw(b"{}")))

        async def begins_meanwhile() -> bool:
            return (await ann.submit(headers={"Operation-Id": "meanwhile"})).status_code == 202

        await eventually(begins_meanwhile, within=5)
        proxy.cut()  # what it held is lost
        proxy.unmute()

        async def is_accepted() -> bool:
            return (await far.submit(headers={**key, "Operation-Id": "room"})).status_code == 202

        await eventually(is_accepted, within=20)
        numbers = itertools.count()

        async def is_refused() -> bool:
            # Each time another one: some may be accepted while the events after the survey are still read.
            return (await far.submit(headers={**key, "Operation-Id": f"no-room-{next(numbers)}"})).status_code == 429

        await eventually(is_refused, within=5)


async def test_a_survey_finds_what_the_projector_has_handled(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """By the timers of deadlines, and the snapshots: open ones of callers; no ended ones, children or others."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link) as desk:
        ann = await desk.caller(*ANN)
        for operation_id in ("one", "two", "ended"):
            assert (await ann.submit(headers={"Operation-Id": operation_id})).status_code == 202
        stored = {one: desk.ids.stored_id("acme", one) for one in ("one", "two", "ended")}
    async with serving(broker.url) as api:
        assert (await api.submit(headers={"Operation-Id": "earlier"})).status_code == 202
    await (await OperationStory.of(journal, stored["ended"])).append(started(), Succeeded(result=msgspec.Raw(b"{}")))
    for one in (*stored.values(), "earlier"):
        operation = fold_for_reader(None, await journal.events(one))
        assert operation is not None
        await view.put(operation, 0)
        await schedule_deadline(link, operation.kind, one, operation.deadline)
    child = msgspec.structs.replace(operation, id="child", own_id="child", parent=ParentRef(id="one", name="a"))
    await view.put(child, 0)
    await schedule_deadline(link, child.kind, child.id, child.deadline)
    await take_all(link, subjects.PROJECTOR_DEADLINES_CONSUMER, 4)
    await take_all(link, subjects.PROJECTOR_CONSUMER, 6)
    survey = OpenSurvey(link, OpenOperations(9))
    last = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
    assert await survey.begin(last) == last + 1
    assert survey.known.is_set()
    assert (len(survey.operations), survey.operations.count(Owner("acme", "ann"))) == (2, 2)


async def take_all(link: Connection, consumer: str, count: int) -> None:
    """Acknowledge messages as the projector does once it has handled them."""
    pulling = await link.nc.jetstream().pull_subscribe_bind(consumer, stream=subjects.OPERATIONS_STREAM)
    for message in await pulling.fetch(count, timeout=5):
        await message.ack_sync()
    await pulling.unsubscribe()


async def test_the_role_of_the_api_may_look(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a login for each role, too: what it can't read would count for no limit, and the log would say so."""
    with RoleBroker(tmp_path, [ActionAccess(Kind("book", "upload-start"))]) as broker:
        operator, link = await broker.connect("admin"), await broker.connect("api")
        await provision(operator, Sizing(), [spec()])
        survey = OpenSurvey(link, OpenOperations(9))
        assert await survey.begin(0) == 1
        assert "count for no limit" not in caplog.text
        for connection in (operator, link):
            await connection.close()
