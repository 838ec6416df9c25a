"""Provisioning: makes what is missing, hides no difference, changes what is safe and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from opstream_journal import BrokerRefused, Connection, Drifted, ForeignStream, JournalUnavailable, NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.provision import (
    ProvisionReport,
    check_provisioned,
    current_sizing,
    ensure_runner_consumer,
    provision,
)
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.action_catalog import announce_action
from opstream_schemas import subjects
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec, Policy
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

STREAM = subjects.OPERATIONS_STREAM
VIEW = subjects.bucket_stream(subjects.VIEW_BUCKET)
ALL = (
    "stream TIMERS",
    "stream OPERATIONS",
    "stream KV_operations",
    "stream KV_actions",
    "stream KV_holds",
    "stream WEBHOOKS",
    "stream DELIVERIES",
    "stream KV_access",
    "stream ACCESS_LOG",
    "stream KV_runners",
    "stream SCHEDULES",
    "stream KV_controls",
    "stream OBJ_payloads",
    "stream KV_operation_keys",
    "consumer projector",
    "consumer projector_due",
    "consumer projector_deadlines",
    "consumer webhooks",
    "consumer webhooks_due",
    "consumer runner_operations_retry",
    "consumer runner_operations_cancel",
)
NOTHING = ProvisionReport(made=(), updated=(), drift=())
SECOND = 1_000_000_000


def spec(**policy: Any) -> ActionSpec:
    return ActionSpec(
        resource="book",
        action="upload-start",
        summary="",
        action_version=1,
        input_schema={},
        result_schema={},
        policy=Policy(**policy),
    )


RUNNER = subjects.runner_consumer(spec().kind)


@pytest.fixture
async def bare(broker: Broker) -> AsyncIterator[Connection]:
    """A connection to a broker on which nothing was provisioned."""
    async with linked(broker.url) as link:
        yield link


async def api(link: Connection, what: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the broker itself says."""
    payload = b"" if request is None else json.dumps(request).encode()
    answer = json.loads((await link.nc.request(f"$JS.API.{what}", payload, timeout=5)).data)
    assert "error" not in answer, answer
    return answer


async def config(link: Connection, stream: str, consumer: str = "") -> dict[str, Any]:
    what = f"CONSUMER.INFO.{stream}.{consumer}" if consumer else f"STREAM.INFO.{stream}"
    found: dict[str, Any] = (await api(link, what))["config"]
    return found


async def change(link: Connection, stream: str, **changes: Any) -> None:
    """What an operator changed by hand."""
    await api(link, f"STREAM.UPDATE.{stream}", await config(link, stream) | changes)


async def change_consumer(link: Connection, name: str, **changes: Any) -> None:
    changed = {k: v for k, v in (await config(link, STREAM, name) | changes).items() if v is not None}
    request = {"stream_name": STREAM, "config": changed, "action": "update"}
    await api(link, f"CONSUMER.CREATE.{STREAM}.{name}", request)


async def remake(link: Connection, stream: str, **changes: Any) -> None:
    """A stream that was created otherwise from the start."""
    wanted = {k: v for k, v in (await config(link, stream) | changes).items() if v is not None}
    await api(link, f"STREAM.DELETE.{stream}")
    await api(link, f"STREAM.CREATE.{stream}", wanted)


async def test_everything_is_made_once(bare: Connection) -> None:
    """The first run makes everything, the second finds nothing to do, and services find what they need."""
    assert await provision(bare, Sizing()) == ProvisionReport(made=ALL, updated=(), drift=())
    assert await provision(bare, Sizing()) == NOTHING
    assert await provision(bare, Sizing(), is_update=True) == NOTHING
    assert await check_provisioned(bare) == Sizing().max_msg_size


async def test_two_at_once(broker: Broker, bare: Connection) -> None:
    """Two runs at the same time make everything once, and neither fails."""
    async with linked(broker.url) as other:
        reports = await asyncio.gather(provision(bare, Sizing()), provision(other, Sizing()))
    assert {name for report in reports for name in report.made} == set(ALL)
    assert [report.drift for report in reports] == [(), ()]


