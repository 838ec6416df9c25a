"""What the door says to a signal: the event to append, or why none. Pure.

The rows are those of docs/signals.md, and the first that matches wins. Each decision carries its row. Whether the
payload fits the schema of the wait is asked before, by the one who decides.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from opstream_schemas.errors import DecisionRefused, ErrorCode
from opstream_schemas.event_types.signals import Signaled, SignalWait

from .signal_book import MAX_KEPT, MAX_SIGNALS, SignalBook, counting, is_complete


class SignalState(StrEnum):
    """What became of a signal: the header `Signal-State`."""

    DELIVERED = "Delivered"
    """The operation waits for it, or did."""
    KEPT = "Kept"
    """Nothing waits for it yet. Whether it fits is seen when something does."""


class SignalRefused(DecisionRefused):
    """The operation does not take the signal.

    Args:
        row: of the table.
        code: for the client.
        message: likewise.
    """

    def __init__(self, row: int, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.row = row
        self.code = code


class KnownSignal(msgspec.Struct, frozen=True):
    """The same request was recorded before."""

    row: int
    state: SignalState


class NewSignal(msgspec.Struct, frozen=True):
    """Append the event."""

    row: int
    data: Signaled
    state: SignalState


class SignalReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision needs to know of an operation (`Operation.receiver`)."""

    status: str
    is_terminal: bool
    requester: str
    """Who requested it."""
    book: SignalBook
    awaited: str = ""
    """The name of the signal that it waits for; empty if it waits for none."""
    wait: SignalWait | None = None
    """What it waits for under that name; None if it waits for none."""

    def waits_for(self, name: str) -> SignalWait | None:
        """Return the wait that a signal of a name is for; None if the operation does not wait for it now."""
        return self.wait if self.awaited == name else None


_LATE: Final = "the operation does not wait for {!r} any more: it has its answer, or its time was over"


def decide_signal(receiver: SignalReceiver, data: Signaled, *, is_proven: bool) -> KnownSignal | NewSignal:
    """Decide about a signal.

    Args:
        receiver: the operation.
        data: what is sent. Its payload fits the schema of the wait, if there is one.
        is_proven: True if the service knows its callers by their credentials.

    Raises:
        SignalRefused: the message is for the client.
    """
    book, wait = receiver.book, receiver.waits_for(data.signal)
    if data.request_id and (known := book.request_hash(data.request_id)) is not None:
        if known != book.cut(data.request_hash):
            message = "another signal was sent with these Repeatability headers: send each with headers of its own"
            raise SignalRefused(1, ErrorCode.REQUEST_ID_REUSED, message)
        is_kept = wait is None and any(one.name == data.signal for one in book.kept)
        return KnownSignal(1, SignalState.KEPT if is_kept else SignalState.DELIVERED)
    if receiver.is_terminal:
        message = f"the operation is {receiver.status}, and takes no signal"
        raise SignalRefused(2, ErrorCode.OPERATION_FINISHED, message)
    if data.signal in book.closed:
        raise SignalRefused(3, ErrorCode.SIGNAL_TOO_LATE, _LATE.format(data.signal))
    if wait is not None:
        _check_sender(wait, receiver, data, is_proven=is_proven)
    if book.count >= MAX_SIGNALS or (wait is None and len(book.kept) >= MAX_KEPT):
        limit = f"{MAX_SIGNALS} signals in all, and keeps {MAX_KEPT} for waits that have not begun"
        raise SignalRefused(7, ErrorCode.TOO_MANY_SIGNALS, f"an operation takes {limit}")
    return NewSignal(8, data, SignalState.DELIVERED if wait is not None else SignalState.KEPT)


def _check_sender(wait: SignalWait, receiver: SignalReceiver, data: Signaled, *, is_proven: bool) -> None:
    requester = receiver.requester
    if is_complete(data.signal, wait, receiver.book, requester):
        raise SignalRefused(4, ErrorCode.SIGNAL_TOO_LATE, _LATE.format(data.signal))
    if not wait.needs_proof:
        return
    if not is_proven or not data.by:
        message = (
            f"who sends {data.signal!r} has to be proven: send it with the credentials of a person or service, to an "
            "API that asks for them"
        )
        raise SignalRefused(5, ErrorCode.SENDER_NOT_ALLOWED, message)
    if wait.not_requester and data.by == requester:
        message = f"who has requested the operation can't send {data.signal!r}: another caller has to"
        raise SignalRefused(5, ErrorCode.SENDER_NOT_ALLOWED, message)
    if any(one.by == data.by for one in counting(data.signal, wait, receiver.book, requester)):
        message = f"{wait.approvers} different callers have to send {data.signal!r}, and this one has sent it already"
        raise SignalRefused(6, ErrorCode.SIGNAL_REPEATED, message)
