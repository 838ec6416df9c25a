"""The status on a real broker without runner and projector: the tests append events and write snapshots themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import pytest

from opstream_journal import Connection, Journal, SnapshotStore, announce_action
from opstream_schemas import subjects
from opstream_schemas.action_spec import DAY_SECONDS
from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    Progressed,
    Succeeded,
)
from opstream_schemas.operation.state import FOLD_VERSION, STEPS_FOLD_VERSION, Operation, Status
from tests.support.api.service import UPLOAD, Api, OperationStory, failure, in_a_second, serving, spec, started
from tests.support.broker.server import Broker
from tests.support.schemas.histories import FAILURE

pytestmark = pytest.mark.broker

RESULT = {"transaction": "t-1", "uploads": []}
SUCCEEDED = Succeeded(result=msgspec.Raw(msgspec.json.encode(RESULT)))
ORDER = ["NotStarted", "Running", "Succeeded", "Failed", "Canceled"]


class Unknown(EventData, frozen=True, kw_only=True):
    """An event of a later version."""

    name: ClassVar[str] = "progressed"
    type: ClassVar[str] = "opstream.action.paused.v1"

    until: str = "spring"


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec(retry_after=2))
    async with serving(broker.url) as api:
        yield api


@pytest.fixture
async def other(broker: Broker, api: Api) -> AsyncIterator[Api]:
    """A second replica, with an empty cache."""
    async with serving(broker.url) as other:
        yield other


async def submitted(api: Api, journal: Journal) -> OperationStory:
    """A new operation."""
    return await OperationStory.of(journal, (await api.submit()).json()["id"])


async def shown(api: Api, operation: Operation) -> dict[str, Any]:
    """Return the monitor of an operation, which must exist."""
    answer = await api.status(operation.id)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in answer.headers) == (answer.json()["status"] in {"NotStarted", "Running"})
    body: dict[str, Any] = answer.json()
    return body


async def test_every_status(api: Api, other: Api, journal: Journal) -> None:
    """Each event shows at once, in the replica of the request and in another one; the first members are in order."""
    story = await submitted(api, journal)
    steps: list[tuple[EventData, str, dict[str, Any]]] = [
        (started(), "Running", {"attempt": 1}),
        (Progressed(percent=40.0, message="copying"), "Running", {"percentComplete": 40.0, "message": "copying"}),
        (CancelRequested(by="me", reason="why not"), "Running", {"attempt": 1}),
        (SUCCEEDED, "Succeeded", {"result": RESULT}),
    ]
    for data, status, members in steps:
        await story.append(data)
        for replica in (api, other):
            body = await shown(replica, story.operation)
            assert body["status"] == status
            assert body | members == body
    assert list(body)[:3] == ["id", "status", "result"]
    assert {"createdAt", "startedAt", "finishedAt", "kind", "resourceId"} <= set(body)
    assert "error" not in body


async def test_a_failure_shows_its_code(api: Api, journal: Journal) -> None:
    """The code is the action's own: a number or a word."""
    codes: list[int | str] = [400, "ClientOutOfDate"]
    for code in codes:
        story = await submitted(api, journal)
        await story.append(started(), Failed(error=failure(code, "no")))
        body = await shown(api, story.operation)
        assert list(body)[:3] == ["id", "status", "error"]
        assert (body["status"], body["error"]) == ("Failed", {"code": code, "message": "no"})
        assert "result" not in body


async def test_a_canceled_operation(api: Api, journal: Journal) -> None:
    """It has neither result nor error."""
    story = await submitted(api, journal)
    await story.append(Canceled(reason="never mind"))
    body = await shown(api, story.operation)
    assert body["status"] == "Canceled"
    assert not {"result", "error"} & set(body)


async def test_waiting_for_another_attempt_is_running(api: Api, journal: Journal) -> None:
    """The monitor has the time of the next attempt; the error of the failed attempt is not the operation's."""
    story = await submitted(api, journal)
    data = AttemptFailed(attempt=1, error=failure(), retry_at=in_a_second(), counted=True)
    await story.append(started(), data)
    body = await shown(api, story.operation)
    assert (body["status"], body["attempt"]) == ("Running", 1)
    assert datetime.fromisoformat(body["retryAt"]) == data.retry_at
    assert "error" not in body


async def test_retry_after_is_the_actions(api: Api, journal: Journal) -> None:
    """`Retry-After` is what the runner announced."""
    story = await submitted(api, journal)
    assert (await api.status(story.operation.id)).headers["Retry-After"] == "2"


