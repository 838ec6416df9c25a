"""Checks the invariants of docs/architecture.md after a run, on the journal, the snapshots and what clients saw.

A test that kills, pauses or confuses processes does this at its end.

    evidence = await gather(broker_url)
    evidence.promised["op-1"] = Promise("book:upload-start", {"title": "…"})
    assert breaches(evidence) == []

The checks do not use the services' own reads of the stream: messages come from a plain consumer of nats-py, and order,
hashes and ends are checked before anything is folded. Only the fold is opstream's.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import ServiceUnavailableError

from opstream_schemas import subjects
from opstream_schemas.children.lineage import child_id
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import (
    AttemptFailed,
    Failed,
    ForcedEnd,
    RecordedEvent,
    Requested,
    Started,
    StepFailed,
    StepStarted,
    StepSucceeded,
    WaitBegun,
    decode_event,
    digest,
)
from opstream_schemas.operation.fold import fold_damaged, fold_for_reader, forced_end_of
from opstream_schemas.operation.forced_end import OperationMessage, decode_events, events_from_request
from opstream_schemas.operation.state import Operation
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.status_monitor import build_status_monitor
from tests.support.system.wait import eventually

TERMINAL_EVENTS: Final = frozenset({"succeeded", "failed", "canceled"})
ENDED: Final = frozenset({"Succeeded", "Failed", "Canceled"})

_BATCH: Final = 500
_PAUSE: Final = 0.1
_LISTENS: Final = 20.0
"""Seconds until a consumer that was just made must have a leader."""
_TRAILING: Final = subjects.PROJECTOR_DEADLINES_CONSUMER
_SPOKEN: Final = frozenset({"progressed", "attempt-failed", "succeeded", "failed"})
"""Events of an attempt, or of the process that gives it up."""
_CLAIM: Final = re.compile(rb'\battempt"?[: ] ?(\d+)')
"""Where the data of an event names its attempt: as a member, or in a text (`tests/support/system/kill_actions.py`)."""
_RESTORE: Final = "opstream/restore"
"""The source of the end of an attempt whose runner was lost with everything (docs/adr/0051)."""
_FROM_ANYBODY: Final = frozenset({"RunnerLost", "DeadlineExceeded", "FailedByOperator"})
_ABOUT_EARLIER: Final = frozenset({"StepInputChanged", "StepInterrupted", "ChildFailed"})
"""Failures whose text names an earlier attempt, or one of a child."""
_RANK: Final = {"NotStarted": 0, "Running": 1} | dict.fromkeys(ENDED, 2)


class Stored(msgspec.Struct, frozen=True):
    """A message of the journal."""

    subject: str
    sequence: int
    payload: bytes


class Promise(msgspec.Struct, frozen=True):
    """A request that was accepted with 202."""

    kind: str
    input: Any
    resource_id: str = ""


class Evidence(msgspec.Struct):
    """What a run left, once the system is quiet."""

    messages: list[Stored]
    """The whole journal, oldest first."""
    view: dict[str, bytes]
    """Snapshots by operation id, byte for byte."""
    promised: dict[str, Promise] = {}
    """Requests by operation id."""
    polled: dict[str, list[dict[str, Any]]] = {}
    """Statuses by operation id, as one client saw them, each requested after the one before had come."""
    is_restored: bool = False
    """The journal was restored from a backup, so `opstream restore` may have ended attempts (docs/adr/0051)."""
    ignored: frozenset[str] = frozenset()
    """Members of an ended operation's status that another version shows otherwise; for runs with several versions."""

    def histories(self) -> dict[str, list[Stored]]:
        """The events of each operation, in stream order."""
        found: dict[str, list[Stored]] = {}
        for message in self.messages:
            if message.subject.startswith("operations."):
                found.setdefault(subjects.parse_event_subject(message.subject).operation_id, []).append(message)
        return found

    def fold(self, operation_id: str) -> Operation:
        """Fold an operation from the journal."""
        operation = fold_for_reader(None, decoded(self.histories()[operation_id]))
        assert operation is not None
        return operation

    def runners(self, operation_id: str) -> list[str]:
        """The runners of its attempts, in order."""
        datas = [event.data for event in decoded(self.histories().get(operation_id, []))]
        return [data.runner for data in datas if isinstance(data, Started)]

    def stored_ids(self) -> dict[str, str]:
        """The ids by which operations are stored, by those of their clients, where they differ."""
        found = {}
        for message in self.messages:
            try:
                event = decode_event(message.payload, message.sequence, message.subject)
            except InvalidEvent:
                continue
            if isinstance(event.data, Requested) and event.data.own_id:
                found[event.data.own_id] = event.operation_id
        return found

    def requests(self, operation_id: str) -> int:
        """How often an operation was requested; must be 0 or 1."""
        datas = [event.data for event in decoded(self.histories().get(operation_id, []))]
        return sum(isinstance(data, Requested) for data in datas)


