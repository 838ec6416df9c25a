"""The event of an attempt that waits: for a time (docs/adr/0069) or a signal (0071), holding nothing."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .base import EventData, Instant
from .children import ChildWait
from .signals import RefusedSignal, SignalWait


class WaitBegun(EventData, frozen=True, kw_only=True):
    """An attempt ended because its action waits. The next one goes on behind the wait, and this one does not count."""

    name: ClassVar[str] = "waiting"
    type: ClassVar[str] = "opstream.action.waiting.v1"

    attempt: int
    wait: str = msgspec.field(name="name")
    """The name that the action gives it; with `key` it is unique within an attempt. That of the signal, if it waits for
    one."""
    key: str = ""
    until: Instant | None = None
    """When it is over; None for a wait that only its deadline ends by itself."""
    hold: bool = False
    """True if the operation keeps its exclusive resource meanwhile."""
    signal: SignalWait | None = None
    """The signal that ends it before; None for a wait for a time."""
    refused: tuple[RefusedSignal, ...] = ()
    """Signals of the name that came before, and don't fit."""
    child: ChildWait | None = None
    """Of a wait for children; None for one of a time."""