async def test_what_is_missing_is_made_again(link: Connection) -> None:
    """A consumer that was deleted is missed by services and made again."""
    await api(link, f"CONSUMER.DELETE.{STREAM}.{subjects.PROJECTOR_CONSUMER}")
    with pytest.raises(NotProvisioned, match="no consumer projector: run 'opstream provision'"):
        await check_provisioned(link)
    assert (await provision(link, Sizing())).made == ("consumer projector",)
    await check_provisioned(link)


async def test_a_bare_broker(bare: Connection) -> None:
    """On a broker without anything, services say what to run."""
    with pytest.raises(NotProvisioned, match="no stream TIMERS: run 'opstream provision'"):
        await check_provisioned(bare)
    with pytest.raises(NotProvisioned, match="no stream OPERATIONS: run 'opstream provision'"):
        await ensure_runner_consumer(bare, spec())
    assert await current_sizing(bare) is None


async def test_sizes_are_read_back(bare: Connection) -> None:
    """The sizing that a journal was created with can be read."""
    sizing = Sizing(max_age=40 * DAY_SECONDS, max_bytes=10_000_000, max_msg_size=300_000)
    await provision(bare, sizing)
    assert await current_sizing(bare) == sizing
    assert await check_provisioned(bare) == 300_000
    assert await provision(bare, sizing) == NOTHING


async def test_unlimited_sizes(bare: Connection) -> None:
    """Sizes without limit stay without limit, and are no drift."""
    sizing = Sizing(max_age=0, max_bytes=-1, max_msg_size=-1)
    await provision(bare, sizing)
    assert await provision(bare, sizing) == NOTHING
    assert await check_provisioned(bare) == -1


SAFE_STREAM_CHANGES = [
    (STREAM, {"subjects": ["operations.*.*.*.requested"]}, "subjects"),
    (STREAM, {"sources": None}, "sources"),
    (STREAM, {"discard": "old"}, "discard"),
    (STREAM, {"duplicate_window": 7 * SECOND}, "duplicate_window"),
    (STREAM, {"allow_direct": False}, "allow_direct"),
    (STREAM, {"max_age": 9 * 86_400 * SECOND}, "max_age"),
    (STREAM, {"max_bytes": 10_000_000}, "max_bytes"),
    (STREAM, {"max_msg_size": 10_000}, "max_msg_size"),
    (STREAM, {"max_msgs_per_subject": 5}, "max_msgs_per_subject"),
    ("TIMERS", {"max_age": 86_400 * SECOND}, "max_age"),
    (VIEW, {"max_age": 86_400 * SECOND}, "max_age"),
]


@pytest.mark.parametrize(("stream", "changes", "field"), SAFE_STREAM_CHANGES)
async def test_safe_drift_of_a_stream(link: Connection, stream: str, changes: dict[str, Any], field: str) -> None:
    """Each difference that can be undone without loss is reported, left alone, and undone on request."""
    wanted = await config(link, stream)
    await change(link, stream, **changes)
    changed = await config(link, stream)
    report = await provision(link, Sizing())
    assert [(one.name, one.field, one.is_safe) for one in report.drift] == [(f"stream {stream}", field, True)]
    assert (report.updated, await config(link, stream)) == ((), changed)
    report = await provision(link, Sizing(), is_update=True)
    assert (len(report.updated), report.drift) == (1, ())
    assert await config(link, stream) == wanted
    assert await provision(link, Sizing()) == NOTHING


NEWER = "operations.*.*.*.from-tomorrow"
"""The subject of an event type that only a newer version has."""


