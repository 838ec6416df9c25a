"""A moment of a schedule becomes an operation: submitted as a client would, in the name of who made the schedule.

Its id follows from the schedule's name and the moment. So it makes no difference how often, and by how many processes,
a moment is submitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from opstream_api.access.operation_access import OperationIds
from opstream_api.access.principal import Owner, Principal
from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import Caller
from opstream_api.http.submit_request import OPERATION_ID, IdempotencyKey, SubmitRequest
from opstream_api.operations.submit import Accepted, Submitter
from opstream_schemas.errors import ErrorCode
from opstream_schemas.schedules.schedule_event import ScheduleChanged

_TRANSIENT = frozenset({ErrorCode.JOURNAL_UNAVAILABLE, ErrorCode.JOURNAL_FULL, ErrorCode.TOO_MANY_REQUESTS})


class Submitted(NamedTuple):
    """What became of a submit."""

    accepted: Accepted | None
    """None if it was refused for good."""
    detail: str = ""
    """Why."""


class ScheduleSubmits:
    """Submits operations of schedules.

    Args:
        submitter: as for clients.
        ids: derive the stored ids; None without authentication.
        key_principal: returns the principal of an API key that is in use; None for any other.
    """

    def __init__(
        self, submitter: Submitter, ids: OperationIds | None, key_principal: Callable[[str], Principal | None]
    ) -> None:
        self._submitter = submitter
        self._ids = ids
        self._key_principal = key_principal

    def stored_key(self, tenant: str, name: str) -> str:
        """Return the key under which a tenant's schedule is stored."""
        # No own id of an operation has a '/', so no schedule has the key of an operation.
        return name if self._ids is None else self._ids.stored_id(tenant, f"schedule/{name}")

    def stored_id(self, tenant: str, operation_id: str) -> str:
        """Return the id under which a tenant's operation is stored."""
        return operation_id if self._ids is None else self._ids.stored_id(tenant, operation_id)

    def may_submit(self, changed: ScheduleChanged) -> bool:
        """Return True if the caller of a schedule may still submit its action.

        With authentication: if the key with which it was set is in use, still its caller's, and has the scope. A
        schedule that was made with authentication is not run by a service without, and the other way round.
        """
        if self._ids is None:
            return not changed.key_id
        principal = self._key_principal(changed.key_id) if changed.key_id else None
        return (
            principal is not None
            and principal.owner == Owner(changed.tenant, changed.caller)
            and principal.scopes.may_submit(changed.definition.kind)
        )

    async def submit(self, changed: ScheduleChanged, operation_id: str) -> Submitted:
        """Submit an operation of a schedule; one that exists is the same, whatever the schedule says by now.

        Raises:
            ApiError: for now it can't be submitted: the journal is away or full, or the caller has too many open.
        """
        definition = changed.definition
        request = SubmitRequest(
            kind=definition.kind,
            resource_id=definition.resource_id,
            key=IdempotencyKey(operation_id=operation_id, header=OPERATION_ID),
            caller=Caller(identity=changed.caller),
            status_url="",
            trace=None,
            tenant=changed.tenant,
            derived_id="" if self._ids is None else self._ids.stored_id(changed.tenant, operation_id),
        )
        try:
            return Submitted(await self._submitter.submit(request, bytes(definition.input)))
        except ApiError as error:
            if error.code in _TRANSIENT:
                raise
            return Submitted(None, f"{error.code}: {error.body.error.message}")
