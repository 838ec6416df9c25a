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
from opstream_schemas.operation.fold import forced_end
from opstream_schemas.subjects import DUE_TO, WAKES_TO, parse_archive_subject, parse_event_subject

from .chain_state import Finding, Head, Other, Remembered, Trouble

_NO_EVENTS: Final = (WAKES_TO.removesuffix(">"), DUE_TO.removesuffix(">"))
_TYPE: Final = re.compile(r"opstream\.action\.([a-z0-9-]{1,40})\.v[1-9][0-9]*")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ENDS: Final = frozenset({"succeeded", "failed", "canceled"})
_MAX_HELD: Final = 10_000
"""Findings that wait for a forced end; more are told at once, so that a ruined stream does not fill the memory."""


class ChainCheck:
    """The check of one stream.

    Args:
        first: the stream's first sequence, or where to begin behind a checkpoint.
        can_expire: whether the beginnings of operations may lie before `first`, gone with age.
        heads: the operations that were open at the checkpoint behind which it begins; then nothing may be cut.
        is_archive: the stream is ARCHIVE. Its subjects name no operation; it may have begun in the middle of the
            journal's life, so cut beginnings are notes; and an id may come again once the journal has forgotten it.
    """

    def __init__(
        self, *, first: int, can_expire: bool, heads: Mapping[str, Head] | None = None, is_archive: bool = False
    ) -> None:
        self.next_sequence = first
        """Of the message that should come next."""
        self.events = 0
        """Messages on event subjects."""
        self.operations = 0
        """Operations seen, cut ones included; not those that were open at a checkpoint."""
        self.cut = 0
        """Operations of which the beginning has expired."""
        self.open: dict[str, Head] = dict(heads or {})
        """By operation id."""
        self.notes: list[Finding] = []
        """What is no tampering, but should be told. Whoever tells it empties the list."""
        self.findings: list[Finding] = []
        """What is. Whoever tells it empties the list."""
        self._ended = Remembered()
        self._is_archive = is_archive
        self._room = first - 1 if can_expire and heads is None else 0
        self._held = 0
        self._strangers: dict[str, Finding] = {}

    def miss(self, until: int, *, is_expired: bool) -> None:
        """Tell that there is no message from `next_sequence` to the one before `until`.

        Args:
            until: the sequence of the next one that there is.
            is_expired: the stream itself begins there by now. Nothing is known then of what came before.
        """
        if is_expired:
            for operation_id in list(self.open):
                self._conclude(operation_id, self.open[operation_id])
            self._ended = Remembered()
            self._room = until - 1
        else:
            which = f"messages {self.next_sequence} to {until - 1} are" if until - self.next_sequence > 1 else "it is"
            what = f"{which} missing, and the stream deletes nothing but what has expired"
            self.findings.append(Finding(self.next_sequence, what))
        self.next_sequence = until

    def take(self, sequence: int, subject: str, payload: bytes, body: str) -> None:
        """Check the next message.

        Args:
            sequence: in the stream.
            subject: as it is stored.
            payload: as it is stored.
            body: SHA-256 (hex) of the payload.
        """
        self.next_sequence = sequence + 1
        if subject.startswith(_NO_EVENTS):
            return
        self.events += 1
        try:
            owner, kind, name = self._parse(subject)
        except InvalidName:
            self.findings.append(Finding(sequence, f"lies on {subject[:200]!r}, which is no event's subject"))
            return
        try:
            event = decode_event(payload, sequence)
        except InvalidEvent as error:
            self._reject_bytes(owner, kind, sequence, body, f"is no event: {error.__cause__ or error}")
            return
        if owner is not None and event.operation_id != owner:
            what = f"belongs to operation {event.operation_id}, but lies on a subject of {owner}"
            self._reject_bytes(owner, kind, sequence, body, what)
            return
        head = self.open.get(event.operation_id) or self._begin(event, kind)
        if head is None:
            return
        if what := _disagreement(event, head, kind, name):
            self._hold(head, self._finding(event, what))
        forced = forced_end(event)
        if forced is not None and head.count:
            self._end_by_force(event, forced, head, body)
        elif continues(event, head.position, head.digest):
            head.position, head.digest, head.sequence, head.count = event.position, body, sequence, head.count + 1
            if head.trouble is not None:
                head.trouble.last_sequence, head.trouble.last_digest = sequence, body
            if name in _ENDS:
                self._conclude(event.operation_id, head)
        else:
            self._reject(event, head, body, is_end=name in _ENDS)

    def finish(self) -> None:
        """Tell what was held back; nothing comes any more."""
        for head in self.open.values():
            if head.trouble is not None:
                self.findings += head.trouble.findings
                head.trouble.findings = []
        self.findings += self._strangers.values()
        self._strangers = {}
        self.findings.sort(key=lambda finding: finding.sequence)

    def _parse(self, subject: str) -> tuple[str | None, str, str]:
        """The operation id (None where subjects name none), `resource:action`, and the event's name."""
        if not self._is_archive:
            parsed = parse_event_subject(subject)
            return parsed.operation_id, f"{parsed.kind.resource}:{parsed.kind.action}", parsed.event
        archived = parse_archive_subject(subject)
        return None, f"{archived.kind.resource}:{archived.kind.action}", archived.event

    def _begin(self, event: RecordedEvent, kind: str) -> Head | None:
        """What an operation's first message here has to continue; None if there can be no such message."""
        if event.operation_id in self._ended:
            is_first = event.position == 1
            if not (is_first and self._is_archive):
                what = "requests an id that had been used before" if is_first else "follows the end of its operation"
                self.findings.append(self._finding(event, what))
                return None
            self.notes.append(self._finding(event, "requests an id that the journal had forgotten"))
        self.operations += 1
        missing = event.position - 1
        head = Head(kind, 0, "", 0)
        if missing and _DIGEST.fullmatch(event.previous_hash) and not isinstance(event.data, Requested):
            head = Head(kind, missing, event.previous_hash, 0, missing=missing)
            what = f"is the first of its operation, and position{' 1 is' if missing == 1 else f's 1 to {missing} are'}"
            if self._is_archive:
                self.notes.append(self._finding(event, f"{what} not in this stream"))
            elif missing <= self._room:
                self._room -= missing
                self.cut += 1
            else:
                self._hold(head, self._finding(event, f"{what} missing: they can't have expired"))
        self.open[event.operation_id] = head
        return head

    def _end_by_force(self, event: RecordedEvent, forced: ForcedEnd, head: Head, body: str) -> None:
        trouble = head.trouble or Trouble(head.sequence, head.digest)
        stranger = self._strangers.pop(event.previous_hash, None)
        is_next = event.previous_hash == trouble.last_digest or stranger is not None
        place = event.position - head.count - head.missing - 1
        if not self._is_archive:
            is_next = is_next and forced.sequence == trouble.last_sequence
            is_next = is_next and (place == 0 or (place < 0 < head.missing))
        elif place < 0 and not head.missing:
            is_next = False
        if not is_next:
            # What did not end it when it was written, a foreign one, may be passed over by the end that did.
            self._hold(head, self._finding(event, "ends by force what is not before it: something was changed since"))
            self._pass_over(head, event.sequence, body)
            return
        if trouble.passed_over > forced.passed_over:
            what = (
                f"ended by force what then had {forced.passed_over} messages that did not continue it, and has "
                f"{trouble.passed_over} now: something was changed since"
            )
            self._hold(head, self._finding(event, what))
        else:
            held = [*([stranger] if stranger else ()), *(head.trouble.findings if head.trouble else ())]
            self._held -= len(held) - (stranger is not None)
            what = f"an operator ended it by force, passing over {forced.passed_over} messages"
            self.notes += [*held, self._finding(event, what)]
            head.trouble = None
        head.sequence, head.digest = event.sequence, body
        self._conclude(event.operation_id, head)

    def _reject(self, event: RecordedEvent, head: Head, body: str, *, is_end: bool) -> None:
        """Take an event that does not continue its operation, but may continue another such one."""
        trouble = _trouble(head)
        other = trouble.other
        is_known = other is not None and not other.is_end and continues(event, other.position, other.digest)
        if not is_known:
            self._hold(head, self._finding(event, _mismatch(event, head)))
        trouble.other = Other(event.position, body, is_end)
        self._pass_over(head, event.sequence, body)
        if is_known and is_end:
            self._conclude(event.operation_id, head)

    def _reject_bytes(self, owner: str | None, kind: str, sequence: int, body: str, what: str) -> None:
        """Take a message that is no event of the operation under whose subjects it lies."""
        finding = Finding(sequence, what, owner or "")
        if owner is None and len(self._strangers) < _MAX_HELD:
            self._strangers[body] = finding
        elif owner is None or owner in self._ended:
            self.findings.append(finding)
        else:
            head = self.open.setdefault(owner, Head(kind, 0, "", 0))
            self._hold(head, finding)
            self._pass_over(head, sequence, body)

    def _pass_over(self, head: Head, sequence: int, body: str) -> None:
        trouble = _trouble(head)
        trouble.passed_over += 1
        trouble.last_sequence, trouble.last_digest = sequence, body
        head.count += 1

    def _hold(self, head: Head, finding: Finding) -> None:
        if self._held < _MAX_HELD:
            self._held += 1
            _trouble(head).findings.append(finding)
        else:
            self.findings.append(finding)

    def _conclude(self, operation_id: str, head: Head) -> None:
        if head.trouble is not None:
            self._held -= len(head.trouble.findings)
            self.findings += head.trouble.findings
        del self.open[operation_id]
        self._ended.add(operation_id)

    def _finding(self, event: RecordedEvent, what: str) -> Finding:
        return Finding(event.sequence, what, event.operation_id, event.position)


def continues(event: RecordedEvent, position: int, digest: str) -> bool:
    """Whether an event comes right behind the one with this position and hash (0 and none: behind nothing)."""
    return (
        event.position == position + 1
        and event.previous_hash == digest
        and (event.data is None or isinstance(event.data, Requested) == (position == 0))
    )


def _trouble(head: Head) -> Trouble:
    if head.trouble is None:
        head.trouble = Trouble(head.sequence, head.digest)
    return head.trouble


def _disagreement(event: RecordedEvent, head: Head, kind: str, name: str) -> str:
    """What an event says otherwise than the subject that it lies on; empty if nothing."""
    typed = _TYPE.fullmatch(event.type)
    if typed is None or typed[1] != name:
        return f"is of type {event.type[:200]!r}, but lies on a subject of {name!r}"
    if event.position == 1 and name != Requested.name:
        return "comes first, which only a request can"
    data = event.data
    own = f"{data.resource}:{data.action}" if isinstance(data, Requested) else head.kind
    return "" if own == kind else f"is of {own}, but lies on a subject of {kind}"


def _mismatch(event: RecordedEvent, head: Head) -> str:
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