async def test_event_types_of_a_newer_version(link: Connection) -> None:
    """Services start beside a newer version, and after a rollback from it. An update puts right what is missing, and
    takes nothing from the newer version's runners."""
    wanted = (await config(link, STREAM))["subjects"]
    await change(link, STREAM, subjects=[*wanted, NEWER])
    await check_provisioned(link)
    kept = (f"stream {STREAM} takes {NEWER}, as a newer version of opstream needs",)
    for is_update in (False, True):
        report = await provision(link, Sizing(), is_update=is_update)
        assert report == ProvisionReport(made=(), updated=(), drift=(), kept=kept)

    await change(link, STREAM, subjects=[*wanted[1:], NEWER])
    with pytest.raises(Drifted, match=r"subjects is .*opstream provision --update"):
        await check_provisioned(link)
    report = await provision(link, Sizing(), is_update=True)
    assert (len(report.updated), report.drift, report.kept) == (1, (), kept)
    assert set((await config(link, STREAM))["subjects"]) == {*wanted, NEWER}


@pytest.mark.parametrize("subject", ["tomorrow.>", "operations.book.*.*.from-tomorrow", "operations.*.*.*.*"])
async def test_subjects_of_nobody(link: Connection, subject: str) -> None:
    """What is no event type of opstream is a difference, and an update removes it."""
    wanted = await config(link, STREAM)
    others = [one for one in wanted["subjects"] if subject != "operations.*.*.*.*"]
    await change(link, STREAM, subjects=[*others, subject])
    with pytest.raises(Drifted, match="subjects is"):
        await check_provisioned(link)
    assert (await provision(link, Sizing(), is_update=True)).drift == ()
    assert (await config(link, STREAM))["subjects"] == wanted["subjects"]


@pytest.mark.parametrize(
    ("stream", "changes", "field"),
    [
        (STREAM, {"deny_delete": False}, "deny_delete"),
        (STREAM, {"deny_purge": False}, "deny_purge"),
        (VIEW, {"allow_msg_ttl": False}, "allow_msg_ttl"),
        ("TIMERS", {"allow_msg_schedules": False}, "allow_msg_schedules"),
    ],
)
async def test_switches_that_were_never_on(link: Connection, stream: str, changes: dict[str, Any], field: str) -> None:
    """What can be switched on but not off again is switched on on request; services refuse to work without it."""
    await remake(link, stream, **changes)
    report = await provision(link, Sizing())
    assert [(one.field, one.is_safe) for one in report.drift] == [(field, True)]
    with pytest.raises(Drifted, match=rf"{field} is False, should be True.*opstream provision --update"):
        await check_provisioned(link)
    assert (await provision(link, Sizing(), is_update=True)).drift == ()


@pytest.mark.parametrize(
    ("stream", "changes", "field"),
    [
        ("TIMERS", {"retention": "limits"}, "retention"),
        (VIEW, {"storage": "memory"}, "storage"),
        (VIEW, {"max_msgs_per_subject": 5}, "max_msgs_per_subject"),
    ],
)
async def test_unsafe_drift_of_a_stream(link: Connection, stream: str, changes: dict[str, Any], field: str) -> None:
    """What can't be undone without loss is reported also after an update, which leaves it alone."""
    await remake(link, stream, **changes)
    before = await config(link, stream)
    report = await provision(link, Sizing(), is_update=True)
    assert [(one.field, one.is_safe) for one in report.drift] == [(field, False)]
    assert (report.updated, await config(link, stream)) == ((), before)
    with pytest.raises(Drifted, match="recreate"):
        await check_provisioned(link)


@pytest.mark.parametrize(
    "sizing", [{"max_age": 20 * DAY_SECONDS}, {"max_bytes": 50_000_000}, {"max_msg_size": 280_000}], ids=str
)
async def test_sizes_only_grow(bare: Connection, sizing: dict[str, float]) -> None:
    """A smaller size than the present one is not applied: it would delete events, or refuse outcomes."""
    large: dict[str, Any] = {field: 2 * value for field, value in sizing.items()}
    await provision(bare, Sizing(**large))
    report = await provision(bare, Sizing(**sizing), is_update=True)  # type: ignore[arg-type]
    assert [(one.field, one.is_safe) for one in report.drift] == [(*sizing, False)]
    found = await current_sizing(bare)
    assert found is not None
    assert getattr(found, *sizing) == large[next(iter(sizing))]