def decoded(history: list[Stored]) -> list[RecordedEvent]:
    """Events as opstream decodes them: without messages that a forced end has skipped."""
    events = decode_events(
        [OperationMessage(message.sequence, message.payload, message.subject) for message in history]
    )
    if not events or forced_end_of(events[-1]) is None:
        return events
    return [*events_from_request(events[-1].operation_id, events)]


def status_of(operation: Operation) -> dict[str, Any]:
    """The status as a client decodes it."""
    status: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(build_status_monitor(operation)))
    return status


async def gather(url: str, *, within: float = 30.0, unread: frozenset[str] = frozenset()) -> Evidence:
    """Read the journal and the snapshots, once runners and projectors are idle.

    Args:
        url: of the broker.
        within: seconds.
        unread: durables that no service reads any more, as after a rollback.
    """
    client = await nats.connect(url, connect_timeout=5)
    try:
        await _become_quiet(client, within, unread)
        messages = await _read(client, subjects.OPERATIONS_STREAM)
        prefix = subjects.bucket_subject(subjects.VIEW_BUCKET, "")
        snapshots = await _read(client, subjects.bucket_stream(subjects.VIEW_BUCKET))
        return Evidence(messages, {one.subject.removeprefix(prefix): one.payload for one in snapshots})
    finally:
        await client.close()


def breaches(evidence: Evidence) -> list[str]:
    """Every breach of an invariant, as a sentence with the operation and the invariant's number."""
    histories = evidence.histories()
    found = [f"{one}: invariant 2: promised, and not in the journal" for one in evidence.promised.keys() - histories]
    found += [f"{one}: invariant 5: in the view, but not in the journal" for one in evidence.view.keys() - histories]
    for operation_id, history in histories.items():
        found += [f"{operation_id}: {breach}" for breach in _breaches_of(operation_id, history, evidence)]
        if not evidence.is_restored:  # a backup may have a parent's end without what followed from it
            found += [f"{operation_id}: {breach}" for breach in _left_behind(operation_id, histories)]
    return found


def _left_behind(operation_id: str, histories: Mapping[str, list[Stored]]) -> Iterator[str]:
    """A child has the id that its parent gives it, and the end of the parent has reached it."""
    first = histories[operation_id][0]
    try:
        data = decode_event(first.payload, first.sequence, first.subject).data
    except InvalidEvent:
        return
    if not isinstance(data, Requested) or data.parent is None:
        return
    ref = data.parent
    if child_id(ref.id, ref.name, ref.key, ref.index) != operation_id:
        yield f"invariant 13: its id is not that of the child {ref}"
    own, above = (
        {subjects.parse_event_subject(message.subject).event for message in histories.get(one, [])}
        for one in (operation_id, ref.id)
    )
    if above & TERMINAL_EVENTS and not own & {*TERMINAL_EVENTS, "cancel-requested"}:
        yield f"invariant 13: open, and not asked to stop, though its parent {ref.id} has ended"


def _breaches_of(operation_id: str, history: list[Stored], evidence: Evidence) -> Iterator[str]:
    promise, polled = evidence.promised.get(operation_id), evidence.polled.get(operation_id, [])
    everything, end = history, _forced(history)
    if end is not None:
        history = _kept(operation_id, history)
        yield from _forced_well(everything, history, end)
        if len(history) == 1:  # not even the request is readable, so there is no status
            return
    names = [subjects.parse_event_subject(message.subject).event for message in history]
    yield from _in_order(names)
    if promise is not None and not TERMINAL_EVENTS & set(names):
        yield f"invariant 2: promised, and open: {names}"
    yield from _going_back(polled, evidence.ignored)
    try:
        events = [decode_event(message.payload, message.sequence, message.subject) for message in history]
        yield from _chained(history, events if end is None else events[:-1])
        yield from _fenced(names, events, is_restored=evidence.is_restored)
        yield from _recorded_once(events)
        if promise is not None:
            yield from _as_promised(promise, events[0])
        operation = fold_for_reader(None, decoded(everything))
    except (InvalidEvent, FoldRefused) as error:
        yield f"invariant 1: can't be folded: {error}"
        return
    folded = msgspec.json.encode(operation)
    if evidence.view.get(operation_id) != folded:
        yield f"invariant 5: the view has {evidence.view.get(operation_id)!r}, the fold is {folded!r}"
    status = status_of(operation) if operation is not None else {}
    if operation is not None and operation.result_payload is not None and polled and "result" in polled[-1]:
        if not _is_of(operation.result_payload, polled[-1]["result"]):
            yield f"invariant 4: the last status has another result than {operation.result_payload}"
        status["result"] = polled[-1]["result"]
    if polled and polled[-1]["status"] in ENDED and _differ(evidence.ignored, polled[-1], status):
        yield f"invariant 4: the last status was {polled[-1]}, the fold says {status}"


