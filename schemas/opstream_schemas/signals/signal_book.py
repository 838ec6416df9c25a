"""The signals of an operation that its state has: those that nothing has taken, and what is known of the others. Pure.

Payloads stay in their events: a state is written again with each event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

import msgspec

from opstream_schemas.event_types.signals import Signaled, SignalWait

MAX_KEPT: Final = 100
"""Signals that an operation keeps at a time and nothing has taken."""
MAX_SIGNALS: Final = 1_000
"""Signals that an operation takes in its life."""
MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of a signal's payload."""

_ID_LENGTH: Final = 22
"""Characters of a request's id and hash that a state has: 132 and 88 bits."""


class KeptSignal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A signal that nothing has taken."""

    name: str
    position: int
    """Of its event in the operation."""
    by: str = ""
    """Its sender; empty for an unknown one."""


class SignalBook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The signals of an operation."""

    kept: tuple[KeptSignal, ...] = ()
    """Those that nothing has taken, in the order of their events. Those of the present wait are among them."""
    count: int = 0
    """How many signals it had in all."""
    requests: dict[str, str] = {}
    """The hash of each request that had an id, by that id; both cut."""
    closed: tuple[str, ...] = ()
    """The names whose wait is over."""

    def with_signal(self, data: Signaled, position: int) -> Self:
        """Return the book after a signal."""
        requests = self.requests
        if data.request_id:
            requests = {**requests, data.request_id[:_ID_LENGTH]: data.request_hash[:_ID_LENGTH]}
        kept = KeptSignal(name=data.signal, position=position, by=data.by)
        return msgspec.structs.replace(self, kept=(*self.kept, kept), count=self.count + 1, requests=requests)

    def without(self, positions: Iterable[int]) -> Self:
        """Return the book without the signals of these positions."""
        gone = frozenset(positions)
        if not gone:
            return self
        return msgspec.structs.replace(self, kept=tuple(one for one in self.kept if one.position not in gone))

    def with_closed(self, name: str) -> Self:
        """Return the book after the wait for a name is over: it keeps no signal of that name any more."""
        kept = tuple(one for one in self.kept if one.name != name)
        return msgspec.structs.replace(self, kept=kept, closed=(*self.closed, name))

    def of(self, name: str) -> tuple[KeptSignal, ...]:
        """Return the kept signals of a name, in order."""
        return tuple(one for one in self.kept if one.name == name)

    def request_hash(self, request_id: str) -> str | None:
        """Return the cut hash of the request with this id; None if there was none."""
        return self.requests.get(request_id[:_ID_LENGTH])

    @staticmethod
    def cut(request_hash: str) -> str:
        """Return a hash as `request_hash` returns it."""
        return request_hash[:_ID_LENGTH]


NO_SIGNALS: Final = SignalBook()


def sender_problem(wait: SignalWait, by: str, requester: str, counted: Iterable[KeptSignal]) -> str:
    """Return why a sender does not count for a wait; empty if it does.

    Args:
        wait: what is waited for.
        by: the sender; empty for an unknown one.
        requester: who requested the operation.
        counted: the signals that count already.
    """
    if not wait.needs_proof:
        return ""
    if not by:
        return "nobody has proven to have sent it"
    if wait.not_requester and by == requester:
        return "the requester of the operation has sent it"
    if any(one.by == by for one in counted):
        return "its sender has sent another one"
    return ""


def counting(name: str, wait: SignalWait, book: SignalBook, requester: str) -> tuple[KeptSignal, ...]:
    """Return the kept signals that count for the wait of a name, in order, and no more than it needs."""
    found: list[KeptSignal] = []
    for one in book.of(name):
        if len(found) < wait.approvers and not sender_problem(wait, one.by, requester, found):
            found.append(one)
    return tuple(found)


def is_complete(name: str, wait: SignalWait, book: SignalBook, requester: str) -> bool:
    """Return True if the wait of a name has all the signals that it needs."""
    return len(counting(name, wait, book, requester)) == wait.approvers