async def test_the_rest_stays(link: Connection) -> None:
    """An update changes what differs, and keeps all that an operator set besides."""
    kept = {
        "description": "ours",
        "compression": "s2",
        "max_consumers": 50,
        "metadata": {"team": "library"},
        "republish": {"src": "operations.>", "dest": "copies.operations.>"},
        "consumer_limits": {"max_ack_pending": 20_000},
    }
    await change(link, STREAM, **kept, duplicate_window=7 * SECOND)
    await change_consumer(link, "projector", description="ours", max_ack_pending=5, metadata={"team": "library"})
    await provision(link, Sizing(), is_update=True)
    found = await config(link, STREAM)
    assert found["duplicate_window"] == 15 * SECOND
    assert found["metadata"].pop("team") == "library"
    assert {key: found[key] for key in kept if key != "metadata"} == {k: v for k, v in kept.items() if k != "metadata"}
    found = await config(link, STREAM, "projector")
    assert (found["max_ack_pending"], found["description"], found["metadata"]["team"]) == (10_000, "ours", "library")
    assert await provision(link, Sizing()) == NOTHING
    await check_provisioned(link)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ack_wait": 5 * SECOND}, "ack_wait"),
        ({"max_ack_pending": 5}, "max_ack_pending"),
        ({"max_deliver": 3}, "max_deliver"),
        ({"filter_subjects": None, "filter_subject": "wake.>"}, "filter_subjects"),
        ({"headers_only": True}, "headers_only"),
        ({"inactive_threshold": 3600 * SECOND}, "inactive_threshold"),
    ],
)
async def test_drift_of_a_consumer(link: Connection, changes: dict[str, Any], field: str) -> None:
    """Each difference of a consumer is refused by services, and undone on request."""
    wanted = await config(link, STREAM, "projector_due")
    await change_consumer(link, "projector_due", **changes)
    with pytest.raises(Drifted, match=rf"consumer projector_due: {field} is .*opstream provision --update"):
        await check_provisioned(link)
    report = await provision(link, Sizing(), is_update=True)
    assert [one.partition(" is ")[0] for one in report.updated] == [f"consumer projector_due: {field}"]
    assert await config(link, STREAM, "projector_due") == wanted
    await check_provisioned(link)


async def test_sizing_is_the_operators(link: Connection) -> None:
    """Services work with any sizing of the journal."""
    await change(link, STREAM, max_age=9 * 86_400 * SECOND, max_bytes=10_000_000, max_msg_size=10_000)
    assert await check_provisioned(link) == 10_000


@pytest.mark.parametrize("stream", ["TIMERS", VIEW])
async def test_other_streams_must_not_age(link: Connection, stream: str) -> None:
    """Services refuse a limit that would take wakes or snapshots away."""
    await change(link, stream, max_age=3600 * SECOND)
    with pytest.raises(Drifted, match=f"stream {stream}: max_age is 1h, should be unlimited"):
        await check_provisioned(link)


@pytest.mark.parametrize(
    ("specs", "needed"),
    [
        ([], 3 * DAY_SECONDS),
        ([spec()], 3 * DAY_SECONDS),
        ([spec(deadline=3600, retention=DAY_SECONDS), spec(deadline=9 * DAY_SECONDS)], 11 * DAY_SECONDS),
        (
            [spec(retention=7 * DAY_SECONDS, retention_failed=90 * DAY_SECONDS), spec(deadline=9 * DAY_SECONDS)],
            92 * DAY_SECONDS,
        ),
        ([spec(retention_canceled=3 * DAY_SECONDS)], 5 * DAY_SECONDS),
    ],
)
async def test_too_short_an_age(bare: Connection, specs: list[ActionSpec], needed: float) -> None:
    """A journal that would forget operations before their status does is refused before anything is made."""
    with pytest.raises(Drifted, match=f"Use {needed / DAY_SECONDS:g}d or more"):
        await provision(bare, Sizing(max_age=needed - 1), specs)
    assert (await api(bare, "STREAM.NAMES"))["streams"] is None
    await provision(bare, Sizing(max_age=needed), specs)


