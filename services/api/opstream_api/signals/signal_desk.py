"""Signals: what a client sends becomes an event of the operation.

The append with an expected version decides every race, also that with the begin of a wait: after a conflict the payload
is checked by what the operation waits for then.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from opstream_api.errors import ApiError, journal_error, operation_not_found, operation_unreadable
from opstream_api.inputs.input_validation import CompiledSchema, compile_or_fail
from opstream_api.operations.operation_cache import OperationCache
from opstream_api.operations.status import StatusReader
from opstream_api.operations.submit import BUDGET, EVENT_SOURCE
from opstream_journal import Journal, JournalError, JournalUnavailable
from opstream_journal.command_handler import CommandHandler, Proposal
from opstream_journal.journal import ExpectedVersion
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_schemas.errors import ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import SignalWait
from opstream_schemas.operation.fold import evolve, fold, next_event
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.sealed_events import seal_event
from opstream_schemas.signals.signal_decision import (
    KnownSignal,
    SignalRefused,
    SignalState,
    decide_signal,
)

from .signal_request import SignalRequest

_COMPILED: Final = 100
"""Schemas of waits that stay compiled."""


class TakenSignal(NamedTuple):
    """What became of a signal."""

    operation: Operation
    """Its state after the signal."""
    state: SignalState


class SignalDesk:
    """Appends signals.

    Args:
        journal: the journal.
        status: reads operations.
        cache: gets the new state.
        keys: of confidential operations.
        now: returns the time of events, with a time zone.
        clock: returns monotonic seconds.
        new_id: generates event ids.
    """

    def __init__(
        self,
        journal: Journal,
        status: StatusReader,
        cache: OperationCache,
        keys: OperationKeys,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._status = status
        self._cache = cache
        self._keys = keys
        self._now = now
        self._new_id = new_id
        self._commands = CommandHandler(journal=journal, source=EVENT_SOURCE, now=now, monotonic=clock, new_id=new_id)
        self._schemas: OrderedDict[bytes, CompiledSchema] = OrderedDict()

    async def send(self, operation_id: str, request: SignalRequest) -> TakenSignal:
        """Record a signal, or find that the same request is recorded.

        Takes at most `BUDGET` seconds.

        Args:
            operation_id: the id under which the operation is stored.
            request: what is sent.

        Raises:
            ApiError: `InvalidInput`: the payload does not fit what the operation waits for; `OperationNotFound`;
                `OperationFinished`, `SignalTooLate`, `SignalRepeated`, `SenderNotAllowed`, `TooManySignals`,
                `RequestIdReused`: as `decide_signal`; `JournalUnavailable` and `JournalFull`: send it again;
                `InternalError`: it has events that this version can't fold.
        """
        try:
            async with asyncio.timeout(BUDGET):
                return await self._send(operation_id, request)
        except TimeoutError:
            raise journal_error(JournalUnavailable("the signal took too long", maybe_stored=True)) from None
        except SignalRefused as refused:
            raise ApiError(refused.code, str(refused)) from refused
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(operation_id, error) from error
        except JournalError as error:
            raise journal_error(error) from error

    async def _send(self, operation_id: str, request: SignalRequest) -> TakenSignal:
        found: TakenSignal | None = None

        async def propose() -> Proposal | None:
            nonlocal found
            operation = await self._status.read(operation_id)
            # A status is folded leniently, for readers. A decision must not pass over any event.
            operation = fold(operation, ()) or operation
            data = request.data(self._checked(operation, request))
            key = await self._keys.find(operation.kind, operation.id) if operation.confidential else None
            if key is not None and data.request_hash:
                data = msgspec.structs.replace(data, request_hash=key.keyed_hash(data.request_hash))
            decision = decide_signal(operation.receiver, data, is_proven=request.is_proven)
            found = TakenSignal(operation, decision.state)
            if isinstance(decision, KnownSignal):
                return None
            if request.wait and decision.state is SignalState.KEPT:
                raise operation_not_found()  # the journal has lost the wait whose URL this is
            signaled = decision.data if key is None else seal_event(decision.data, key)
            event = next_event(operation, signaled, id=self._new_id(), source=EVENT_SOURCE, time=self._now())
            return Proposal(kind=operation.kind, event=event, expected=ExpectedVersion(operation.stream_sequence))

        stored = await self._commands.record(propose, budget=BUDGET)
        if found is None:
            raise RuntimeError("a signal is decided, or an error")
        if stored is None:
            return found
        crash_point(CrashPoint.API_SIGNALED)
        return found._replace(operation=self._cache.put(evolve(found.operation, stored)))

    def _checked(self, operation: Operation, request: SignalRequest) -> bytes:
        """Return the payload as it is to be recorded, once it fits what the operation waits for.

        Raises:
            ApiError: `InvalidInput`; `OperationNotFound`: it came by the URL of another wait.
        """
        wait = operation.receiver.waits_for(request.name)
        if wait is None:
            return request.document
        if request.wait and (operation.waiting is None or operation.waiting.sequence != request.wait):
            raise operation_not_found()
        what = f"the signal {request.name!r}"
        return self._compiled(wait, what).validate(request.document, request.value, what)[0]

    def _compiled(self, wait: SignalWait, what: str) -> CompiledSchema:
        key = bytes(wait.schema)
        known = self._schemas.pop(key, None)
        if known is None:
            schema = msgspec.json.decode(key)
            if not isinstance(schema, dict):
                raise ApiError(ErrorCode.INTERNAL_ERROR, f"the schema of {what} can't be used")
            known = compile_or_fail(schema, what)
        self._schemas[key] = known
        while len(self._schemas) > _COMPILED:
            self._schemas.popitem(last=False)
        return known
