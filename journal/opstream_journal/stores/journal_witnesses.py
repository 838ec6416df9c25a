"""Who has seen how much of the journal: what the broker says of it, the archive, consumers, and entries of the view.

`read_evidence` asks all but the view, which those who scan it add; `scan_evidence` reads the whole view, too, and
`sample_evidence` a few entries of it. The last takes some seventy requests, whatever the size of the journal, so a
service can afford it when it starts (docs/adr/0032).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from opstream_journal.errors import NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.scans.stream_scan import lost_bytes, scan_stream, stream_bounds, stream_identity
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from opstream_schemas.integrity import archive_subjects
from opstream_schemas.integrity.setback import JournalRange, Loss, SetbackEvidence, loss_of

from .snapshots import VIEW_STREAM, RawSnapshot, operation_id_of

_SAMPLES: Final = 32
"""Entries of the view that `sample_evidence` reads, spread over all of it; the newest is one of them."""
_SOURCE_HEADER: Final = f"{archive_subjects.ARCHIVE_SOURCE_HEADER}: ".encode()


CONSEQUENCES: Final = {
    VIEW_STREAM: "statuses are read from the journal; 'opstream rebuild' puts the view right",
    subjects.bucket_stream(
        subjects.ACTIONS_BUCKET
    ): "actions may be unknown to an API that starts: restart the runners",
    subjects.bucket_stream(subjects.HOLDS_BUCKET): "two operations may run on one exclusive resource until they end",
    subjects.TIMERS_STREAM: "retries and deadlines may be late: a projector finds them and schedules them again",
    subjects.WEBHOOKS_STREAM: "deliveries may be lost: 'opstream redeliver' sends them",
    subjects.DELIVERIES_STREAM: "records of deliveries are lost",
    subjects.PARKED_STREAM: "dead letters are lost",
    subjects.ACCESS_LOG_STREAM: "records of denials and of acts of administrators are lost",
    subjects.ARCHIVE_STREAM: "archived events are lost: restore the archive while the journal still has the later ones",
}
"""What follows if the broker cuts a stream besides the journal, and what to do."""


class _SequencePair(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _ConsumerProgress(msgspec.Struct, frozen=True):
    name: str = ""
    delivered: _SequencePair = _SequencePair()
    ack_floor: _SequencePair = _SequencePair()


class _ProgressList(msgspec.Struct, frozen=True):
    total: int = 0
    consumers: list[_ConsumerProgress] | None = None


_decode_progress: Final = msgspec.json.Decoder(_ProgressList).decode


async def read_evidence(connection: Connection) -> SetbackEvidence:
    """Return what the broker, the archive and the consumers say of the journal.

    Raises:
        NotProvisioned: there is no journal.
        JournalUnavailable: a leader did not answer.
        BrokerRefused: the broker refused.
    """
    # The witnesses first: what they have read is in the journal before.
    archived = await archived_sequence(connection)
    consumers = await _consumer_progress(connection)
    stream = await stream_identity(connection, subjects.OPERATIONS_STREAM)
    evidence = SetbackEvidence(JournalRange(first=stream.first, last=stream.last, max_age=stream.max_age))
    evidence.missing = stream.missing
    evidence.lost_bytes = await lost_bytes(connection, stream)
    evidence.add_witness("the archive", archived)
    for one in consumers:
        evidence.add_witness(f"consumer {one.name}", max(one.delivered.stream_seq, one.ack_floor.stream_seq))
    return evidence


async def sample_evidence(connection: Connection, now: datetime) -> SetbackEvidence:
    """Return the same, and what a few entries of the view say, the newest among them.

    Raises:
        NotProvisioned: there is no journal, or no view.
        JournalUnavailable: a leader did not answer.
        BrokerRefused: the broker refused.
    """
    sampled = await _sample_view(connection)
    evidence = await read_evidence(connection)
    for snapshot in sampled:
        core = snapshot.core
        if core is None:
            continue
        message = await rpc.get_at(connection, subjects.OPERATIONS_STREAM, core.stream_sequence)
        is_there = message is not None and message.subject.startswith(f"operations.{snapshot.operation_id}.")
        loss = None if is_there else loss_of(core.stream_sequence, core.recorded_at, evidence.journal, now)
        if loss is not None:
            evidence.add_entry(snapshot.operation_id, core.stream_sequence, loss, is_ended=core.is_ended)
    return evidence


async def cut_streams(connection: Connection) -> dict[str, int]:
    """Return the streams besides the journal of which the broker has cut damaged blocks since it started, with bytes.

    A stream with replicas is left out, and so is one with many gaps (`lost_bytes`): a busy view, for example.

    Raises:
        JournalUnavailable: a leader did not answer.
        BrokerRefused: the broker refused.
    """
    found = {}
    for stream in CONSEQUENCES:
        try:
            identity = await stream_identity(connection, stream)
        except NotProvisioned:
            continue
        if size := await lost_bytes(connection, identity):
            found[stream] = size
    return found


async def scan_evidence(connection: Connection, now: datetime) -> SetbackEvidence:
    """Return what all but the journal say of its beginning and its end, with every entry of the view.

    What is missing between events that the journal has is not found: that takes a look at the journal itself.

    Raises:
        NotProvisioned: there is no journal, or no view.
        JournalUnavailable: the broker was away for long.
        BrokerRefused: the broker refused.
    """
    stream = await stream_identity(connection, subjects.OPERATIONS_STREAM)
    journal = JournalRange(first=stream.first, last=stream.last, max_age=stream.max_age)
    early, latest = SetbackEvidence(journal), 0
    async for batch in scan_stream(connection, VIEW_STREAM):
        for message in batch:
            core = RawSnapshot(operation_id_of(message.subject), message.sequence, message.data).core
            if core is None:
                continue
            latest = max(latest, core.stream_sequence)
            if loss_of(core.stream_sequence, core.recorded_at, journal, now) is Loss.TOO_EARLY:
                early.add_entry(core.id, core.stream_sequence, Loss.TOO_EARLY, is_ended=core.is_ended)
    evidence = await read_evidence(connection)  # the journal last: what the view has seen was in it before
    evidence.take_entries(early)
    evidence.add_witness("the view", latest)
    return evidence


async def _sample_view(connection: Connection) -> list[RawSnapshot]:
    bounds = await stream_bounds(connection, VIEW_STREAM)
    everything = subjects.bucket_subject(subjects.VIEW_BUCKET, ">")
    newest = await rpc.get_last(connection, VIEW_STREAM, everything)
    found = {} if newest is None else {newest.seq: newest}
    step = max(1, (bounds.last - bounds.first + 1) // _SAMPLES)
    sequence = bounds.first
    while sequence <= bounds.last:
        message = await rpc.get_next(connection, VIEW_STREAM, everything, sequence)
        if message is None:
            break
        found[message.seq] = message
        sequence = max(sequence, message.seq) + step
    return [RawSnapshot(operation_id_of(one.subject), one.seq, one.data) for one in found.values()]


async def archived_sequence(connection: Connection) -> int:
    """Return the stream sequence of the journal up to which the archive has copied; 0 without an archive.

    Raises:
        JournalUnavailable: a leader did not answer.
        BrokerRefused: the broker refused.
    """
    try:
        await stream_bounds(connection, subjects.ARCHIVE_STREAM)
    except NotProvisioned:
        return 0
    last = await rpc.get_last(connection, subjects.ARCHIVE_STREAM, ">")
    for line in last.hdrs.split(b"\r\n") if last is not None else ():
        if line.startswith(_SOURCE_HEADER):
            try:
                return archive_subjects.parse_archive_origin(
                    line.removeprefix(_SOURCE_HEADER).decode("utf-8", "replace")
                ).sequence
            except InvalidName:
                return 0
    return 0


async def _consumer_progress(connection: Connection) -> list[_ConsumerProgress]:
    found: list[_ConsumerProgress] = []
    while True:
        payload = msgspec.json.encode({"offset": len(found)})
        answer = await rpc.call(connection, f"$JS.API.CONSUMER.LIST.{subjects.OPERATIONS_STREAM}", payload)
        listed = _decode_progress(answer.data)
        found += listed.consumers or []
        if not listed.consumers or len(found) >= listed.total:
            return found
