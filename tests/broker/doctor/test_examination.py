"""Each finding of `opstream doctor`, provoked on a real broker: by its configuration, by what is deleted or filled."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import msgspec
import pytest

from opstream.doctor import broker_checks, examination, work_checks
from opstream.doctor.examination import Examination
from opstream.doctor.monitoring_port import MonitoringUnreachable, read_monitoring
from opstream.doctor.system_findings import Level, SystemFinding
from opstream_journal import NEW_OPERATION, Connection, Journal, announce_action
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.pull_consumer import PullConsumer
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.provision import ensure_runner_consumer, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.timers import schedule_deadline, send_deadline
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.operation.fold import first_event
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.webhook_delivery import CALLBACK_ENDPOINT, WebhookDelivery
from tests.support.api.service import spec
from tests.support.broker.roles import RoleBroker
from tests.support.broker.server import Broker, Cluster, free_port
from tests.support.journal.journals import KIND, begin, linked
from tests.support.schemas.histories import request
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def findings(link: Connection) -> dict[str, SystemFinding]:
    """The findings, by their names; of several the first."""
    return {one.name: one for one in reversed(await Examination(link, watch=0.5, patience=2).run())}


async def needed(link: Connection) -> set[str]:
    """The names of the findings that need action."""
    return {name for name, one in (await findings(link)).items() if one.needs_action}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is late at once."""
    monkeypatch.setattr(work_checks, "MAX_LAG", timedelta(0))
    monkeypatch.setattr(work_checks, "MAX_WAIT", timedelta(0))


async def test_a_system_that_is_well(link: Connection, journal: Journal) -> None:
    """Every part was looked at, nothing needs action, and what can't be seen is said."""
    await begin(journal, "op-1")
    found = await findings(link)
    assert [one for one in found.values() if one.needs_action] == []
    assert found["SyncingUnknown"].level is Level.NOTE
    assert "--monitoring" in found["SyncingUnknown"].next_step
    assert {"ServerVersion", "SingleServer", "Room", "Subjects", "Topology", "Clocks", "Timers", "Holds"} <= set(found)
    assert {"Servers", "Runners"} <= set(found)
    assert found["ServiceStopped"].level is Level.NOTE, "no service runs, and nothing has waited for long"


async def test_what_the_monitoring_port_says(broker: Broker, link: Connection) -> None:
    """A server that syncs each message, and one that does not."""
    monitored = read_monitoring(f"http://127.0.0.1:{broker.http_port}")
    found = {one.name: one for one in await Examination(link, [monitored], watch=0.5).run()}
    assert found["Syncing"].level is Level.OK
    assert abs(monitored.clock_lead) < timedelta(seconds=5)
    with Broker("lazy", jetstream="sync_interval: 2m") as lazy:
        (one,) = broker_checks.check_syncing({"n1": read_monitoring(f"http://127.0.0.1:{lazy.http_port}").varz})
    assert (one.name, one.level) == ("NotSynced", Level.CRITICAL)
    assert "sync_interval: always" in one.next_step
    with pytest.raises(MonitoringUnreachable, match="does not answer as the monitoring port"):
        read_monitoring(f"http://127.0.0.1:{free_port()}")


async def test_a_deleted_consumer(link: Connection) -> None:
    """A consumer that is missing is named, with the step that makes it again."""
    await link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_DUE_CONSUMER)
    found = (await findings(link))["NotProvisioned"]
    assert found.level is Level.CRITICAL
    assert found.message == "missing: consumer projector_due"
    assert "opstream provision" in found.next_step


async def test_a_deleted_journal(link: Connection) -> None:
    """Before a new journal is made, a backup is to be restored."""
    await link.nc.jetstream().delete_stream(subjects.OPERATIONS_STREAM)
    found = (await findings(link))["NotProvisioned"]
    assert "stream OPERATIONS" in found.message
    assert "restore it from a backup first" in found.next_step


async def test_a_stream_that_was_changed(link: Connection) -> None:
    """A difference from the topology is named with both values."""
    await admin.update_stream(link, subjects.bucket_stream(subjects.VIEW_BUCKET), {"allow_direct": False})
    assert "stream KV_operations: allow_direct is False, should be True" in (await findings(link))["Drift"].message