async def test_a_runners_consumer(link: Connection) -> None:
    """A runner makes the consumer of its action once, whatever its lease is."""
    for lease in (30.0, 2.5, 0.1, 1.001, 4.007):
        action = msgspec.structs.replace(spec(lease=lease), action=f"a-{int(lease * 1000)}")
        await ensure_runner_consumer(link, action)
        await ensure_runner_consumer(link, action)
        assert await provision(link, Sizing(), [action]) == NOTHING


async def test_runners_that_start_at_once(broker: Broker, link: Connection) -> None:
    """Of runners that make one consumer at once with different leases, one kind wins and the other is refused."""
    async with linked(broker.url) as other:
        for number in range(20):
            pair = [msgspec.structs.replace(spec(lease=lease), action=f"a-{number}") for lease in (5.0, 6.0)]
            answers = await asyncio.gather(
                *(ensure_runner_consumer((link, other)[n], pair[n]) for n in (0, 1)), return_exceptions=True
            )
            assert sorted(type(answer) for answer in answers if answer is not None) == [Drifted]
            winner = pair[answers.index(None)]
            found = await config(link, STREAM, subjects.runner_consumer(winner.kind))
            assert found["ack_wait"] == winner.policy.lease * SECOND


async def test_a_runners_consumer_that_differs(link: Connection) -> None:
    """A runner refuses a consumer that differs and leaves it alone; an operator can change it."""
    await ensure_runner_consumer(link, spec(lease=30))
    before = await config(link, STREAM, RUNNER)
    with pytest.raises(
        Drifted, match=r"ack_wait is 30s, should be 60s\. run 'opstream provision --update' with the same"
    ):
        await ensure_runner_consumer(link, spec(lease=60))
    assert await config(link, STREAM, RUNNER) == before
    report = await provision(link, Sizing(), [spec(lease=60)])
    assert [str(one) for one in report.drift] == [f"consumer {RUNNER}: ack_wait is 30s, should be 60s"]
    assert (await provision(link, Sizing(), [spec(lease=60)], is_update=True)).drift == ()
    await ensure_runner_consumer(link, spec(lease=60))


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_lease_is_not_shortened_under_runners(link: Connection, is_busy: bool) -> None:
    """While runners of the action pull or have messages, `--update` leaves all as it is and says what to do first."""
    await provision(link, Sizing())
    await ensure_runner_consumer(link, spec(lease=30))
    jetstream = link.nc.jetstream()
    pulling = await jetstream.pull_subscribe_bind(consumer=RUNNER, stream=STREAM)
    if is_busy:
        await jetstream.publish("operations.x.book.upload-start.requested", b"{}")
        (message,) = await pulling.fetch(1, timeout=5)
    else:
        waiting = asyncio.create_task(pulling.fetch(1, timeout=30))
        await eventually(lambda: is_pulled(link))
    with pytest.raises(Drifted, match=r"lease can't be shortened to 5 s while its runners are there.*: stop them"):
        await provision(link, Sizing(), [spec(lease=5)], is_update=True)
    assert (await config(link, STREAM, RUNNER))["ack_wait"] == 30 * SECOND
    assert (await provision(link, Sizing(), [spec(lease=60)], is_update=True)).drift == ()
    if is_busy:
        await message.ack_sync()
    else:
        await jetstream.publish("operations.x.book.upload-start.requested", b"{}")
        await (await waiting)[0].ack_sync()
    assert (await provision(link, Sizing(), [spec(lease=5)], is_update=True)).drift == ()


