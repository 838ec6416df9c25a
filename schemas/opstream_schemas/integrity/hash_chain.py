"""Verification of the hash chain of every operation in a stream, in one pass in stream order. Pure.

Each event carries its position and the hash of the event before it. So a changed, inserted, removed or moved event
shows at the first event that does not continue its operation (docs/audit.md says what does not show). Later events are
also compared with that one, so that one change is one finding, not one for each event after it.

A forced end (ADR 0014) passes over messages and carries the hash of the message right before it. Findings before such
an end become notes, unless there are more of them than the end passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import ForcedEnd, RecordedEvent, Requested, decode_event
from opstream_schemas.operation.fold import forced_end_of
from opstream_schemas.subjects import DUE_DESTINATION, WAKE_DESTINATION, parse_event_subject
from opstream_schemas.text import format_count

from .archive_subjects import parse_archive_subject
from .chain_state import ChainDamage, ChainHead, CompactHashSet, Finding, RejectedEvent

_TIMER_PREFIXES: Final = (WAKE_DESTINATION.removesuffix(">"), DUE_DESTINATION.removesuffix(">"))
_TYPE_REGEX: Final = re.compile(r"opstream\.action\.([a-z0-9-]{1,40})\.v[1-9][0-9]*")
_DIGEST_REGEX: Final = re.compile(r"[0-9a-f]{64}")
_OUTCOMES: Final = frozenset({"succeeded", "failed", "canceled"})
_MAX_DEFERRED: Final = 10_000
"""Findings that may wait for a forced end. Further ones are reported at once, to bound the memory."""


class HashChainVerifier:
    """Verifies the hash chains of one stream.

    Args:
        first: the stream's first sequence, or the first one after a checkpoint.
        can_expire: True if messages before `first` may have expired, and first events of operations with them.
        heads: the operations that were open at the checkpoint; then every operation must be complete.
        is_archive: True for the stream ARCHIVE. Its subjects have no operation id. It may have been made after the
            journal, so missing first events are notes. An id may be used again after the journal has forgotten it.
    """

    def __init__(
        self, *, first: int, can_expire: bool, heads: Mapping[str, ChainHead] | None = None, is_archive: bool = False
    ) -> None:
        self.next_sequence = first
        """Sequence of the message that should come next."""
        self.events = 0
        """Number of messages on the subjects of events."""
        self.operations = 0
        """Number of operations, truncated ones included, without those that were open at the checkpoint."""
        self.truncated_operations = 0
        """Number of operations whose first events have expired."""
        self.open_operations: dict[str, ChainHead] = dict(heads or {})
        """Open operations by their ids."""
        self.notes: list[Finding] = []
        """What is not tampering, but should be reported. The caller empties the list when it has reported it."""
        self.findings: list[Finding] = []
        """What looks like tampering. The caller empties the list likewise."""
        self._ended_operations = CompactHashSet()
        self._is_archive = is_archive
        self._expirable_events = first - 1 if can_expire and heads is None else 0
        self._deferred_count = 0
        self._unassigned: dict[str, Finding] = {}

    def add_gap(self, until: int, *, is_expired: bool) -> None:
        """Record that there is no message from `next_sequence` to the one before `until`.

        Args:
            until: the sequence of the next message.
            is_expired: True if the stream now begins at `until`, so that everything before it has expired.
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

    def add_message(self, sequence: int, subject: str, payload: bytes, body_hash: str) -> None:
        """Verify the next message.

        Args:
            sequence: its stream sequence.
            subject: its stored subject.
            payload: its stored payload.
            body_hash: SHA-256 (hex) of the payload.
        """
        self.next_sequence = sequence + 1
        if subject.startswith(_TIMER_PREFIXES):
            return
        self.events += 1
        try:
            owner, kind, name = self._parse_subject(subject)
        except InvalidName:
            self.findings.append(
                Finding(sequence, f"is stored on {subject[:200]!r}, which is not the subject of an event")
            )
            return
        try:
            event = decode_event(payload, sequence)
        except InvalidEvent as error:
            self._reject_message(owner, kind, sequence, body_hash, f"is not an event: {error.__cause__ or error}")
            return
        if owner is not None and event.operation_id != owner:
            what = f"belongs to operation {event.operation_id}, but is stored on a subject of {owner}"
            self._reject_message(owner, kind, sequence, body_hash, what)
            return
        head = self.open_operations.get(event.operation_id) or self._open_operation(event, kind)
        if head is None:
            return
        if what := _subject_mismatch(event, head, kind, name):
            self._defer(head, self._finding(event, what))
        forced = forced_end_of(event)
        if forced is not None and head.count:
            self._apply_forced_end(event, forced, head, body_hash)
        elif is_continuation(event, head.position, head.digest):
            head.position, head.digest, head.sequence, head.count = event.position, body_hash, sequence, head.count + 1
            if head.trouble is not None:
                head.trouble.last_sequence, head.trouble.last_digest = sequence, body_hash
            if name in _OUTCOMES:
                self._close_operation(event.operation_id, head)
        else:
            self._reject_event(event, head, body_hash, is_end=name in _OUTCOMES)

    def finish(self) -> None:
        """Report the deferred findings; the stream has ended."""
        for head in self.open_operations.values():
            if head.trouble is not None:
                self.findings += head.trouble.findings
                head.trouble.findings = []
        self.findings += self._unassigned.values()
        self._unassigned = {}
        self.findings.sort(key=lambda finding: finding.sequence)

    def _parse_subject(self, subject: str) -> tuple[str | None, str, str]:
        """Return the operation id (None in the archive), `resource:action`, and the event's short name."""
        if not self._is_archive:
            parsed = parse_event_subject(subject)
            return parsed.operation_id, f"{parsed.kind.resource}:{parsed.kind.action}", parsed.event
        archived = parse_archive_subject(subject)
        return None, f"{archived.kind.resource}:{archived.kind.action}", archived.event

    def _open_operation(self, event: RecordedEvent, kind: str) -> ChainHead | None:
        """Return the head that an operation's first event must continue; None if no event may follow."""
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

    def _apply_forced_end(self, event: RecordedEvent, forced: ForcedEnd, head: ChainHead, body_hash: str) -> None:
        damage = head.trouble or ChainDamage(head.sequence, head.digest)
        unassigned = self._unassigned.pop(event.previous_hash, None)
        is_expected = event.previous_hash == damage.last_digest or unassigned is not None
        # Messages that the end counts and the stream does not hold; below 0, fewer than those that were missed.
        unseen = event.position - head.count - head.missing - 1
        if not self._is_archive:
            is_expected = is_expected and forced.sequence == damage.last_sequence
            is_expected = is_expected and (unseen == 0 or (unseen < 0 < head.missing))
        elif unseen < 0 and not head.missing:
            is_expected = False
        if not is_expected:
            # A foreign forced end did not end the operation when it was written. The real one may pass over it.
            self._defer(head, self._finding(event, "is a forced end of other messages: something was changed since"))
            self._pass_over(head, event.sequence, body_hash)
            return
        if damage.passed_over > forced.passed_over:
            what = (
                f"is a forced end that passed over {format_count(forced.passed_over, 'message')}, and there are "
                f"{damage.passed_over} such messages now: something was changed since"
            )
            self._defer(head, self._finding(event, what))
        else:
            deferred = [*([unassigned] if unassigned else ()), *(head.trouble.findings if head.trouble else ())]
            self._deferred_count -= len(deferred) - (unassigned is not None)
            what = f"an operator ended it by force, passing over {format_count(forced.passed_over, 'message')}"
            self.notes += [*deferred, self._finding(event, what)]
            head.trouble = None
        head.sequence, head.digest = event.sequence, body_hash
        self._close_operation(event.operation_id, head)

    def _reject_event(self, event: RecordedEvent, head: ChainHead, body_hash: str, *, is_end: bool) -> None:
        """Handle an event that does not continue its operation, but may continue a rejected event."""
        damage = _ensure_damage(head)
        other = damage.other
        is_known = other is not None and not other.is_end and is_continuation(event, other.position, other.digest)
        if not is_known:
            self._defer(head, self._finding(event, _chain_mismatch(event, head)))
        damage.other = RejectedEvent(event.position, body_hash, is_end)
        self._pass_over(head, event.sequence, body_hash)
        if is_known and is_end:
            self._close_operation(event.operation_id, head)

    def _reject_message(self, owner: str | None, kind: str, sequence: int, body_hash: str, what: str) -> None:
        """Handle a message that is not an event of the operation on whose subject it is stored."""
        finding = Finding(sequence, what, owner or "")
        if owner is None and len(self._unassigned) < _MAX_DEFERRED:
            self._unassigned[body_hash] = finding
        elif owner is None or owner in self._ended_operations:
            self.findings.append(finding)
        else:
            head = self.open_operations.setdefault(owner, ChainHead(kind, 0, "", 0))
            self._defer(head, finding)
            self._pass_over(head, sequence, body_hash)

    def _pass_over(self, head: ChainHead, sequence: int, body_hash: str) -> None:
        damage = _ensure_damage(head)
        damage.passed_over += 1
        damage.last_sequence, damage.last_digest = sequence, body_hash
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
    """Return True if the event follows one with this position and hash; 0 and an empty hash stand for no event."""
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
    """Return how the event contradicts its subject; empty if it does not."""
    typed = _TYPE_REGEX.fullmatch(event.type)
    if typed is None or typed[1] != name:
        return f"is of type {event.type[:200]!r}, but is stored on a subject of {name!r}"
    if event.position == 1 and name != Requested.name:
        return "is the first event, which must be a request"
    data = event.data
    own = f"{data.resource}:{data.action}" if isinstance(data, Requested) else head.kind
    return "" if own == kind else f"is of {own}, but is stored on a subject of {kind}"


def _chain_mismatch(event: RecordedEvent, head: ChainHead) -> str:
    """Return why the event does not continue its operation."""
    before = f"position {head.position} (sequence {head.sequence})" if head.sequence else f"position {head.position}"
    if isinstance(event.data, Requested) and event.position > 1:
        return "is a request, which must be the first event"
    if event.position <= head.position:
        return f"comes after {before}: it is a duplicate, inserted, or out of order"
    if event.position > head.position + 1:
        return f"follows {before or 'nothing'}: the events between them were removed, or are out of order"
    if head.position == 0:
        return "is the first of its operation, but carries the hash of another"
    return f"does not carry the hash of {before}: one of them was changed or inserted"