async def test_a_consumer_of_an_action_that_was_changed(link: Connection) -> None:
    """Consumers of the actions in the catalog are compared, too."""
    await announce_action(link, spec())
    await ensure_runner_consumer(link, spec())
    name = subjects.runner_consumer(spec().kind)
    await admin.update_consumer(link, subjects.OPERATIONS_STREAM, name, {"max_ack_pending": 7})
    assert f"consumer {name}: max_ack_pending is 7" in (await findings(link))["Drift"].message


async def test_a_foreign_stream(broker: Broker) -> None:
    """Another application's stream with one of our names."""
    async with linked(broker.url) as link:
        await link.nc.jetstream().add_stream(name="TIMERS", subjects=["alarm.>"])
        assert (await findings(link))["ForeignStream"].level is Level.CRITICAL


async def test_a_full_journal(broker: Broker) -> None:
    """A journal in which submits are refused, and one that will soon be full."""
    async with linked(broker.url) as link:
        await provision(link, Sizing(max_bytes=100_000))
        journal = Journal(link, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        await begin(journal, "op-0")
        assert "Room" in await findings(link)
        number = 0
        while "LittleRoom" not in (found := await findings(link)):
            number += 1
            await _begin_large(journal, f"high-{number}")
        assert found["LittleRoom"].level is Level.WARNING
        while (found := await findings(link))["LittleRoom"].level is Level.WARNING:
            number += 1
            await _begin_large(journal, f"high-{number}")
        assert "submits are refused" in found["LittleRoom"].message
        assert "--max-bytes" in found["LittleRoom"].next_step


async def test_a_full_account() -> None:
    """A limit of the account on the broker, for a journal without one."""
    limited = "accounts { APP { jetstream { max_file: 200KB }, users: [{ user: app, password: app }] } }"
    with Broker("limited", extra=f"{limited}\nno_auth_user: app") as broker:
        async with linked(broker.url) as link:
            await provision(link, Sizing())
            journal = Journal(link, max_msg_size=-1, clock=time.monotonic)
            await journal.start()
            assert "Room" in await findings(link)
            number = 0
            while "LittleRoom" not in (found := await findings(link)):
                number += 1
                await _begin_large(journal, f"high-{number}")
            assert found["LittleRoom"].message.startswith("the account has 1")
            assert found["LittleRoom"].next_step == "raise max_file of the account"


async def _begin_large(journal: Journal, operation_id: str) -> None:
    data = request(input=msgspec.json.encode({"title": "x" * 8_000}))
    event = first_event(operation_id, data, id=f"event-{operation_id}", source="test", time=datetime.now(UTC))
    await journal.append(KIND, event, NEW_OPERATION, budget=10)


@pytest.mark.usefixtures("impatient")
async def test_a_stopped_projector(link: Connection, journal: Journal) -> None:
    """Events that no projector reads are late, with the service to start."""
    await begin(journal, "op-1")
    found = (await findings(link))["ServiceStopped"]
    assert found.level is Level.CRITICAL
    assert "opstream projector" in found.next_step or "opstream webhooks" in found.next_step


@pytest.mark.usefixtures("impatient")
async def test_a_projector_that_died_with_messages(link: Connection, journal: Journal) -> None:
    """Messages that a dead process had stay in work for ever; it is stopped all the same. One that works is behind."""
    await admin.update_consumer(
        link, subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER, {"ack_wait": 300_000_000}
    )
    await begin(journal, "op-1")
    await begin(journal, "op-2")
    reader = PullConsumer(link, subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER, clock=time.monotonic)
    await reader.start()
    reader.add_demand(1)
    await reader.next()
    reader.add_demand(50)
    found = await findings(link)
    assert found["ServiceBehind"].message.startswith("the projector is ")
    await reader.stop()
    found = await findings(link)
    assert "ServiceBehind" not in found
    assert (found["ServiceStopped"].level, found["ServiceStopped"].next_step.split(";")[0]) == (
        Level.CRITICAL,
        "start 'opstream projector'",
    )
    assert "in work" in found["ServiceStopped"].message


@pytest.mark.usefixtures("impatient")
async def test_an_action_without_runner(link: Connection, journal: Journal) -> None:
    """Requests of an action that no runner reads."""
    await announce_action(link, spec(KIND))
    await ensure_runner_consumer(link, spec(KIND))
    await begin(journal, "op-1")
    found = (await findings(link))["ActionWithoutRunner"]
    assert f"1 message for {KIND} wait" in found.message


@pytest.mark.usefixtures("impatient")
async def test_a_timer_that_no_process_took(link: Connection, journal: Journal) -> None:
    """A deadline that is due, and that no projector reads."""
    await begin(journal, "op-1")
    await send_deadline(link, KIND, "op-1")
    await eventually(lambda: _has_due(link))
    found = (await findings(link))["TimerNotTaken"]
    assert (found.level, "due.book.upload-start.op-1" in found.message) == (Level.CRITICAL, True)


@pytest.mark.usefixtures("impatient")
async def test_a_timer_that_does_not_reach_the_journal(link: Connection) -> None:
    """A journal that copies nothing from TIMERS any more."""
    await admin.update_stream(link, subjects.OPERATIONS_STREAM, {"sources": []})
    await send_deadline(link, KIND, "op-1")
    assert (await findings(link))["TimerNotCopied"].level is Level.CRITICAL


async def test_a_timer_that_the_broker_does_not_fire(link: Connection, journal: Journal) -> None:
    """Its time is over, and it is still there. The broker looks for the header of a schedule with capitals only."""
    await begin(journal, "op-1")
    late = datetime.now(UTC) - timedelta(hours=3)
    timer = subjects.timer_subject(KIND, "op-1", "retry")
    await rpc.publish(link, timer, b"{}", {"nats-schedule": f"@at {late:%Y-%m-%dT%H:%M:%SZ}"})
    found = (await findings(link))["TimersOverdue"]
    assert (found.level, found.message) == (Level.CRITICAL, "the broker does not fire timers: one is 3 h late")
    assert "TIMERS has a leader" in found.next_step


async def test_a_timer_that_is_not_due(link: Connection, journal: Journal) -> None:
    """A timer of the future is no finding."""
    await begin(journal, "op-1")
    await schedule_deadline(link, KIND, "op-1", datetime.now(UTC) + timedelta(hours=1))
    assert "Timers" in await findings(link)


async def _has_due(link: Connection) -> bool:
    return await rpc.get_last(link, subjects.OPERATIONS_STREAM, subjects.DUE_DESTINATION) is not None


@pytest.mark.usefixtures("impatient")
async def test_a_lock_of_no_operation(link: Connection, journal: Journal) -> None:
    """A lock whose owner the journal does not have; that of an open operation is well."""
    await begin(journal, "open")
    for lock, owner in (("book.1", "open"), ("book.2", "gone")):
        claim = Claim(operation_id=owner, sequence=1, kind=str(KIND))
        subject = subjects.bucket_subject(subjects.HOLDS_BUCKET, f"h.{lock}")
        await rpc.publish(link, subject, msgspec.json.encode(claim), {})
    found = (await findings(link))["HoldOfEndedOperation"]
    assert found.message.startswith(
        "1 lock of operations that have ended, or that the journal lacks: book.2 of operation"
    )


async def test_receivers_of_webhooks_that_fail(link: Connection) -> None:
    """Deliveries that wait for another attempt, the first for minutes, name their endpoint. One that failed just now,
    one that waits for its first attempt, and clients' own callbacks need no action."""
    assert (await findings(link))["Deliveries"].level is Level.OK
    store, now = DeliveryStore(link), datetime.now(UTC)
    for endpoint, attempt, minutes in (("down", 2, 6), ("down", 3, 9), ("slow", 2, 1), ("new", 1, 9)):
        await store.schedule(_delivery(endpoint, attempt, now - timedelta(minutes=minutes)), now + timedelta(hours=1))
    found = (await findings(link))["DeliveriesFail"]
    assert found.level is Level.WARNING
    assert found.message.startswith("2 deliveries to the endpoint down failed and wait for another attempt, the first")
    assert "540 s" in found.message or "541 s" in found.message
    await link.nc.jetstream().purge_stream(subjects.WEBHOOKS_STREAM)
    await store.schedule(_delivery(CALLBACK_ENDPOINT, 2, now - timedelta(minutes=6)), now + timedelta(hours=1))
    assert (await findings(link))["DeliveriesFail"].level is Level.NOTE


def _delivery(endpoint: str, attempt: int, begun: datetime) -> WebhookDelivery:
    fields = {"operation_id": f"op-{attempt}", "action": str(KIND), "event": "succeeded", "sequence": 1}
    return WebhookDelivery(endpoint=endpoint, attempt=attempt, begun=begun, **fields)  # type: ignore[arg-type]


async def test_a_service_with_a_wrong_clock(link: Connection, journal: Journal) -> None:
    """A process whose events come from the future is named."""
    at = datetime.now(UTC) + timedelta(minutes=10)
    event = first_event("op-1", request(), id="event-1", source="opstream/fast", time=at)
    await journal.append(KIND, event, NEW_OPERATION, budget=10)
    found = (await findings(link))["ClockSkew"]
    assert "the clock of opstream/fast is 600 s ahead of the broker's" in found.message


@pytest.mark.parametrize(("minutes", "where"), [(10, "600 s ahead of"), (-10, "600 s behind")])
async def test_the_own_clock_is_wrong(
    link: Connection, monkeypatch: pytest.MonkeyPatch, minutes: int, where: str
) -> None:
    """The clock of the machine on which the command runs is compared with the broker's, too."""

    class WrongClock(datetime):
        """The time of a machine whose clock is off."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(minutes=minutes)

    monkeypatch.setattr(examination, "datetime", WrongClock)
    found = (await findings(link))["ClockSkew"]
    assert found.message == f"the clock of this machine is {where} the broker's"
    assert "NTP" in found.next_step


async def test_many_subjects(link: Connection, journal: Journal) -> None:
    """A stream with more subjects than a broker should keep."""
    for number in range(3):
        await begin(journal, f"op-{number}")
    info = await admin.stream_info(link, subjects.OPERATIONS_STREAM)
    assert info is not None
    (found,) = broker_checks.check_subjects([info], most=2)
    assert (found.name, "OPERATIONS 3" in found.message) == ("ManySubjects", True)


async def test_a_login_that_may_not_see_all(tmp_path: Path) -> None:
    """An admin sees everything. With another role's login the finding says whose to take."""
    with RoleBroker(tmp_path, []) as roles:
        admin_link, webhooks_link, auditor_link = [await roles.connect(one) for one in ("admin", "webhooks", "auditor")]
        try:
            await provision(admin_link, Sizing())
            assert await needed(admin_link) == set()
            found = (await findings(webhooks_link))["NotExamined"]
            assert "the login of the role admin" in found.next_step
            parts = await Examination(auditor_link, watch=0.5).run()
            unknown = [one for one in parts if one.name == "NotExamined"]
            assert {(one.level, "the login of the role admin" in one.next_step) for one in unknown} == {
                (Level.WARNING, True)
            }
            assert "streams and consumers" in unknown[0].message
            assert "SingleServer" in {one.name for one in parts}
        finally:
            await auditor_link.close()
            await webhooks_link.close()
            await admin_link.close()


async def test_a_sealed_catalog(link: Connection) -> None:
    """That the catalog is sealed is the operator's choice, as for `provision`, and no finding."""
    await provision(link, Sizing(), is_sealing=True)
    assert await needed(link) == set()


async def test_a_cluster(cluster: Cluster) -> None:
    """One copy in a cluster is too few; a server that is down is named; both copies and leader are well before."""
    async with linked(cluster.nodes[0].url) as link:  # which stays
        await provision(link, Sizing())
        assert "opstream provision --update --replicas 3" in (await findings(link))["FewReplicas"].next_step
        await provision(link, Sizing(replicas=3), is_update=True)
        await eventually(lambda: _is_current(link), within=30, poll=0.2)
        leader = await cluster.leader(subjects.OPERATIONS_STREAM)
        first = cluster.nodes[2] if leader is cluster.nodes[0] else leader
        first.kill()
        found = {one.name: one.message for one in await Examination(link, watch=0.5).run()}  # waits for an election
        unwanted = {"NotExamined", "JournalHasNoLeader", "StreamWithoutLeader", "ServiceBehind"}
        assert {name: text for name, text in found.items() if name in unwanted} == {}
        behind = await eventually(lambda: _behind(link), within=40, poll=0.5)
        assert behind.level is Level.WARNING
        assert first.name in behind.message
        assert first.name in behind.next_step
        (cluster.nodes[1] if first is cluster.nodes[2] else cluster.nodes[2]).kill()
        lost = await eventually(lambda: _without_leader(link), within=40, poll=0.5)
        assert lost.level is Level.CRITICAL
        assert "start the servers of the cluster that are down" in lost.next_step


async def _is_current(link: Connection) -> bool:
    return "Replicas" in await findings(link)


async def _without_leader(link: Connection) -> SystemFinding | None:
    return (await findings(link)).get("JournalHasNoLeader")


async def _behind(link: Connection) -> SystemFinding | None:
    return (await findings(link)).get("ReplicaBehind")
