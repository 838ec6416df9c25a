"""Streams in which messages can be changed, inserted or removed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from opstream_schemas import subjects
from opstream_schemas.integrity.chain_state import Finding
from opstream_schemas.integrity.hash_chain import HashChainVerifier
from opstream_schemas.names import Kind
from tests.support.schemas.histories import History

KIND = Kind("book", "upload-start")


class Stored(NamedTuple):
    """A message of a stream."""

    sequence: int
    subject: str
    data: bytes

    @property
    def body(self) -> str:
        """SHA-256 (hex) of the data."""
        return hashlib.sha256(self.data).hexdigest()


def stream(histories: Sequence[History], order: Iterable[int] = ()) -> list[Stored]:
    """The events of operations as one stream; `order` has the index of the next event's operation."""
    left = [list(zip(one.events, one.payloads, strict=True)) for one in histories]
    picks = [*order, *(index for index, events in enumerate(left) for _ in events)]
    messages: list[Stored] = []
    for pick in picks:
        index = pick % len(left)
        if not left[index]:
            continue
        event, payload = left[index].pop(0)
        history = histories[index]
        kind = history.operation.kind
        name = event.type.split(".")[2]
        subject = subjects.event_subject(history.id, kind, name)
        messages.append(Stored(len(messages) + 1, subject, payload))
    return messages


def renumbered(messages: Iterable[Stored], first: int = 1) -> list[Stored]:
    """Renumber messages without gaps, as in a copy."""
    return [one._replace(sequence=number) for number, one in enumerate(messages, start=first)]


def checked(
    messages: Sequence[Stored], *, first: int = 1, can_expire: bool = False, **options: bool
) -> HashChainVerifier:
    """Run the verifier over messages, and return it."""
    check = HashChainVerifier(first=first, can_expire=can_expire, **options)
    for one in messages:
        if one.sequence != check.next_sequence:
            check.add_gap(one.sequence, is_expired=False)
        check.add_message(one.sequence, one.subject, one.data, one.body)
    check.finish()
    return check


def findings(messages: Sequence[Stored], *, first: int = 1, can_expire: bool = False, **options: bool) -> list[Finding]:
    """The findings of the verifier."""
    return checked(messages, first=first, can_expire=can_expire, **options).findings
