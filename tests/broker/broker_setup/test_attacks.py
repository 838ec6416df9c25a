"""Each role attacks the broker with its own key. What counts is the effect on the streams, not the error."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from opstream_journal import Connection, JournalUnavailable, NotProvisioned
from opstream_journal.actions.action_controls import ENDLESS, ActionControls
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.queues.consumer_backlogs import read_backlogs
from opstream_journal.stores import dead_letters
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionPause, ActionSpec
from opstream_schemas.broker_access.permissions import API, ActionAccess, Grant, Role, Way, permissions
from opstream_schemas.bulk.kinds import BULK_KINDS
from opstream_schemas.events import EVENT_DATA
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.names import Kind
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM
from tests.support.broker.roles import RoleBroker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OWN, FOREIGN = Kind("book", "upload"), Kind("shop", "order")
DURABLE: Final = "mailer"
SCOPES: Final = {OWN: "action.book.upload", FOREIGN: "group.works"}
OWN_ACTIONS: Final = (ActionAccess(OWN, SCOPES[OWN]),)
LOGINS: Final = {
    "api": Role.API,
    "runner": Role.RUNNER,
    "projector": Role.PROJECTOR,
    "webhooks": Role.WEBHOOKS,
    f"subscriber-{DURABLE}": Role.SUBSCRIBER,
    "auditor": Role.AUDITOR,
}
OWN_STREAMS: Final = {
    Role.API: {"KV_operation_keys"},
    Role.RUNNER: {"TIMERS", "KV_holds"},
    Role.PROJECTOR: {"TIMERS", "KV_holds", "KV_operations", PAYLOADS_STREAM},
    Role.WEBHOOKS: {"WEBHOOKS"},
}
"""Streams that a stolen key can empty: what the role does there needs rollups or a purge (docs/broker-access.md)."""
SUBJECTS: Final = [
    *(subjects.event_subject("op1", kind, data.name) for kind in (OWN, FOREIGN, *BULK_KINDS) for data in EVENT_DATA),
    "$KV.operations.op1",
    "$KV.operations.opstream-probe",
    subjects.bucket_subject(subjects.ACCESS_BUCKET, subjects.access_key("abc")),
    subjects.bucket_subject(subjects.ACCESS_BUCKET, "secret"),
    *(f"$KV.actions.{kind.resource}.{kind.action}" for kind in (OWN, FOREIGN)),
    *(f"$KV.runners.{kind.resource}.{kind.action}.alive.one" for kind in (OWN, FOREIGN)),
    *(f"$KV.runners.{kind.resource}.{kind.action}.seen" for kind in (OWN, FOREIGN)),
    *(f"$KV.controls.{kind.resource}.{kind.action}" for kind in (OWN, FOREIGN)),
    *(f"$KV.operation_keys.{kind.resource}.{kind.action}.op1" for kind in (OWN, FOREIGN)),
    *(f"$KV.holds.h.{scope}.abc" for scope in SCOPES.values()),
    *(f"$KV.holds.w.{scope}.abc.00000000000000000001.op1" for scope in SCOPES.values()),
    *(f"$KV.holds.r.{kind.resource}.{kind.action}" for kind in (OWN, FOREIGN)),
    *(subjects.timer_subject(kind, "op1", "retry") for kind in (OWN, FOREIGN)),
    *(subjects.deadline_subject(kind, "op1") for kind in (OWN, FOREIGN)),
    *(subjects.fired_wake_subject(kind, "op1", "retry") for kind in (OWN, FOREIGN)),
    *(subjects.fired_deadline_subject(kind, "op1") for kind in (OWN, FOREIGN)),
    subjects.webhook_due_subject("billing", "op1"),
    subjects.webhook_later_subject("billing", "op1"),
    subjects.delivery_record_subject("op1", "billing", "delivered"),
    subjects.denial_subject(is_proven=True),
    subjects.denial_subject(is_proven=False),
    *(subjects.act_subject(act) for act in AdminAct),
    subjects.schedule_subject("nightly", "changed"),
    subjects.schedule_subject("nightly", "occurred"),
    subjects.dead_letter_subject(DURABLE, 1),
    subjects.dead_letter_subject("other", 1),
    f"$O.payloads.C.20261130.op1.{'1' * 32}.{'2' * 8}",
    "$O.payloads.M.b3AxLzEyMw==",
]
"""One of each kind."""
PASSING: Final = ("fire.", "overdue.")
"""Messages that the broker moves on at once."""


class Target:
    """A broker with something in every stream, and the operator's connection to it."""

    def __init__(self, broker: RoleBroker, operator: Connection) -> None:
        self.broker = broker
        self.operator = operator
        self.streams: list[str] = []
        self.consumers: list[tuple[str, str]] = []

    async def fill(self) -> None:
        """Store one message of each subject, and leave one of each consumer without an acknowledgement."""
        specs = [
            ActionSpec(
                resource=kind.resource,
                action=kind.action,
                summary="",
                action_version=1,
                input_schema={},
                result_schema={},
            )
            for kind in (OWN, FOREIGN)
        ]
        await provision(self.operator, Sizing(), specs, archive=ArchiveSizing(), is_sealing=True)
        await dead_letters.ensure_stream(self.operator)
        for durable in (DURABLE, "other"):
            config = ConsumerConfig(durable_name=durable, ack_policy=AckPolicy.EXPLICIT, ack_wait=3600.0)
            await admin.create_consumer(self.operator, subjects.OPERATIONS_STREAM, config)
        for subject in SUBJECTS:
            await self.operator.nc.request(subject, b'{"kept": true}', timeout=5)
        await eventually(self.has_moved_on, within=30)
        names = msgspec.json.decode((await self.ask("STREAM.NAMES")).data)["streams"]
        self.streams = sorted(names)
        for stream in self.streams:
            listed = msgspec.json.decode((await self.ask(f"CONSUMER.NAMES.{stream}")).data)["consumers"]
            self.consumers += [(stream, name) for name in listed]

    async def has_moved_on(self) -> bool:
        """Return True once the broker has copied to the journal what has fired, and to the archive the events."""
        kept = {"TIMERS": "timers.", "ARCHIVE": "operations."}
        for stream, first in kept.items():
            info = msgspec.json.decode((await self.ask(f"STREAM.INFO.{stream}")).data)
            if info["state"]["messages"] != sum(one.startswith(first) for one in SUBJECTS):
                return False
        return True

    async def ask(self, what: str, body: Any = None) -> Any:
        payload = b"" if body is None else msgspec.json.encode(body)
        return await self.operator.nc.request(f"{API}.{what}", payload, timeout=5)

    async def pull(self, stream: str, consumer: str) -> None:
        """Have a message delivered to the operator, and leave it without an acknowledgement."""
        nc = self.operator.nc
        body = b'{"batch": 1, "no_wait": true}'
        await nc.publish(f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}", body, reply=nc.new_inbox())
        await nc.flush()

    async def state(self) -> dict[str, Any]:
        """All that an attack could change: messages and configuration of streams, and positions of consumers."""
        names = msgspec.json.decode((await self.ask("STREAM.NAMES")).data)["streams"]
        found: dict[str, Any] = {"streams": sorted(names)}
        for stream in self.streams:
            info = msgspec.json.decode((await self.ask(f"STREAM.INFO.{stream}")).data)
            state = {key: info["state"][key] for key in ("messages", "bytes", "first_seq", "last_seq")}
            consumers = msgspec.json.decode((await self.ask(f"CONSUMER.LIST.{stream}")).data)["consumers"] or []
            positions = {
                one["name"]: (one["config"], one["delivered"]["stream_seq"], one["ack_floor"], one["num_ack_pending"])
                for one in consumers
                if not one["name"].startswith("__")  # the broker's own, of a source
            }
            found[stream] = (state, info["config"], positions)
        return found

    async def last(self, stream_subjects: list[str]) -> dict[str, int]:
        """The sequence of the last message of each subject."""
        found = {}
        for subject in stream_subjects:
            stream = stream_of(subject)
            answer = msgspec.json.decode((await self.ask(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})).data)
            found[subject] = answer.get("message", {}).get("seq", 0)
        return found

    async def settled(self) -> dict[str, Any]:
        """The state once it does not change any more: the broker copies to the archive and moves timers on."""
        before: dict[str, Any] = {}
        while (now := await self.state()) != before:
            before = now
            await asyncio.sleep(0.2)
        return now