async def test_head_is_get_without_the_body(api: Api, journal: Journal) -> None:
    """The same headers, also the length."""
    story = await submitted(api, journal)
    full = await api.status(story.operation.id)
    head = await api.client.head(f"/status/{story.operation.id}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(full.content))


async def test_an_old_snapshot_is_completed(other: Api, api: Api, journal: Journal, view: SnapshotStore) -> None:
    """The projector is behind; the status is not."""
    story = await submitted(api, journal)
    await view.put(await story.append(started()), 0)
    await story.append(Progressed(percent=7.0))
    body = await shown(other, story.operation)
    assert (body["status"], body["percentComplete"]) == ("Running", 7.0)
    await story.append(SUCCEEDED)
    assert (await shown(other, story.operation))["status"] == "Succeeded"


async def test_a_current_snapshot_is_enough(other: Api, api: Api, journal: Journal, view: SnapshotStore) -> None:
    """It reaches the last event."""
    story = await submitted(api, journal)
    await view.put(await story.append(started()), 0)
    assert (await shown(other, story.operation))["status"] == "Running"


async def test_a_terminal_snapshot_is_final(api: Api, view: SnapshotStore) -> None:
    """Nothing can follow, so the journal need not have the events any more."""
    operation = finished_at(datetime.now(UTC))
    await view.put(operation, 0)
    assert (await shown(api, operation))["result"] == RESULT


def finished_at(time: datetime) -> Operation:
    """A snapshot of an operation that the journal does not know."""
    return Operation(
        id="gone",
        resource=UPLOAD.resource,
        action=UPLOAD.action,
        action_version=1,
        request_hash="",
        status=Status.SUCCEEDED,
        created_at=time,
        deadline=time,
        retention=86_400.0,
        finished_at=time,
        result=SUCCEEDED.result,
        position=3,
        stream_sequence=3,
        last_hash="0" * 64,
        fold_version=FOLD_VERSION,
    )


async def test_retention_ends_in_the_snapshot(api: Api, view: SnapshotStore) -> None:
    """A snapshot beyond its retention is not shown."""
    await view.put(finished_at(datetime.now(UTC) - timedelta(days=1)), 0)
    assert (await api.status("gone")).json()["error"]["code"] == "OperationNotFound"


async def test_retention_of_the_outcome_ends_in_the_snapshot(api: Api, view: SnapshotStore) -> None:
    """A failed operation is shown for longer than others if its request says so, and no longer than that."""
    hour = timedelta(hours=1)
    for days, code in ((89, 200), (90, 404)):
        ended = finished_at(datetime.now(UTC) - timedelta(days=days) - hour)
        failed = msgspec.structs.replace(
            ended,
            id=f"failed-{days}",
            status=Status.FAILED,
            error=FAILURE,
            result=msgspec.UNSET,
            retention_failed=90 * DAY_SECONDS,
        )
        await view.put(failed, 0)
        await view.put(msgspec.structs.replace(ended, id=f"done-{days}", retention_failed=90 * DAY_SECONDS), 0)
        assert (await api.status(failed.id)).status_code == code
        assert (await api.status(f"done-{days}")).status_code == 404


async def test_an_open_snapshot_needs_the_journal(api: Api, view: SnapshotStore) -> None:
    """The journal has no event of it any more, so it has ended: a killed broker may restore such a snapshot."""
    open_once = msgspec.structs.replace(finished_at(datetime.now(UTC)), status=Status.RUNNING, finished_at=None)
    await view.put(open_once, 0)
    for _ in range(2):
        answer = await api.status("gone")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "OperationNotFound")


async def test_retention_ends_in_the_journal(other: Api, api: Api, journal: Journal) -> None:
    """The events are kept longer than the status."""
    story = await submitted(api, journal)
    await story.append(started())
    await story.append(SUCCEEDED, at=datetime.now(UTC) - timedelta(days=1, seconds=1))
    for replica in (api, other):
        answer = await replica.status(story.operation.id)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "OperationNotFound")


async def test_the_retentions_are_those_at_the_time_of_the_request(
    broker: Broker, link: Connection, journal: Journal
) -> None:
    """The announced retention is stored with the request, so that the status depends only on the journal."""
    await announce_action(
        link, spec(retention=7 * DAY_SECONDS, retention_failed=90 * DAY_SECONDS, retention_canceled=2 * DAY_SECONDS)
    )
    async with serving(broker.url) as api:
        kept = (await submitted(api, journal)).operation
    assert (kept.retention, kept.retention_failed, kept.retention_canceled) == (
        7 * DAY_SECONDS,
        90 * DAY_SECONDS,
        2 * DAY_SECONDS,
    )


