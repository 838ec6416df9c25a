"""What callers ask for: to make, change, delete and read schedules, and to have an operation of one begin now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from opstream_api.access.principal import Owner, Principal
from opstream_api.errors import ApiError
from opstream_api.operations.submit import Accepted
from opstream_journal import VersionConflict
from opstream_journal.schedules.schedule_stream import ScheduleStream
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.schedules.schedule import (
    MAX_BACKFILL,
    Schedule,
    check_schedule_name,
    next_moments,
    occurrence_id,
    trigger_id,
)
from opstream_schemas.schedules.schedule_event import (
    OccurrenceRecord,
    Outcome,
    ScheduleAct,
    ScheduleChanged,
    ScheduleState,
    encode_schedule_event,
)

from .asker import Asker
from .bodies import decode_definition, decode_range
from .schedule_book import ScheduleBook
from .submits import ScheduleSubmits

logger = logging.getLogger(__name__)

_TRIES: Final = 5


class MadeUp(NamedTuple):
    """A moment that was made up for."""

    due_at: datetime
    operation_id: str
    """Empty if the submit was refused."""
    detail: str


class ScheduleDesk:
    """One process's.

    Args:
        stream: started.
        book: the schedules.
        submits: submits operations.
        check_input: checks the input of an action as a submit does, or raises `ApiError`.
        on_foreign: called with what an administrator did to the schedule of another caller: the administrator, the name
            of the schedule, and what in words.
        now: returns the time with a time zone.
    """

    def __init__(
        self,
        stream: ScheduleStream,
        book: ScheduleBook,
        submits: ScheduleSubmits,
        *,
        check_input: Callable[[Kind, bytes], Awaitable[None]],
        on_foreign: Callable[[Principal, str, str], None],
        now: Callable[[], datetime],
    ) -> None:
        self._stream = stream
        self._book = book
        self._submits = submits
        self._check_input = check_input
        self._on_foreign = on_foreign
        self._now = now
        self._setting = asyncio.Lock()

    async def set(self, asker: Asker, name: str, body: bytes) -> tuple[ScheduleState, bool]:
        """Make a schedule, or change it. Return it, and whether it is new. What is due from now on counts.

        Raises:
            ApiError: `InvalidInput`; `UnknownAction`; `Forbidden`: the caller may not submit the action, its
                credentials can't be revoked; `ScheduleNameTaken`: another caller has it; `TooManySchedules`: the caller
                or its tenant has as many as it may have; `JournalFull`: there is no room for new ones.
            JournalError: the broker did not answer, or refused.
        """
        key = self._key(asker, name)
        if asker.principal is not None and not asker.principal.key_id:
            message = "a schedule outlives a bearer token, and stops with an API key: set it with an API key"
            raise ApiError(ErrorCode.FORBIDDEN, message)
        definition = decode_definition(body)
        asker.check_submit(definition.kind)
        await self._check_input(definition.kind, bytes(definition.input))
        async with self._setting:  # so that a burst does not pass the limits between a look and a change
            return await self._set(asker, name, key, definition)

    async def _set(self, asker: Asker, name: str, key: str, definition: Schedule) -> tuple[ScheduleState, bool]:
        for _ in range(_TRIES):
            found = await self._stream.state(key)
            await self._book.refresh()
            if found is not None and not found.is_deleted and not self._is_own(asker, found):
                raise ApiError(ErrorCode.SCHEDULE_NAME_TAKEN, f"the name {name} is taken: use another one")
            is_new = found is None or found.is_deleted
            now = self._now()
            changed = ScheduleChanged(
                act=ScheduleAct.SET,
                at=now,
                name=name,
                tenant=asker.owner.tenant,
                caller=asker.owner.subject,
                key_id="" if asker.principal is None else asker.principal.key_id,
                created_at=now if found is None or is_new else found.changed.created_at,
                definition=definition,
            )
            if found is not None and _is_same(found.changed, changed):
                return found, False
            await self._check_room(asker, key, changed, is_new=is_new)
            try:
                state = await self._change(key, changed, found)
            except VersionConflict:
                continue
            if found is not None and not is_new:
                self._note(asker, found, "changed")
            return state, is_new
        raise _contended(name)

    async def _check_room(self, asker: Asker, key: str, changed: ScheduleChanged, *, is_new: bool) -> None:
        """Check that the caller, and the stream, have room for a decision. A pause or a deletion needs no check.

        Raises:
            ApiError: `TooManySchedules`, `JournalFull`.
            JournalUnavailable: no leader answered.
        """
        owner = Owner(changed.tenant, changed.caller)
        size, has_access = len(encode_schedule_event(changed)), asker.principal is not None
        self._book.usage.check(key, owner, size, is_new=is_new, has_access=has_access)
        if not await self._stream.has_room():
            raise schedules_full()

    async def pause(self, asker: Asker, name: str, *, is_paused: bool) -> ScheduleState:
        """Pause a schedule, or have it go on; one that is so already stays as it is. Return it.

        It stays its caller's, also if an administrator pauses it. If the caller itself has it go on, it does so with
        the key of that request: the key with which it was set may have been revoked.

        Raises:
            ApiError: `ScheduleNotFound`, `Forbidden`.
            JournalError: the broker did not answer, or refused.
        """
        for _ in range(_TRIES):
            found = await self._own(asker, name)
            if found.changed.is_active is not is_paused:
                return found
            principal = asker.principal
            is_callers_key = principal is not None and principal.key_id and principal.owner == _owner_of(found)
            changed = msgspec.structs.replace(
                found.changed,
                act=ScheduleAct.SET,
                at=self._now(),
                key_id=principal.key_id if principal is not None and is_callers_key else found.changed.key_id,
                definition=msgspec.structs.replace(found.changed.definition, paused=is_paused),
                detail="",
            )
            if not is_paused:
                await self._book.refresh()
                await self._check_room(asker, found.key, changed, is_new=False)
            try:
                state = await self._change(found.key, changed, found)
            except VersionConflict:
                continue
            self._note(asker, found, "paused" if is_paused else "resumed")
            return state
        raise _contended(name)

    async def delete(self, asker: Asker, name: str) -> None:
        """Delete a schedule. What it has begun goes on.

        Raises:
            ApiError: `ScheduleNotFound`, `Forbidden`.
            JournalError: the broker did not answer, or refused.
        """
        for _ in range(_TRIES):
            found = await self._own(asker, name)
            changed = msgspec.structs.replace(found.changed, act=ScheduleAct.DELETED, at=self._now(), detail="")
            try:
                await self._change(found.key, changed, found)
            except VersionConflict:
                continue
            self._note(asker, found, "deleted")
            return
        raise _contended(name)

    async def read(self, asker: Asker, name: str) -> ScheduleState:
        """Return a schedule.

        Raises:
            ApiError: `ScheduleNotFound`: there is none that the caller may see; `Forbidden`.
            JournalError: the broker did not answer, or refused.
        """
        asker.check_read()
        found = await self._stream.state(self._key(asker, name))
        if found is None or found.is_deleted or not asker.sees(found):
            raise schedule_not_found(name)
        return found

    async def find_all(self, asker: Asker) -> list[ScheduleState]:
        """Return the schedules that the caller may see, by their names.

        Raises:
            ApiError: `Forbidden`.
            JournalError: the broker did not answer, or refused.
        """
        asker.check_read()
        await self._book.refresh()
        return sorted((state for state in self._book if asker.sees(state)), key=lambda state: state.changed.name)

    async def preview(self, asker: Asker, name: str, count: int) -> list[datetime]:
        """Return the next moments at which a schedule is due, whether or not it is paused.

        Raises:
            ApiError, JournalError: as `read`.
        """
        state = await self.read(asker, name)
        return next_moments(state.changed.definition, self._now(), count)

    async def history(self, asker: Asker, name: str) -> list[OccurrenceRecord]:
        """Return what became of the moments of a schedule, oldest first, as far as it is kept.

        Raises:
            ApiError, JournalError: as `read`.
        """
        found = await self.read(asker, name)
        records = await self._stream.history(found.key)
        # What was before is of a deleted schedule of this name, perhaps another caller's.
        return [one for one in records if one.recorded_at >= found.changed.created_at]

    async def trigger(self, asker: Asker, name: str) -> tuple[Accepted, str]:
        """Have an operation of a schedule begin now, also of a paused one. Return it and its id; one in a second.

        Raises:
            ApiError: `ScheduleNotFound`, `Forbidden`; as `Submitter.submit`.
            JournalError: the broker did not answer, or refused.
        """
        found = await self._own(asker, name)
        now = self._now()
        operation_id = trigger_id(name, now)
        submitted = await self._submits.submit(found.changed, operation_id)
        outcome = Outcome.SUBMITTED if submitted.accepted is not None else Outcome.REFUSED
        await self._record(found, now, outcome, "trigger", asker, operation_id, submitted.detail)
        if submitted.accepted is None:
            code, _, message = submitted.detail.partition(": ")
            raise ApiError(ErrorCode(code), message)
        self._note(asker, found, "triggered")
        return submitted.accepted, operation_id

    async def backfill(self, asker: Asker, name: str, body: bytes) -> list[MadeUp]:
        """Submit an operation for each moment of a time that has passed. Those that exist stay as they are.

        Raises:
            ApiError: `InvalidInput`: no such body, a time that has not passed, or more than `MAX_BACKFILL` moments;
                `ScheduleNotFound`, `Forbidden`; for now nothing can be submitted.
            JournalError: the broker did not answer, or refused.
        """
        found = await self._own(asker, name)
        span = decode_range(body, self._now())
        moments = next_moments(found.changed.definition, span.begin - timedelta(seconds=1), MAX_BACKFILL + 1)
        due = [moment for moment in moments if span.begin <= moment <= span.end]
        if len(due) > MAX_BACKFILL:
            message = f"the schedule is due more than {MAX_BACKFILL} times in it: name a shorter time"
            raise ApiError(ErrorCode.INVALID_INPUT, message, target="to")
        made = []
        for moment in due:
            operation_id = occurrence_id(name, moment)
            submitted = await self._submits.submit(found.changed, operation_id)
            is_submitted = submitted.accepted is not None
            outcome = Outcome.SUBMITTED if is_submitted else Outcome.REFUSED
            await self._record(found, moment, outcome, "backfill", asker, operation_id, submitted.detail)
            made.append(MadeUp(moment, operation_id if is_submitted else "", submitted.detail))
        self._note(asker, found, f"made up for {len(made)} moments")
        return made

    def _note(self, asker: Asker, found: ScheduleState, what: str) -> None:
        """Have it recorded if an administrator did something to the schedule of another caller."""
        owner = _owner_of(found)
        if asker.principal is not None and owner != asker.owner:
            whose = f"{owner.tenant}/{owner.subject}" if owner.tenant else owner.subject
            self._on_foreign(asker.principal, found.changed.name, f"{what}, of {whose}")

    async def _record(
        self,
        found: ScheduleState,
        due_at: datetime,
        outcome: Outcome,
        cause: str,
        asker: Asker,
        operation_id: str,
        detail: str,
    ) -> None:
        for _ in range(_TRIES):
            state = await self._stream.state(found.key) or found
            record = OccurrenceRecord(
                due_at=due_at,
                outcome=outcome,
                operation_id=operation_id if outcome is Outcome.SUBMITTED else "",
                cause=cause,
                by=asker.owner.subject,
                done_until=state.done_until(self._now()),
                recorded_at=self._now(),
                detail=detail[:500],
            )
            try:
                await self._stream.record(found.key, record, state.last_sequence)
            except VersionConflict:
                continue
            return
        logger.warning("schedule %s: the record of %s is missing in its history", found.changed.name, operation_id)

    async def _change(self, key: str, changed: ScheduleChanged, found: ScheduleState | None) -> ScheduleState:
        sequence = await self._stream.change(key, changed, 0 if found is None else found.changed_sequence)
        state = ScheduleState(
            key=key,
            changed=changed,
            changed_sequence=sequence,
            last=None if found is None or found.is_deleted else found.last,
            last_sequence=0 if found is None else found.last_sequence,
        )
        self._book.put(state)
        return state

    async def _own(self, asker: Asker, name: str) -> ScheduleState:
        """Return a schedule that the caller may change, which needs the right to submit its action."""
        found = await self._stream.state(self._key(asker, name))
        if found is None or found.is_deleted or not asker.sees(found):
            raise schedule_not_found(name)
        if not self._is_own(asker, found):
            raise ApiError(ErrorCode.FORBIDDEN, f"the schedule {name} is another caller's")
        asker.check_submit(found.changed.definition.kind)
        return found

    def _is_own(self, asker: Asker, found: ScheduleState) -> bool:
        if asker.principal is None:
            return True
        return _owner_of(found) == asker.owner or asker.principal.scopes.is_admin

    def _key(self, asker: Asker, name: str) -> str:
        try:
            return self._submits.stored_key(asker.owner.tenant, check_schedule_name(name))
        except InvalidName:
            raise schedule_not_found(name) from None


def _owner_of(found: ScheduleState) -> Owner:
    return Owner(found.changed.tenant, found.changed.caller)


def schedule_not_found(name: str) -> ApiError:
    """Return the error for a name of which the caller may know nothing."""
    return ApiError(ErrorCode.SCHEDULE_NOT_FOUND, f"there is no schedule {name[:80]!r}")


def schedules_full() -> ApiError:
    """Return the error for a stream of schedules without room for new ones."""
    message = "there is no room for more changes of schedules: the service's operator has to make some"
    return ApiError(ErrorCode.JOURNAL_FULL, message)


def _is_same(known: ScheduleChanged, wanted: ScheduleChanged) -> bool:
    """Return True if a schedule is already as it shall be, so that a repeated request takes no room."""
    return encode_schedule_event(msgspec.structs.replace(wanted, at=known.at)) == encode_schedule_event(known)


def _contended(name: str) -> ApiError:
    message = f"the schedule {name} is being changed by others: send the same request again"
    return ApiError(ErrorCode.JOURNAL_UNAVAILABLE, message)
