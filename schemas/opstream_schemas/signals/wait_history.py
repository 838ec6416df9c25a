"""What became of the waits of an operation, for the attempts that follow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from opstream_schemas.events import (
    CancelRequested,
    CleanUpBegun,
    RecordedEvent,
    Signaled,
    SignalWait,
    Started,
    WaitBegun,
)

from .signal_book import NO_SIGNALS, counting


class WaitEvent(msgspec.Struct, frozen=True):
    """An event that decides what becomes of a wait, or what belongs to a clean-up."""

    position: int
    data: Signaled | WaitBegun | Started | CancelRequested | CleanUpBegun


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
        if isinstance(data := event.data, Signaled | WaitBegun | Started | CancelRequested | CleanUpBegun)
    )


def clean_up_begin(events: Iterable[WaitEvent]) -> WaitEvent | None:
    """Return the event with which the clean-up of a canceled operation began; None before one.

    That is a step of the clean-up in the attempt that was running, or the first attempt after the cancel request.
    """
    is_canceled = False
    for event in events:
        if is_canceled and isinstance(event.data, CleanUpBegun | Started):
            return event
        is_canceled = is_canceled or isinstance(event.data, CancelRequested)
    return None


def cut_child_wait(events: Iterable[WaitEvent]) -> WaitBegun | None:
    """Return the wait for children that a cancel request has cut short; None for none."""
    begun: WaitBegun | None = None
    for event in events:
        match event.data:
            case WaitBegun() as begun:
                pass
            case Started():
                begun = None
            case CancelRequested():
                return begun if begun is not None and begun.child is not None else None
    return None


def sleeps(events: Iterable[WaitEvent]) -> tuple[WaitBegun, ...]:
    """Return the waits for a time or children that are over, in order, of an operation whose next attempt begins.

    One that a cancel has cut short is not over.
    """
    found: list[WaitBegun] = []
    is_open = False
    for event in events:
        match event.data:
            case WaitBegun(signal=None) as wait:
                found.append(wait)
                is_open = True
            case CancelRequested() if is_open:
                found.pop()
                is_open = False
            case WaitBegun() | Started():
                is_open = False
    return tuple(found)


def signal_payloads(events: Iterable[WaitEvent]) -> dict[int, msgspec.Raw]:
    """Return the payloads of all signals, by the positions of their events."""
    return {event.position: event.data.payload for event in events if isinstance(event.data, Signaled)}


def closed_waits(events: Iterable[WaitEvent], requester: str, *, has_started: bool = False) -> Mapping[str, ClosedWait]:
    """Return what became of the waits that are over, by their names.

    A wait is over with the first attempt that starts after it, unless a cancel has cut it short. The fold says the same
    (`SignalBook.closed`), without payloads.

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
            case CancelRequested():
                begun = None
            case Started():
                close()
    if has_started:
        close()
    return closed