def _in_order(names: list[str]) -> Iterator[str]:
    if names[0] != "requested" or names.count("requested") != 1:
        yield f"invariant 1: not one request, at the beginning: {names}"
    if TERMINAL_EVENTS & set(names[:-1]):
        yield f"invariant 1: something follows the end: {names}"


def _chained(history: list[Stored], events: list[RecordedEvent]) -> Iterator[str]:
    if [event.position for event in events] != list(range(1, len(events) + 1)):
        yield f"invariant 1: positions are {[event.position for event in events]}"
    hashes = ["", *(digest(message.payload) for message in history)][: len(events)]
    if [event.previous_hash for event in events] != hashes:
        yield "invariant 1: the chain of hashes is broken"
    if len({event.id for event in events}) != len(events):
        yield "invariant 1: an event id occurs twice"


def _fenced(names: list[str], events: list[RecordedEvent], *, is_restored: bool) -> Iterator[str]:
    """Each event of an attempt is from the attempt that started last."""
    attempt, runner = 0, ""
    for name, event in zip(names, events, strict=True):
        if isinstance(event.data, Started):
            if event.data.attempt != attempt + 1:
                yield f"invariant 3: attempt {event.data.attempt} follows attempt {attempt}"
            attempt, runner = event.data.attempt, event.data.runner
        elif name in _SPOKEN:
            claim = _CLAIM.search(msgspec.json.encode(event.data))
            if isinstance(event.data, Failed) and event.data.error.code in _ABOUT_EARLIER:
                claim = None
            if claim is not None and int(claim[1]) != attempt:
                yield f"invariant 3: {name} of attempt {int(claim[1])} once attempt {attempt} had started"
            is_given_up = isinstance(event.data, Failed) and event.data.error.code in _FROM_ANYBODY
            is_ended_by_restore = is_restored and isinstance(event.data, AttemptFailed) and event.source == _RESTORE
            if not (is_given_up or is_ended_by_restore) and not event.source.endswith(runner):
                yield f"invariant 3: {name} is from {event.source}, attempt {attempt} ran on {runner}"


def _recorded_once(events: list[RecordedEvent]) -> Iterator[str]:
    """A step has at most one result for its name, key and input, and the attempt of its event is the live one."""
    found: set[tuple[str, str, str]] = set()
    attempt = 0
    for data in (event.data for event in events):
        if isinstance(data, Started):
            attempt = data.attempt
        elif isinstance(data, StepStarted | StepSucceeded | StepFailed | WaitBegun) and data.attempt != attempt:
            yield f"invariant 3: {data.name} of attempt {data.attempt} once attempt {attempt} had started"
        if isinstance(data, StepSucceeded):
            step = (data.step, data.key, data.input_hash)
            if step in found:
                yield f"invariant 11: the result of step {data.step!r} ({data.key}) is recorded twice"
            found.add(step)


def _forced(history: list[Stored]) -> ForcedEnd | None:
    """The forced end in the last message, if it is one."""
    try:
        return forced_end_of(decode_event(history[-1].payload, history[-1].sequence, history[-1].subject))
    except InvalidEvent:
        return None


def _kept(operation_id: str, history: list[Stored]) -> list[Stored]:
    """The messages that count, and the forced end: the messages it skipped must have no effect."""
    operation: Operation | None = None
    kept = []
    for message in history[:-1]:
        try:
            event = decode_event(message.payload, message.sequence, message.subject)
        except InvalidEvent:
            continue
        if event.operation_id != operation_id:
            continue
        operation, passed_over = fold_damaged(operation, [event])
        if not passed_over:
            kept.append(message)
    return [*kept, history[-1]]


