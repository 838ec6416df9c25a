"""Checks the hash chain of every operation in a stream, message by message, in stream order. Pure.

Callers: `opstream verify --chain`. Each event carries its position and the hash of the event before it, so a change, an
insertion, a removal between two others or another order shows at the first event that does not continue what came
before (docs/audit.md says what does not). What follows that one is compared with it too, so that one deed is one
finding and not as many as there are events behind it.

A forced end (ADR 0014) passes over what lies on the operation's subjects and carries the hash of the message right
before it: what was found until then is a note, not a finding, as long as the end passed over no less than that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import ForcedEnd, RecordedEvent, Requested, decode_event
from opstream_schemas.operation.fold import forced_end_of
from opstream_schemas.subjects import DUE_DESTINATION, WAKE_DESTINATION, parse_archive_subject, parse_event_subject

from .chain_state import ChainDamage, ChainHead, CompactHashSet, Finding, RejectedEvent

_TIMER_PREFIXES: Final = (WAKE_DESTINATION.removesuffix(">"), DUE_DESTINATION.removesuffix(">"))
_TYPE_REGEX: Final = re.compile(r"opstream\.action\.([a-z0-9-]{1,40})\.v[1-9][0-9]*")
_DIGEST_REGEX: Final = re.compile(r"[0-9a-f]{64}")
_OUTCOMES: Final = frozenset({"succeeded", "failed", "canceled"})
_MAX_DEFERRED: Final = 10_000
"""Findings that wait for a forced end; more are told at once, so that a ruined stream does not fill the memory."""


class HashChainVerifier:
    """The check of one stream.

    Args:
        first: the stream's first sequence, or where to begin behind a checkpoint.
        can_expire: whether the beginnings of operations may lie before `first`, gone with age.
        heads: the operations that were open at the checkpoint behind which it begins; then nothing may be cut.
        is_archive: the stream is ARCHIVE. Its subjects name no operation; it may have begun in the middle of the
            journal's life, so cut beginnings are notes; and an id may come again once the journal has forgotten it.
    """

    def __init__(
        self, *, first: int, can_expire: bool, heads: Mapping[str, ChainHead] | None = None, is_archive: bool = False
    ) -> None:
        self.next_sequence = first
        """Of the message that should come next."""
        self.events = 0
        """Messages on event subjects."""
        self.operations = 0
        """Operations seen, cut ones included; not those that were open at a checkpoint."""
        self.truncated_operations = 0
        """Operations of which the beginning has expired."""
        self.open_operations: dict[str, ChainHead] = dict(heads or {})
        """By operation id."""
        self.notes: list[Finding] = []
        """What is no tampering, but should be told. Whoever tells it empties the list."""
        self.findings: list[Finding] = []
        """What is. Whoever tells it empties the list."""
        self._ended_operations = CompactHashSet()
        self._is_archive = is_archive
        self._expirable_events = first - 1 if can_expire and heads is None else 0
        self._deferred_count = 0
        self._unassigned: dict[str, Finding] = {}

    def add_gap(self, until: int, *, is_expired: bool) -> None:
        """Tell that there is no message from `next_sequence` to the one before `until`.

        Args:
            until: the sequence of the next one that there is.
            is_expired: the stream itself begins there by now. Nothing is known then of what came before.
        """
        if is_expired:
            for operation_id in list(self.open_operations):
                self._close_operation(operation_id, self.open_operations[operation_id])
            self._ended_operations = CompactHashSet()
            self._expirable_events = until - 1
        else:
            which = f"messages {self.next_sequence} to {until - 1} are" if until - self.next_sequence > 1 else "it is"
            what = f"{which} missing, and the stream deletes nothing but what has expired"
            self.findings.append(Finding(self.next_sequence, what))
        self.next_sequence = until

    def add_message(self, sequence: int, subject: str, payload: bytes, body: str) -> None:
        """Check the next message.

        Args:
            sequence: in the stream.
            subject: as it is stored.
            payload: as it is stored.
            body: SHA-256 (hex) of the payload.
        """
        self.next_sequence = sequence + 1
        if subject.startswith(_TIMER_PREFIXES):
            return
        self.events += 1
        try:
            owner, kind, name = self._parse_subject(subject)
        except InvalidName:
            self.findings.append(Finding(sequence, f"lies on {subject[:200]!r}, which is no event's subject"))
            return
        try:
            event = decode_event(payload, sequence)
        except InvalidEvent as error:
            self._reject_message(owner, kind, sequence, body, f"is no event: {error.__cause__ or error}")
            return
        if owner is not None and event.operation_id != owner:
            what = f"belongs to operation {event.operation_id}, but lies on a subject of {owner}"
            self._reject_message(owner, kind, sequence, body, what)
            return
        head = self.open_operations.get(event.operation_id) or self._open_operation(event, kind)
        if head is None:
            return
        if what := _subject_mismatch(event, head, kind, name):
            self._defer(head, self._finding(event, what))
        forced = forced_end_of(event)
        if forced is not None and head.count:
            self._apply_forced_end(event, forced, head, body)
        elif is_continuation(event, head.position, head.digest):
            head.position, head.digest, head.sequence, head.count = event.position, body, sequence, head.count + 1
            if head.trouble is not None:
                head.trouble.last_sequence, head.trouble.last_digest = sequence, body
            if name in _OUTCOMES:
                self._close_operation(event.operation_id, head)
        else:
            self._reject_event(event, head, body, is_end=name in _OUTCOMES)

    def finish(self) -> None:
        """Tell what was held back; nothing comes any more."""
        for head in self.open_operations.values():
            if head.trouble is not None:
                self.findings += head.trouble.findings
                head.trouble.findings = []
        self.findings += self._unassigned.values()
        self._unassigned = {}
        self.findings.sort(key=lambda finding: finding.sequence)

    def _parse_subject(self, subject: str) -> tuple[str | None, str, str]:
        """The operation id (None where subjects name none), `resource:action`, and the event's name."""
        if not self._is_archive:
            parsed = parse_event_subject(subject)
            return parsed.operation_id, f"{parsed.kind.resource}:{parsed.kind.action}", parsed.event
        archived = parse_archive_subject(subject)
        return None, f"{archived.kind.resource}:{archived.kind.action}", archived.event

    def _open_operation(self, event: RecordedEvent, kind: str) -> ChainHead | None:
        """What an operation's first message here has to continue; None if there can be no such message."""
        if event.operation_id in self._ended_operations:
            is_first = event.position == 1
            if not (is_first and self._is_archive):
                what = "requests an id that had been used before" if is_first else "follows the end of its operation"
                self.findings.append(self._finding(event, what))
                return None
            self.notes.append(self._finding(event, "requests an id that the journal had forgotten"))
        self.operations += 1
        missing = event.position - 1
        head = ChainHead(kind, 0, "", 0)
        if missing and _DIGEST_REGEX.fullmatch(event.previous_hash) and not isinstance(event.data, Requested):
            head = ChainHead(kind, missing, event.previous_hash, 0, missing=missing)
            what = f"is the first of its operation, and position{' 1 is' if missing == 1 else f's 1 to {missing} are'}"
            if self._is_archive:
                self.notes.append(self._finding(event, f"{what} not in this stream"))
            elif missing <= self._expirable_events:
                self._expirable_events -= missing
                self.truncated_operations += 1
            else:
                self._defer(head, self._finding(event, f"{what} missing: they can't have expired"))
        self.open_operations[event.operation_id] = head
        return head

    def _apply_forced_end(self, event: RecordedEvent, forced: ForcedEnd, head: ChainHead, body: str) -> None:
        trouble = head.trouble or ChainDamage(head.sequence, head.digest)
        stranger = self._unassigned.pop(event.previous_hash, None)
        is_next = event.previous_hash == trouble.last_digest or stranger is not None
        place = event.position - head.count - head.missing - 1
        if not self._is_archive:
            is_next = is_next and forced.sequence == trouble.last_sequence
            is_next = is_next and (place == 0 or (place < 0 < head.missing))
        elif place < 0 and not head.missing:
            is_next = False
        if not is_next:
            # What did not end it when it was written, a foreign one, may be passed over by the end that did.
            self._defer(head, self._finding(event, "ends by force what is not before it: something was changed since"))
            self._pass_over(head, event.sequence, body)
            return
        if trouble.passed_over > forced.passed_over:
            what = (
                f"ended by force what then had {forced.passed_over} messages that did not continue it, and has "
                f"{trouble.passed_over} now: something was changed since"
            )
            self._defer(head, self._finding(event, what))
        else:
            held = [*([stranger] if stranger else ()), *(head.trouble.findings if head.trouble else ())]
            self._deferred_count -= len(held) - (stranger is not None)
            what = f"an operator ended it by force, passing over {forced.passed_over} messages"
            self.notes += [*held, self._finding(event, what)]
            head.trouble = None
        head.sequence, head.digest = event.sequence, body
        self._close_operation(event.operation_id, head)

    def _reject_event(self, event: RecordedEvent, head: ChainHead, body: str, *, is_end: bool) -> None:
        """Take an event that does not continue its operation, but may continue another such one."""
        trouble = _ensure_damage(head)
        other = trouble.other
        is_known = other is not None and not other.is_end and is_continuation(event, other.position, other.digest)
        if not is_known:
            self._defer(head, self._finding(event, _chain_mismatch(event, head)))
        trouble.other = RejectedEvent(event.position, body, is_end)
        self._pass_over(head, event.sequence, body)
        if is_known and is_end:
            self._close_operation(event.operation_id, head)

    def _reject_message(self, owner: str | None, kind: str, sequence: int, body: str, what: str) -> None:
        """Take a message that is no event of the operation under whose subjects it lies."""
        finding = Finding(sequence, what, owner or "")
        if owner is None and len(self._unassigned) < _MAX_DEFERRED:
            self._unassigned[body] = finding
        elif owner is None or owner in self._ended_operations:
            self.findings.append(finding)
        else:
            head = self.open_operations.setdefault(owner, ChainHead(kind, 0, "", 0))
            self._defer(head, finding)
            self._pass_over(head, sequence, body)

    def _pass_over(self, head: ChainHead, sequence: int, body: str) -> None:
        trouble = _ensure_damage(head)
        trouble.passed_over += 1
        trouble.last_sequence, trouble.last_digest = sequence, body
        head.count += 1

    def _defer(self, head: ChainHead, finding: Finding) -> None:
        if self._deferred_count < _MAX_DEFERRED:
            self._deferred_count += 1
            _ensure_damage(head).findings.append(finding)
        else:
            self.findings.append(finding)

    def _close_operation(self, operation_id: str, head: ChainHead) -> None:
        if head.trouble is not None:
            self._deferred_count -= len(head.trouble.findings)
            self.findings += head.trouble.findings
        del self.open_operations[operation_id]
        self._ended_operations.add(operation_id)

    def _finding(self, event: RecordedEvent, what: str) -> Finding:
        return Finding(event.sequence, what, event.operation_id, event.position)


