"""In whose name a bulk operation acts, and what it may do: as its caller's credentials stand at each item.

A service that asks for credentials runs no bulk operation that was asked for without, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from opstream_api.access.access_control import AccessControl
from opstream_api.access.principal import Owner, Principal
from opstream_api.access.scopes import CANCEL, SUBMIT, Scopes
from opstream_api.errors import forbidden
from opstream_api.lists.operation_list import list_scope
from opstream_index.lists.plan import ListScope
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.bulk.records import Authority
from opstream_schemas.events import Requested
from opstream_schemas.logs.access_log import AdminAct

ADMIN_ACTS: Final = {BulkAct.RETRY: AdminAct.RETRIED, BulkAct.CANCEL: AdminAct.CANCELED}
"""What the access log calls a bulk request that may reach operations of other callers."""


class AccessLost(Exception):
    """The caller's credentials allow nothing any more. The message says what to do."""


class BulkCallers:
    """Knows the callers of bulk operations.

    Args:
        access: who may do what; None without authentication.
        now: returns the time with a time zone.
    """

    def __init__(self, access: AccessControl | None, now: Callable[[], datetime]) -> None:
        self._access = access
        self._now = now

    def principal(self, requested: Requested) -> Principal | None:
        """Return the principal of a bulk operation as it stands now; None without authentication.

        Raises:
            AccessLost: its credentials have ended, or the service has switched authentication on or off.
        """
        authority = requested.authority
        if self._access is None:
            if authority is not None:
                raise AccessLost("it was asked for with credentials, and this service asks for none")
            return None
        if authority is None:
            raise AccessLost("it was asked for without credentials, and this service asks for them")
        found = self._current(requested, authority)
        if found is None or found.owner != Owner(requested.tenant, requested.caller):
            raise AccessLost(
                "the credentials with which it was asked for have ended: send the request again with others"
            )
        return found

    def _current(self, requested: Requested, authority: Authority) -> Principal | None:
        if authority.key_id:
            return None if self._access is None else self._access.key_principal(authority.key_id)
        if authority.expires_at is None or authority.expires_at <= self._now():
            return None
        return Principal(
            tenant=requested.tenant,
            subject=requested.caller,
            scopes=Scopes.parse(authority.scopes),
            expires_at=authority.expires_at,
        )


def authority_of(principal: Principal | None) -> Authority | None:
    """Return with which rights a bulk operation of a principal acts; None without authentication."""
    if principal is None:
        return None
    if principal.key_id:
        return Authority(key_id=principal.key_id)
    return Authority(scopes=principal.scopes.texts, expires_at=principal.expires_at)


def bulk_scope(act: BulkAct, principal: Principal | None) -> ListScope:
    """Return whose operations a bulk request of a principal selects: those to which it may do the act.

    Raises:
        ApiError: `Forbidden`.
    """
    if principal is None:
        return ListScope()
    if act is BulkAct.CANCEL and not principal.scopes.cancels:
        raise forbidden(CANCEL, "cancel operations")
    scope = list_scope(principal)
    is_narrow = act is BulkAct.CANCEL and not principal.scopes.is_admin
    return ListScope(principal.tenant, principal.subject) if is_narrow else scope


def reaches_others(act: BulkAct, principal: Principal) -> bool:
    """Return True if a bulk request of a principal may select operations of other callers."""
    return bulk_scope(act, principal).caller is None


def check_may_act(act: BulkAct, principal: Principal | None) -> None:
    """Refuse a caller to whom each item would be refused.

    Raises:
        ApiError: `Forbidden`.
    """
    bulk_scope(act, principal)
    if principal is not None and act is BulkAct.RETRY and not principal.scopes.submits:
        raise forbidden(SUBMIT, "retry operations")
