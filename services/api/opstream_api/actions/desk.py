"""What callers see of actions, and what operators do to them: pause, resume and withdraw."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar

import msgspec

from opstream_api.access.principal import Principal
from opstream_api.access.scopes import ADMIN
from opstream_api.errors import ApiError, forbidden
from opstream_api.inputs.input_validation import decode_input
from opstream_journal import ActionCatalog
from opstream_journal.actions.action_controls import ActionControls
from opstream_journal.actions.action_overview import ActionOverview, ActionOverviews
from opstream_journal.errors import ActionServed
from opstream_schemas.action_spec import MAX_PAUSE_REASON, MAX_PAUSE_SECONDS, ActionPause
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Instant
from opstream_schemas.names import Kind

_FRESH_SECONDS: Final = 1.0
"""For how long a look at all actions is shown."""
_COST_FACTOR: Final = 20
"""A look is shown for this many times as long as it took, too: so dashboards cost a twentieth of a core at most."""
_ERROR_PATH: Final = re.compile(r" - at `\$\.?(?P<place>[^`]*)`$")

_Body = TypeVar("_Body", bound=msgspec.Struct)


class PauseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The optional body of a request to pause an action."""

    reason: str = ""
    seconds: int | None = None
    """How long."""
    until: Instant | None = None
    """Until when; instead of `seconds`."""


class ResumeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The optional body of a request to resume or withdraw an action."""

    reason: str = ""


class ActionReader(NamedTuple):
    """Who asks about actions."""

    identity: str
    """As a trusted proxy names it, without authentication."""
    principal: Principal | None
    """None without authentication."""

    @property
    def name(self) -> str:
        """Return who it is, for the record of what it does."""
        return self.identity if self.principal is None else self.principal.subject

    @property
    def is_operator(self) -> bool:
        """Return True if it may see all of each action: what waits of all tenants, and where runners are."""
        return self.principal is None or (not self.principal.tenant and self.principal.scopes.reads_all)

    def sees(self, kind: Kind) -> bool:
        """Return True if it may know of an action: one that it may submit."""
        return self.principal is None or self.is_operator or self.principal.scopes.may_submit(kind)

    def check_act(self, what: str) -> None:
        """Check that it may do something to an action, which concerns all tenants.

        Raises:
            ApiError: `Forbidden`: it lacks the scope `admin`, or is of a tenant.
        """
        principal = self.principal
        if principal is None:
            return
        if not principal.scopes.is_admin:
            raise forbidden(ADMIN, what)
        if principal.tenant:
            message = f"to {what} concerns all tenants: it needs {ADMIN} of the operator's own, without a tenant"
            raise ApiError(ErrorCode.FORBIDDEN, message, target="Authorization")


class ActionDesk:
    """One process's.

    Args:
        catalog: the actions.
        overviews: started.
        controls: started.
        needs_credentials: whether only callers with credentials may pause, since anybody could send the request.
        now: returns the time with a time zone.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        catalog: ActionCatalog,
        overviews: ActionOverviews,
        controls: ActionControls,
        *,
        needs_credentials: bool,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._overviews = overviews
        self._controls = controls
        self._needs_credentials = needs_credentials
        self._now = now
        self._clock = clock
        self._found: list[ActionOverview] = []
        self._fresh_until = float("-inf")
        self._reading: asyncio.Task[list[ActionOverview]] | None = None

    async def find_all(self, reader: ActionReader) -> list[ActionOverview]:
        """Return the actions that a caller sees, in order; what all callers ask for is read once a second at most.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        if self._clock() >= self._fresh_until:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read(), name="all actions")
                self._reading.add_done_callback(self._end_reading)
            await asyncio.shield(self._reading)
        return [one for one in self._found if one.version and reader.sees(Kind.parse(one.action))]

    async def find(self, reader: ActionReader, kind: Kind) -> ActionOverview:
        """Return one action as it is now.

        Raises:
            ApiError: `UnknownAction`: there is none that the caller sees.
            JournalError: the broker did not answer, or refused.
        """
        for one in await self.find_all(reader):
            if one.action == str(kind):
                return one
        raise _unknown(kind)

    def summary(self, kind: Kind) -> str:
        """Return the first line of what an action does; empty if it is not known."""
        spec = self._catalog.specs.get(kind)
        return "" if spec is None else spec.summary

    async def pause(self, reader: ActionReader, kind: Kind, body: bytes) -> ActionPause:
        """Let no attempt of an action begin. Return what was asked for.

        Raises:
            ApiError: `Forbidden`, `UnknownAction`, `InvalidInput`.
            JournalError: the broker did not answer, or refused.
        """
        await self._check(reader, kind, f"pause {kind}")
        given = _decoded(body, PauseBody, '{}, {"seconds": 7200}, or {"until": "2026-11-30T18:00:00Z"}, with "reason"')
        now = self._now()
        made = ActionPause(since=now, until=_end_of(given, now), by=reader.name, reason=_checked_reason(given.reason))
        if not await self._controls.pause(kind, made):
            raise _unknown(kind)
        self._fresh_until = float("-inf")
        return made

    async def resume(self, reader: ActionReader, kind: Kind, body: bytes) -> str:
        """Let attempts of an action begin again. Return the reason that was given.

        Raises:
            ApiError: `Forbidden`, `UnknownAction`, `InvalidInput`.
            JournalError: the broker did not answer, or refused.
        """
        await self._check(reader, kind, f"resume {kind}")
        reason = _checked_reason(_decoded(body, ResumeBody, '{} or {"reason": "text"}').reason)
        if not await self._controls.resume(kind):
            raise _unknown(kind)
        self._fresh_until = float("-inf")
        return reason

    async def withdraw(self, reader: ActionReader, kind: Kind, body: bytes) -> tuple[ActionOverview, str]:
        """Let what was announced of an action count no more. Return the action as it was, and the reason.

        Raises:
            ApiError: `Forbidden`, `UnknownAction`, `InvalidInput`; `ActionServed`: it has runners.
            JournalError: the broker did not answer, or refused.
        """
        await self._check(reader, kind, f"withdraw {kind}")
        reason = _checked_reason(_decoded(body, ResumeBody, '{} or {"reason": "text"}').reason)
        before = await self.find(reader, kind)
        try:
            if not await self._catalog.withdraw(kind, at=self._now(), by=reader.name, reason=reason):
                raise _unknown(kind)
        except ActionServed as error:
            raise ApiError(ErrorCode.ACTION_SERVED, str(error)) from error
        self._fresh_until = float("-inf")
        return before, reason

    async def _check(self, reader: ActionReader, kind: Kind, what: str) -> None:
        reader.check_act(what)
        if reader.principal is None and self._needs_credentials:
            message = f"this service asks for no credentials, so anybody could {what}: 'opstream actions' does it"
            raise ApiError(ErrorCode.FORBIDDEN, message)
        if await self._catalog.find(kind) is None:
            raise _unknown(kind)

    async def _read(self) -> list[ActionOverview]:
        began = self._clock()
        found = await self._overviews.read(self._catalog.specs.values())
        ended = self._clock()
        self._found = found
        self._fresh_until = ended + max(_FRESH_SECONDS, _COST_FACTOR * (ended - began))
        return found

    def _end_reading(self, ended: asyncio.Task[list[ActionOverview]]) -> None:
        self._reading = None
        if not ended.cancelled():
            ended.exception()  # retrieved, so that asyncio does not log it if no caller waits any more


def _end_of(given: PauseBody, now: datetime) -> datetime | None:
    if given.seconds is not None and given.until is not None:
        raise ApiError(ErrorCode.INVALID_INPUT, "give seconds or until, not both", target="until")
    until, target = given.until, "until"
    if given.seconds is not None:
        target = "seconds"
        is_possible = 1 <= given.seconds <= MAX_PAUSE_SECONDS
        until = now + timedelta(seconds=given.seconds) if is_possible else now
    if until is not None and not now < until <= now + timedelta(seconds=MAX_PAUSE_SECONDS):
        days = MAX_PAUSE_SECONDS // 86_400
        message = f"a pause ends later than now, and within {days} days; without an end it lasts until it is resumed"
        raise ApiError(ErrorCode.INVALID_INPUT, message, target=target)
    return until


def _checked_reason(reason: str) -> str:
    if len(reason) > MAX_PAUSE_REASON:
        raise ApiError(ErrorCode.INVALID_INPUT, f"the reason has over {MAX_PAUSE_REASON} characters", target="reason")
    return reason


def _decoded(body: bytes, kind: type[_Body], form: str) -> _Body:
    _, value = decode_input(body)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        found = _ERROR_PATH.search(str(error))
        message = f"the body is {form}: {_ERROR_PATH.sub('', str(error))}"
        raise ApiError(ErrorCode.INVALID_INPUT, message, target=found["place"] if found else "") from error


def _unknown(kind: Kind) -> ApiError:
    return ApiError(ErrorCode.UNKNOWN_ACTION, f"no runner has announced the action {kind}; GET /actions shows them")