def stream_of(subject: str) -> str:
    first, *rest = subject.split(".")
    if first == "$KV":
        return f"KV_{rest[0]}"
    if first == "$O":
        return PAYLOADS_STREAM
    return "TIMERS" if first in {"timers", "fire", "overdue"} else first.upper()


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    with RoleBroker(tmp_path, OWN_ACTIONS, durables=[DURABLE]) as broker:
        operator = await broker.connect("admin")
        target = Target(broker, operator)
        await target.fill()
        yield target
        await operator.close()


def grants(role: Role) -> tuple[Grant, ...]:
    return permissions(role, actions=OWN_ACTIONS, durable=DURABLE)


def may(role: Role, subject: str, *ways: Way) -> bool:
    """Return True if the table lets a role use a subject."""
    return any(_matches(one.subject, subject) for one in grants(role) if one.way in (ways or (Way.REQUEST, Way.STREAM)))


def _matches(pattern: str, subject: str) -> bool:
    parts, tokens = pattern.split("."), subject.split(".")
    for part, token in itertools.zip_longest(parts, tokens):
        if part == ">":
            return token is not None
        if part is None or token is None or part not in {"*", token}:
            return False
    return True


def forbidden(role: Role) -> list[str]:
    return [subject for subject in SUBJECTS if not may(role, subject)]


