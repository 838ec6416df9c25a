"""Signals that a test sends, by the door of the API and the wake-up of the projector, on the virtual clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from opstream.testing.errors import RunRefused
from opstream.testing.virtual_time import VirtualClock
from opstream_journal import Connection
from opstream_journal.command_handler import CommandHandler
from opstream_projector.after_effects import Waker
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation

if TYPE_CHECKING:
    from opstream_api.operations.operation_cache import OperationCache
    from opstream_api.operations.status import StatusReader
    from opstream_journal.keys.operation_keys import OperationKeys


class Signal(msgspec.Struct, frozen=True):
    """What a caller sends to the operation: `Signal("approval", {"approved": True}, by="ann")`."""

    name: str
    payload: Any = msgspec.field(default_factory=dict)
    """A dict, an instance of the type that is waited for, or JSON as bytes."""
    by: str = ""
    """Who sends it, by their credentials; empty for an unknown caller."""
    after: float = 0.0
    """Seconds from the begin of the wait."""
    is_early: bool = False
    """True to send it right after the request, before the operation waits for it."""


class SignalSender:
    """The signals of one run.

    Args:
        signals: all of them.
        clock: the time.
    """

    def __init__(self, signals: Iterable[Signal], clock: VirtualClock) -> None:
        self._left = list(signals)
        self._clock = clock
        self._begun: dict[str, datetime] = {}
        """By the name of a wait: when it began."""

    async def send_due(self, operation: Operation, others: CommandHandler, connection: Connection) -> bool:
        """Send what is due. Return True if anything was sent.

        Raises:
            RunRefused: the API would refuse a signal.
        """
        now = self._clock.now()
        due = [one for one in self._left if (at := self._moment(operation, one)) is not None and at <= now]
        for signal in due:
            self._left.remove(signal)
            await Waker(connection).apply(await _sent(operation.id, signal, others))
        return bool(due)

    def next_moment(self, operation: Operation) -> datetime | None:
        """Return when the next signal is due; None if none is as far as can be seen."""
        return min(filter(None, (self._moment(operation, one) for one in self._left)), default=None)

    def check_used(self, waits: Iterable[str]) -> None:
        """Check that the operation has waited for each signal that is left.

        Raises:
            RunRefused: it has not; the message names what it has waited for.
        """
        known = dict.fromkeys(waits)
        unused = [one.name for one in self._left if one.name not in known]
        if unused:
            found = ", ".join(map(repr, known)) or "nothing"
            raise RunRefused(f"the operation did not wait for the signal {unused[0]!r}; it waited for: {found}")

    def _moment(self, operation: Operation, signal: Signal) -> datetime | None:
        if signal.is_early:
            return operation.created_at
        if operation.receiver.waits_for(signal.name) is None:
            return None
        return self._begun.setdefault(signal.name, self._clock.now()) + timedelta(seconds=signal.after)


async def _sent(operation_id: str, signal: Signal, others: CommandHandler) -> Operation:
    from opstream_api.errors import ApiError
    from opstream_api.inputs.input_validation import decode_input
    from opstream_api.signals.signal_desk import SignalDesk
    from opstream_api.signals.signal_request import SignalRequest, parse_signal_name

    class Journaled:
        """Reads and keeps operations as the API's status and cache do, from the journal alone."""

        async def read(self, _: str) -> Operation:
            operation = fold(None, await others.journal.events(operation_id))
            if operation is None:
                raise RuntimeError(f"operation {operation_id} was not requested")
            return operation

        def put(self, operation: Operation) -> Operation:
            return operation

    desk = SignalDesk(
        others.journal,
        cast("StatusReader", Journaled()),
        cast("OperationCache", Journaled()),
        keys=cast("OperationKeys", None),  # nothing is sealed here
        now=others.now,
        clock=others.monotonic,
        new_id=others.new_id,
    )
    payload = signal.payload if isinstance(signal.payload, bytes) else msgspec.json.encode(signal.payload)
    try:
        document, value = decode_input(payload)
        name = parse_signal_name(signal.name)
        request = SignalRequest(name=name, document=document, value=value, by=signal.by, is_proven=bool(signal.by))
        return (await desk.send(operation_id, request)).operation
    except ApiError as error:
        raise RunRefused(f"the API would refuse the signal {signal.name!r}: {error}") from error
