"""The end of an attempt whose operation waits: the command that records it, and the signals that it passes over.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from opstream_schemas.events import RefusedSignal, WaitBegun
from opstream_schemas.operation.commands import BeginWait
from opstream_schemas.operation.state import Operation
from opstream_schemas.signals.payload_check import payload_check
from opstream_schemas.signals.signal_book import NO_SIGNALS, KeptSignal, sender_problem


def begin_wait(token: str, wait: WaitBegun, operation: Operation, payloads: Mapping[int, msgspec.Raw]) -> BeginWait:
    """Return the command that records a wait.

    Args:
        token: of the attempt.
        wait: what the handler waits for.
        operation: the state to decide on.
        payloads: of the operation's signals, by the positions of their events.
    """
    signal = wait.signal
    kept = (operation.signals or NO_SIGNALS).of(wait.wait) if signal is not None else ()
    if signal is None or not kept:
        return BeginWait(token=token, data=wait)
    problem = payload_check(signal.schema)
    counted: list[KeptSignal] = []
    refused: list[RefusedSignal] = []
    for one in kept:
        why = problem(payloads[one.position]) or sender_problem(signal, one.by, operation.caller, counted)
        if why:
            refused.append(RefusedSignal(position=one.position, reason=why))
        else:
            counted.append(one)
    return BeginWait(token=token, data=msgspec.structs.replace(wait, refused=tuple(refused)))