def calls(target: Target) -> Iterator[tuple[str, Any]]:
    """Calls of JetStream's API that change something, with their bodies."""
    push = {"deliver_subject": "$KV.operations.op9", "ack_policy": "none", "deliver_policy": "all"}
    yield "STREAM.CREATE.EVIL", {"name": "EVIL", "subjects": ["evil"], "storage": "memory"}
    for what in ("ACCOUNT.PURGE.OPSTREAM", "SERVER.REMOVE", "META.LEADER.STEPDOWN"):
        yield what, {}
    for stream in target.streams:
        yield f"STREAM.UPDATE.{stream}", {"name": stream, "subjects": ["evil"], "storage": "file"}
        yield f"STREAM.MSG.DELETE.{stream}", {"seq": 1}
        yield f"STREAM.PURGE.{stream}", {}
        yield f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": "evil"}
        yield f"STREAM.LEADER.STEPDOWN.{stream}", {}
        yield f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": push}
        for form in (f"CONSUMER.CREATE.{stream}.evil", f"CONSUMER.CREATE.{stream}.evil.>"):
            yield form, {"stream_name": stream, "config": {**push, "name": "evil"}, "action": "create"}
        yield (
            f"CONSUMER.DURABLE.CREATE.{stream}.evil",
            {"stream_name": stream, "config": {**push, "durable_name": "evil"}},
        )
        yield f"STREAM.DELETE.{stream}", {}
    for stream, name in target.consumers:
        changed = {"stream_name": stream, "config": {"durable_name": name, "ack_policy": "explicit", "ack_wait": 10**9}}
        yield f"CONSUMER.CREATE.{stream}.{name}", changed
        yield f"CONSUMER.PAUSE.{stream}.{name}", {"pause_until": "2100-01-01T00:00:00Z"}
        yield f"CONSUMER.RESET.{stream}.{name}", {"seq": 1}
        yield f"CONSUMER.MSG.NEXT.{stream}.{name}", {"batch": 10, "no_wait": True}
        yield f"CONSUMER.DELETE.{stream}.{name}", {}


@pytest.mark.parametrize("login", LOGINS)
async def test_what_is_not_granted_has_no_effect(target: Target, login: str) -> None:
    """No forbidden write, call, acknowledgement or reply of a read changes a stream, a consumer or a configuration."""
    role = LOGINS[login]
    for stream, name in target.consumers:
        if stream in {"OPERATIONS", "WEBHOOKS"} and not name.startswith("__"):
            await target.pull(stream, name)
    before = await target.settled()
    attacker = await target.broker.connect(login)
    nc = attacker.nc
    inbox = nc.new_inbox()
    for subject in forbidden(role):
        for headers in ({}, {"Nats-Rollup": "all"}, {"Nats-Rollup": "sub"}, _schedule(subject)):
            await nc.publish(subject, b"evil", reply=inbox, headers=headers or None)
    for call, body in calls(target):
        if not may(role, f"{API}.{call}"):
            for prefix in (API, "JS.ops"):
                await nc.publish(f"{prefix}.{call}", msgspec.json.encode(body), reply=inbox)
    for stream, name in target.consumers:
        if not may(role, f"$JS.ACK.{stream}.{name}.x"):
            for sequence in range(1, 40):
                await nc.publish(f"$JS.ACK.{stream}.{name}.1.{sequence}.1.1700000000000000000.0", b"+ACK")
    hostile = [*forbidden(role), f"{API}.STREAM.PURGE.KV_actions", "$JS.ACK.OPERATIONS.other.1.1.1.1.0"]
    for grant in grants(role):
        if grant.subject.startswith(API) and grant.way in {Way.REQUEST, Way.STREAM} and ".PURGE." not in grant.subject:
            if "MSG.NEXT" in grant.subject or "MSG.DELETE" in grant.subject:
                continue  # it takes or destroys a message, which it may; see the other test
            subject = grant.subject.replace("*", "OPERATIONS").replace(">", "op1")
            for reply in hostile:
                await nc.publish(subject, b'{"seq": 1}', reply=reply)
    await nc.flush()
    assert await target.settled() == before
    await attacker.close()


