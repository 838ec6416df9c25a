"""Who asks for something of schedules."""

from __future__ import annotations

from typing import NamedTuple

from opstream_api.access.principal import Owner, Principal
from opstream_api.access.scopes import READ, SUBMIT, scope_of
from opstream_api.errors import forbidden
from opstream_schemas.names import Kind
from opstream_schemas.schedules.schedule_event import ScheduleState


class Asker(NamedTuple):
    """Who asks, and what it may do: everything without authentication."""

    identity: str
    principal: Principal | None

    @property
    def owner(self) -> Owner:
        """Return to whom its schedules belong."""
        return Owner("", self.identity) if self.principal is None else self.principal.owner

    def check_read(self) -> None:
        """Check that it may read.

        Raises:
            ApiError: `Forbidden`.
        """
        if self.principal is not None and not self.principal.scopes.reads:
            raise forbidden(READ, "read schedules")

    def check_submit(self, kind: Kind) -> None:
        """Check that it may submit an action.

        Raises:
            ApiError: `Forbidden`.
        """
        if self.principal is not None and not self.principal.scopes.may_submit(kind):
            raise forbidden(scope_of(SUBMIT, kind), f"submit {kind}")

    def sees(self, state: ScheduleState) -> bool:
        """Return True if it may know of a schedule: its own; with `read:all` each of its tenant."""
        if self.principal is None:
            return True
        is_own = state.changed.caller == self.principal.subject
        return state.changed.tenant == self.principal.tenant and (is_own or self.principal.scopes.reads_all)