async def test_a_snapshot_of_another_history_is_folded_again(
    other: Api, api: Api, journal: Journal, view: SnapshotStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A snapshot that does not match the journal is not used."""
    story = await submitted(api, journal)
    foreign = msgspec.structs.replace(await story.append(started()), last_hash="f" * 64)
    await view.put(foreign, 0)
    await story.append(Progressed(percent=3.0))
    assert (await shown(other, story.operation))["percentComplete"] == 3.0
    assert story.operation.id in caplog.text


async def test_a_snapshot_of_another_fold_is_folded_again(
    other: Api, api: Api, journal: Journal, view: SnapshotStore
) -> None:
    """A newer or older version of the projector wrote it."""
    story = await submitted(api, journal)
    await story.append(started(), SUCCEEDED)
    await view.put(msgspec.structs.replace(story.operation, fold_version=STEPS_FOLD_VERSION + 1, attempt=9), 0)
    assert (await shown(other, story.operation))["attempt"] == 1


async def test_an_unknown_event_is_passed_over(other: Api, api: Api, journal: Journal) -> None:
    """A later version may append more; the known part of the operation is shown."""
    story = await submitted(api, journal)
    await story.append(started())
    await story.record(Unknown())
    for replica in (api, other):
        assert (await shown(replica, story.operation))["status"] == "Running"
    story = await OperationStory.of(journal, story.operation.id)
    await story.append(SUCCEEDED)
    for replica in (api, other):
        assert (await shown(replica, story.operation))["status"] == "Succeeded"


async def test_a_message_that_is_no_event(
    api: Api, journal: Journal, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program wrote to the operation's subjects: 500, and a log line that names the operation."""
    story = await submitted(api, journal)
    await link.nc.jetstream().publish(subjects.event_subject(story.operation.id, UPLOAD, "started"), b"nonsense")
    answer = await api.status(story.operation.id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "InternalError")
    assert story.operation.id in caplog.text


async def test_status_never_goes_backwards(api: Api, other: Api, journal: Journal, view: SnapshotStore) -> None:
    """Polled through two replicas in turn, while events arrive and the snapshots lag behind."""
    story = await submitted(api, journal)
    seen: list[tuple[int, int, float]] = []

    async def poll() -> None:
        turn = 0
        while not seen or seen[-1][0] < ORDER.index("Succeeded"):
            body = await shown((api, other)[turn % 2], story.operation)
            seen.append((ORDER.index(body["status"]), body.get("attempt", 0), body.get("percentComplete", -1.0)))
            turn += 1

    async def happen() -> None:
        revision = 0
        for attempt in (1, 2, 3):
            await story.append(started(attempt))
            before = story.operation
            for percent in range(1, 20):
                await story.append(Progressed(percent=float(percent)))
            revision = await view.put(before, revision) or 0
            if attempt < 3:
                data = AttemptFailed(attempt=attempt, error=failure(), retry_at=in_a_second(), counted=True)
                await story.append(data)
        await story.append(SUCCEEDED)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(poll())
        group.create_task(happen())
    assert seen == sorted(seen)
    assert len(set(seen)) > 5


async def test_retention_ends_while_it_is_cached(broker: Broker, link: Connection, journal: Journal) -> None:
    """A cached state is shown no longer than any other."""
    await announce_action(link, spec(retention=0.3))
    async with serving(broker.url) as api, asyncio.timeout(10):
        story = await submitted(api, journal)
        await story.append(started(), SUCCEEDED)
        while (answer := await api.status(story.operation.id)).status_code == 200:
            assert answer.json()["status"] == "Succeeded"
    assert answer.json()["error"]["code"] == "OperationNotFound"


async def test_an_action_that_the_catalog_does_not_know_is_polled_each_second(
    broker: Broker, api: Api, journal: Journal, link: Connection
) -> None:
    """Its entry is gone, or this replica has never seen it; its operations still exist."""
    story = await submitted(api, journal)
    await link.nc.jetstream().purge_stream(subjects.bucket_stream(subjects.ACTIONS_BUCKET))
    async with serving(broker.url) as other:
        answer = await other.status(story.operation.id)
    assert (answer.json()["status"], answer.headers["Retry-After"]) == ("NotStarted", "1")