def is_continuation(event: RecordedEvent, position: int, digest: str) -> bool:
    """Whether an event comes right behind the one with this position and hash (0 and none: behind nothing)."""
    return (
        event.position == position + 1
        and event.previous_hash == digest
        and (event.data is None or isinstance(event.data, Requested) == (position == 0))
    )


def _ensure_damage(head: ChainHead) -> ChainDamage:
    if head.trouble is None:
        head.trouble = ChainDamage(head.sequence, head.digest)
    return head.trouble


def _subject_mismatch(event: RecordedEvent, head: ChainHead, kind: str, name: str) -> str:
    """What an event says otherwise than the subject that it lies on; empty if nothing."""
    typed = _TYPE_REGEX.fullmatch(event.type)
    if typed is None or typed[1] != name:
        return f"is of type {event.type[:200]!r}, but lies on a subject of {name!r}"
    if event.position == 1 and name != Requested.name:
        return "comes first, which only a request can"
    data = event.data
    own = f"{data.resource}:{data.action}" if isinstance(data, Requested) else head.kind
    return "" if own == kind else f"is of {own}, but lies on a subject of {kind}"


def _chain_mismatch(event: RecordedEvent, head: ChainHead) -> str:
    """Why an event does not continue its operation."""
    before = f"position {head.position} (sequence {head.sequence})" if head.sequence else f"position {head.position}"
    if isinstance(event.data, Requested) and event.position > 1:
        return "is a request, which only comes first"
    if event.position <= head.position:
        return f"comes after {before}: it is a duplicate, inserted, or out of order"
    if event.position > head.position + 1:
        return f"follows {before or 'nothing'}: what is between them was removed, or is out of order"
    if head.position == 0:
        return "is the first of its operation, but carries the hash of another"
    return f"does not carry the hash of {before}: one of them was changed or inserted"