async def is_pulled(link: Connection) -> bool:
    """Return True if a process waits for the runner's messages."""
    return (await link.nc.jetstream().consumer_info(STREAM, RUNNER)).num_waiting == 1


async def test_a_runners_consumer_with_another_filter(link: Connection) -> None:
    """A consumer of that name that delivers something else is neither taken nor retargeted."""
    await api(
        link,
        f"CONSUMER.CREATE.{STREAM}.{RUNNER}",
        {
            "stream_name": STREAM,
            "config": {
                "durable_name": RUNNER,
                "filter_subject": "operations.*.car.wash.requested",
                "ack_policy": "explicit",
                "ack_wait": 30 * SECOND,
                "max_ack_pending": 1000,
                "max_waiting": 512,
            },
        },
    )
    before = await config(link, STREAM, RUNNER)
    with pytest.raises(Drifted, match="filter_subjects"):
        await ensure_runner_consumer(link, spec())
    assert await config(link, STREAM, RUNNER) == before


async def test_provision_makes_a_runners_consumer(link: Connection) -> None:
    """The consumer of an action is made once, as its runner would make it, which may lack the right to."""
    assert (await provision(link, Sizing(), [spec()])).made == (f"consumer {RUNNER}",)
    made = await config(link, STREAM, RUNNER)
    await ensure_runner_consumer(link, spec())
    assert await provision(link, Sizing(), [spec()], is_update=True) == NOTHING
    assert await config(link, STREAM, RUNNER) == made


async def test_a_sealed_catalog(link: Connection) -> None:
    """It takes actions and no rollups, and no service takes that for a difference; without --seal-catalog it stays."""
    assert (await provision(link, Sizing(), is_sealing=True)).updated == ("stream KV_actions takes no rollups",)
    assert await provision(link, Sizing(), is_update=True) == NOTHING
    await check_provisioned(link)
    assert await announce_action(link, spec())
    with pytest.raises(BrokerRefused, match="rollup not permitted"):
        await rpc.publish(link, "$KV.actions.other.one", b"{}", {"Nats-Rollup": "all"})


async def test_a_broker_without_jetstream() -> None:
    """The error for a broker without JetStream differs from the one for a broker that was not provisioned."""
    with Broker() as broker:
        text = broker._config.read_text()
        broker.stop()
        broker._config.write_text("\n".join(line for line in text.splitlines() if "jetstream" not in line))
        broker.start()
        async with linked(broker.url) as link:
            for question in (check_provisioned(link), provision(link, Sizing()), ensure_runner_consumer(link, spec())):
                with pytest.raises(JournalUnavailable, match="JetStream is not enabled on this broker"):
                    await question


async def test_a_broker_that_is_gone(broker: Broker, link: Connection) -> None:
    """Without a broker everything says so at once."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    for question in (
        check_provisioned(link),
        provision(link, Sizing()),
        ensure_runner_consumer(link, spec()),
        current_sizing(link),
    ):
        with pytest.raises(JournalUnavailable, match="connection is down"):
            await asyncio.wait_for(question, 0.2)
    broker.start()


async def test_what_the_broker_refuses(bare: Connection) -> None:
    """What the broker itself refuses is reported with its reason."""
    with pytest.raises(BrokerRefused, match="replicas"):
        await provision(bare, Sizing(replicas=3))


async def test_subjects_that_another_stream_has(bare: Connection) -> None:
    """A foreign stream on our subjects is named before anything is made, and not overwritten."""
    await api(bare, "STREAM.CREATE.FOREIGN", {"name": "FOREIGN", "subjects": ["timers.>"], "storage": "file"})
    with pytest.raises(
        ForeignStream, match=r"stream FOREIGN has messages on timers\.>, which opstream needs for TIMERS"
    ):
        await provision(bare, Sizing(), is_update=True)
    assert (await api(bare, "STREAM.NAMES"))["streams"] == ["FOREIGN"]
