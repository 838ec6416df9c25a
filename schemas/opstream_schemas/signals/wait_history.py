"""What became of the waits of an operation, for the attempts that follow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from opstream_schemas.events import RecordedEvent, Signaled, SignalWait, Started, WaitBegun

from .signal_book import NO_SIGNALS, counting


class WaitEvent(msgspec.Struct, frozen=True):
    """An event that decides what becomes of a wait."""

    position: int
    data: Signaled | WaitBegun | Started


class ClosedWait(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wait that is over. It never changes."""

    payloads: tuple[msgspec.Raw, ...] = ()
    """What was sent, in order; none if the wait timed out."""

    @property
    def has_timed_out(self) -> bool:
        """Return True if too few signals came before it was over."""
        return not self.payloads


def wait_events(events: Iterable[RecordedEvent]) -> tuple[WaitEvent, ...]:
    """Return those of some events of an operation that decide about its waits."""
    return tuple(
        WaitEvent(event.position, data)
        for event in events
        if isinstance(data := event.data, Signaled | WaitBegun | Started)
    )


def sleeps(events: Iterable[WaitEvent]) -> tuple[WaitBegun, ...]:
    """Return the waits for a time, in order."""
    return tuple(event.data for event in events if isinstance(event.data, WaitBegun) and event.data.signal is None)


def signal_payloads(events: Iterable[WaitEvent]) -> dict[int, msgspec.Raw]:
    """Return the payloads of all signals, by the positions of their events."""
    return {event.position: event.data.payload for event in events if isinstance(event.data, Signaled)}


def closed_waits(events: Iterable[WaitEvent], requester: str, *, has_started: bool = False) -> Mapping[str, ClosedWait]:
    """Return what became of the waits that are over, by their names.

    A wait is over with the first attempt that starts after it. The fold says the same (`SignalBook.closed`), without
    payloads.

    Args:
        events: all of the operation's, in order.
        requester: who requested it.
        has_started: True if an attempt has started after these events.
    """
    book, payloads = NO_SIGNALS, dict[int, msgspec.Raw]()
    begun: tuple[str, SignalWait] | None = None
    closed: dict[str, ClosedWait] = {}

    def close() -> None:
        nonlocal begun, book
        if begun is not None:
            name, wait = begun
            taken = counting(name, wait, book, requester)
            found = tuple(payloads[one.position] for one in taken) if len(taken) == wait.approvers else ()
            closed[name] = ClosedWait(payloads=found)
            begun, book = None, book.with_closed(name)

    for event in events:
        match event.data:
            case Signaled() as signaled:
                book = book.with_signal(signaled, event.position)
                payloads[event.position] = signaled.payload
            case WaitBegun(wait=name, signal=SignalWait() as wait, refused=refused):
                begun, book = (name, wait), book.without(one.position for one in refused)
            case Started():
                close()
    if has_started:
        close()
    return closed