@pytest.mark.parametrize("login", LOGINS)
async def test_what_is_granted_does_no_more(target: Target, login: str) -> None:
    """A message that a role may send empties no stream of others, whatever its headers, and its answer is stored in no
    stream that the role may not write to; nor does a schedule write there."""
    role = LOGINS[login]
    await target.settled()
    kept = await target.last([one for one in forbidden(role) if not one.startswith(PASSING)])
    before = await target.state()
    attacker = await target.broker.connect(login)
    nc = attacker.nc
    for grant in grants(role):
        if grant.way in {Way.LISTEN, Way.SERVE}:
            continue
        if grant.subject.startswith(API) and "MSG.NEXT" not in grant.subject:
            continue
        subject = grant.subject.replace("*", "x1").replace(">", "x1")
        for reply in [*kept, nc.new_inbox()]:
            headers: Mapping[str, str]
            for headers in ({}, {"Nats-Rollup": "all"}, _schedule(reply)):
                await nc.publish(subject, b'{"batch": 1, "no_wait": true}', reply=reply, headers=dict(headers) or None)
    await nc.flush()
    after = await target.settled()
    own = OWN_STREAMS.get(role, set())
    for subject, sequence in (await target.last(list(kept))).items():
        assert sequence == kept[subject] or (sequence == 0 and stream_of(subject) in own), subject
    for stream in target.streams:
        assert stream in own or after[stream][0]["messages"] >= before[stream][0]["messages"], stream
    await attacker.close()


async def test_the_api_pauses_its_actions_only(target: Target) -> None:
    """It may pause and resume the actions that `broker-config` named. With its key nobody pauses another one, nor the
    projector, which would stop every status and deadline."""
    attacker = await target.broker.connect("api")
    controls = ActionControls(attacker)
    assert await controls.pause(OWN, ActionPause(by="ann"))
    assert (await controls.of(OWN)).pause == ActionPause(by="ann")
    with pytest.raises(NotProvisioned, match="opstream broker-config"):
        await controls.pause(FOREIGN, ActionPause())
    for consumer in (subjects.runner_consumer(FOREIGN), subjects.PROJECTOR_CONSUMER, subjects.WEBHOOKS_CONSUMER):
        with pytest.raises(JournalUnavailable):
            await admin.pause_consumer(attacker, subjects.OPERATIONS_STREAM, consumer, ENDLESS)
    found = await read_backlogs(target.operator, subjects.OPERATIONS_STREAM)
    assert [name for name, one in found.items() if one.paused] == [subjects.runner_consumer(OWN)]
    assert await controls.resume(OWN)
    await attacker.close()


@pytest.mark.parametrize("subject", ["$KV.operations.op1", "operations.op1.book.upload.succeeded"])
async def test_one_account_would_not_do(target: Target, subject: str) -> None:
    """The attack by a reply is real: within the account of the streams the answer of a read is stored, and a call with
    the operator's key has its effect."""
    before = await target.last([subject])
    await target.operator.nc.publish(f"{API}.STREAM.MSG.GET.KV_operations", b'{"seq": 1}', reply=subject)
    await target.operator.nc.flush()
    await target.settled()
    assert (await target.last([subject]))[subject] > before[subject]
    await target.ask("STREAM.PURGE.KV_holds", {})
    assert (await target.state())["KV_holds"][0]["messages"] == 0


def _schedule(subject: str) -> dict[str, str]:
    return {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": subject}


@pytest.mark.parametrize("login", LOGINS)
async def test_a_spy_sees_what_its_role_may_hear(target: Target, login: str) -> None:
    """A subscription to everything gets no message, request, answer or delivery of others but those that the table lets
    the role hear."""
    role = LOGINS[login]
    spy = await target.broker.connect(login)
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    for pattern in (">", "_INBOX.>", "_R_.>", "$JS.>", "$KV.>", "operations.>", "$SYS.>", "*.*", "*.*.*"):
        await spy.nc.subscribe(pattern, cb=hear)
    await spy.nc.flush()
    other = await target.broker.connect("projector" if login != "projector" else "api")
    for _ in range(3):
        await other.nc.request(f"{API}.STREAM.INFO.OPERATIONS", b"", timeout=5)
        for subject in SUBJECTS:
            await target.operator.nc.request(subject, b"secret", timeout=5)
        await target.operator.nc.publish("_INBOX.abc.def", b"secret")
    await target.pull("OPERATIONS", "other")
    await target.operator.nc.flush()
    await spy.nc.flush()
    own = spy.nc._inbox_prefix.decode()
    assert [one for one in heard if not (may(role, one, Way.LISTEN) or one.startswith(own))] == []
    for connection in (spy, other):
        await connection.close()