def _forced_well(everything: list[Stored], kept: list[Stored], end: ForcedEnd) -> Iterator[str]:
    event, before = (
        decode_event(everything[-1].payload, everything[-1].sequence, everything[-1].subject),
        everything[-2],
    )
    if (event.previous_hash, end.sequence) != (digest(before.payload), before.sequence):
        yield f"invariant 1: the forced end does not follow the message at sequence {before.sequence}"
    if (event.position, end.passed_over) != (len(everything), len(everything) - len(kept)):
        counts = f"{len(everything)} messages, {len(kept)} of them kept"
        yield f"invariant 1: {counts}, and the forced end is at {event.position} and says {end}"


def _as_promised(promise: Promise, first: RecordedEvent) -> Iterator[str]:
    data = first.data
    if isinstance(data, Requested):
        if isinstance(data.input, msgspec.Raw):
            document = msgspec.json.decode(data.input)
        else:
            document = promise.input if _is_of(data.input_payload, promise.input) else data.input_payload
        recorded = Promise(f"{data.resource}:{data.action}", document, data.resource_id)
        if recorded != promise:
            yield f"invariant 6: asked for {promise}, recorded is {recorded}"


def _is_of(payload: PayloadRef | None, document: Any) -> bool:
    """Return True if a claim check is of these bytes."""
    encoded = msgspec.json.encode(document)
    return payload is not None and (payload.size, payload.sha256) == (len(encoded), sha256(encoded).hexdigest())


def _differ(ignored: frozenset[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if two statuses differ in a member that counts."""
    return any(one.get(member) != other.get(member) for member in (one.keys() | other.keys()) - ignored)


def _going_back(polled: list[dict[str, Any]], ignored: frozenset[str] = frozenset()) -> Iterator[str]:
    for before, after in itertools.pairwise(polled):
        earlier, later = _progress(before), _progress(after)
        if later < earlier or (before["status"] in ENDED and _differ(ignored, before, after)):
            yield f"invariant 4: the status went from {before} to {after}"


def _progress(status: Mapping[str, Any]) -> tuple[int, int, float]:
    rank = _RANK[status["status"]]
    # A terminal status keeps the last percentage; each attempt starts at 0.
    return rank, status.get("attempt", 0), status.get("percentComplete", 0.0)


async def _become_quiet(client: Client, within: float, unread: frozenset[str]) -> None:
    """Wait until all durables of the journal have delivered all messages and got an ack for each.

    The durable of deadlines is ignored: it is half a minute behind, and writes nothing that is checked here. The broker
    redelivers what a killed projector held after 30 s. During this wait its `ack_wait` is shorter; it is restored at
    the end, since a projector that starts would report the difference as drift.
    """
    jetstream = client.jetstream()
    kept = (await jetstream.consumer_info(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER)).config
    await jetstream.add_consumer(subjects.OPERATIONS_STREAM, kept.evolve(ack_wait=1.0))

    async def is_quiet() -> bool:
        consumers = await jetstream.consumers_info(subjects.OPERATIONS_STREAM)
        ignored = {None, _TRAILING, subjects.WEBHOOKS_CONSUMER, *unread}
        awaited = [one for one in consumers if one.config.durable_name not in ignored]
        return not any(one.num_pending or one.num_ack_pending for one in awaited)

    try:
        await eventually(is_quiet, within=within, poll=0.1)
    finally:
        await jetstream.add_consumer(subjects.OPERATIONS_STREAM, kept)


async def _read(client: Client, stream: str) -> list[Stored]:
    """All messages of a stream."""
    jetstream = client.jetstream()
    info = await jetstream.add_consumer(stream, ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True))
    subscription = await jetstream.pull_subscribe_bind(consumer=info.name, stream=stream)
    found: list[Stored] = []
    until = time.monotonic() + _LISTENS
    while len(found) < (info.num_pending or 0):
        try:
            batch = await subscription.fetch(min(_BATCH, (info.num_pending or 0) - len(found)), timeout=10)
        except ServiceUnavailableError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_PAUSE)  # in a cluster, a consumer that was just made may not listen yet
            continue
        found += [Stored(one.subject, one.metadata.sequence.stream, one.data) for one in batch]
    await subscription.unsubscribe()
    return found
