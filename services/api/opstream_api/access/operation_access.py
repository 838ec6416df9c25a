"""Which operation a principal means by an id, and what it may do with it (docs/adr/0046).

An id that a principal can't see is answered exactly as an unknown one, before anything waits or compares tags.
"""

from __future__ import annotations

import contextlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from opstream_api.errors import ApiError, forbidden, operation_not_found, unauthenticated
from opstream_api.http.priority_header import check_allowed
from opstream_api.http.submit_request import SubmitRequest
from opstream_schemas.children.lineage import is_child_id
from opstream_schemas.errors import ErrorCode
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import BlockedBy

from .authentication import CHALLENGE
from .principal import Principal
from .scopes import ADMIN, CANCEL, ERASE, READ, SIGNAL, SUBMIT, scope_of

_STORED_LENGTH: Final = 44
"""Of each id that `OperationIds.stored_id` returns."""


def _ignore(_principal: Principal) -> None:
    """The default of `on_foreign`."""


def may_see(principal: Principal, operation: Operation) -> bool:
    """Return True if an answer about another operation may name this one to a principal.

    A status token opens one operation and names no other.
    """
    scopes = principal.scopes
    return (
        bool(principal.subject and operation.own_id)
        and operation.tenant == principal.tenant
        and scopes.reads
        and (operation.caller == principal.subject or scopes.reads_all)
    )


def may_signal(principal: Principal, operation: Operation) -> bool:
    """Return True if a principal may send signals to an operation of its tenant."""
    scopes = principal.scopes
    return (_is_own(principal, operation) and scopes.signals) or scopes.may_signal(operation.kind)


def _is_own(principal: Principal, operation: Operation) -> bool:
    return bool(principal.subject and operation.own_id) and operation.caller == principal.subject


def shown_blocker(principal: Principal | None, blocked_by: BlockedBy | None) -> BlockedBy | None:
    """Return why an operation waits as a principal may read it: who paused an action is no tenant's matter."""
    is_of_operator = principal is not None and bool(principal.subject) and not principal.tenant
    if blocked_by is None or not blocked_by.by or is_of_operator:
        return blocked_by
    return msgspec.structs.replace(blocked_by, by="")


class OperationIds:
    """Derives the ids under which operations are stored from tenants and the clients' own ids.

    Args:
        secret: of the installation, the same in each process.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def stored_id(self, tenant: str, own_id: str) -> str:
        """Return the id under which a tenant's operation is stored: `t` and base64url of HMAC-SHA256, 44 characters.

        Without the secret no client can tell whether an id exists, nor make two tenants' ids meet. The letter is there
        because base64url may begin with `-`, which a command would take for an option. Children have one id for both.
        """
        if is_child_id(own_id):
            return own_id  # it was derived from its parent's stored id already (docs/adr/0074)
        # No tenant has a zero byte, so no two pairs are one text.
        text = f"{tenant}\0{own_id}".encode(errors="surrogatepass")
        return "t" + urlsafe_b64encode(hmac.digest(self._secret, text, "sha256")).rstrip(b"=").decode()

    def derived_key(self, purpose: bytes) -> bytes:
        """Return a key for something else, such as the signature of cursors: HMAC-SHA256, 32 bytes."""
        return hmac.digest(self._secret, b"key\0" + purpose, "sha256")


class FoundOperation(NamedTuple):
    """An operation that a principal may see."""

    stored_id: str
    own_id: str
    """The id by which its client knows it."""
    is_foreign: bool = False
    """True for an operation of another caller, which an admin cancels, or a caller that reads all does again."""

    @contextlib.contextmanager
    def shown_as_own(self) -> Iterator[None]:
        """Show the client's own id in errors about the operation, and not the stored one."""
        try:
            yield
        except ApiError as error:
            if self.stored_id != self.own_id:
                error.with_id(self.stored_id, self.own_id)
            raise


class OperationAccess:
    """What principals may do with operations.

    Args:
        ids: derive the stored ids.
        cached: returns the cached state of a stored id, which may be old; None without one. Owners never change.
        read: returns the state of a stored id, or raises `OperationNotFound`.
        refold: returns the state of a stored id from the journal alone, or raises `OperationNotFound`.
        on_foreign: hears of a principal that asks for an operation of another caller.
    """

    def __init__(
        self,
        *,
        ids: OperationIds,
        cached: Callable[[str], Operation | None],
        read: Callable[[str], Awaitable[Operation]],
        refold: Callable[[str], Awaitable[Operation]],
        on_foreign: Callable[[Principal], None] = _ignore,
    ) -> None:
        self.ids = ids
        self._cached = cached
        self._read = read
        self._refold = refold
        self._on_foreign = on_foreign

    async def find_to_read(self, principal: Principal, own_id: str) -> FoundOperation:
        """Return the operation that a principal reads, waits for or follows.

        Raises:
            ApiError: `Forbidden`; `OperationNotFound`: there is none that it may see; as `read`.
        """
        if not principal.scopes.reads:
            raise forbidden(READ, "read operations")
        operation = await self._find(principal, own_id)
        if not (operation.caller == principal.subject or principal.scopes.reads_all):
            self._on_foreign(principal)
            raise operation_not_found()
        return FoundOperation(operation.id, operation.public_id)

    async def find_to_cancel(self, principal: Principal, own_id: str) -> FoundOperation:
        """Return the operation that a principal cancels.

        Raises:
            ApiError: `Forbidden`: also for an operation of another caller that it may only read; `OperationNotFound`:
                there is none that it may see; as `read`.
        """
        if not principal.scopes.cancels:
            raise forbidden(CANCEL, "cancel operations")
        return await self._find_to_end(principal, own_id, "cancel operations of other callers")

    async def find_to_erase(self, principal: Principal, own_id: str) -> FoundOperation:
        """Return the operation that a principal erases.

        Raises:
            ApiError: as `find_to_cancel`.
        """
        if not principal.scopes.erases:
            raise forbidden(ERASE, "erase operations")
        return await self._find_to_end(principal, own_id, "erase operations of other callers")

    async def find_to_signal(self, principal: Principal, own_id: str) -> FoundOperation:
        """Return the operation to which a principal sends a signal.

        Raises:
            ApiError: `Forbidden`: also for an operation that it may only read; `OperationNotFound`: there is none that
                it may see; as `read`.
        """
        scopes = principal.scopes
        if not (principal.opens_wait or scopes.signals or scopes.signaled):
            raise forbidden(SIGNAL, "send signals to operations")
        operation = await self._find(principal, own_id)
        if not (principal.opens_wait or may_signal(principal, operation)):
            if _is_own(principal, operation):
                raise forbidden(SIGNAL, "send signals to operations")
            if scopes.reads_all:
                raise forbidden(scope_of(SIGNAL, operation.kind), "send signals to operations of other callers")
            self._on_foreign(principal)
            raise operation_not_found()
        return FoundOperation(operation.id, operation.public_id, operation.caller != principal.subject)

    async def find_to_retry(self, principal: Principal, own_id: str) -> FoundOperation:
        """Return the operation that a principal does again. Whether it may submit the action is for `admit` to say.

        Raises:
            ApiError: as `find_to_read`.
        """
        found = await self.find_to_read(principal, own_id)
        operation = self._cached(found.stored_id) or await self._read(found.stored_id)
        return found._replace(is_foreign=operation.caller != principal.subject)

    async def find_stored(self, principal: Principal, stored_id: str) -> FoundOperation | None:
        """Return an operation of an admin's tenant by the id under which it is stored.

        Returns:
            None for one of another tenant, and one whose retention is over, so that nobody knows whose it is.

        Raises:
            ApiError: as `read`, but for `OperationNotFound`.
        """
        try:
            operation = self._cached(stored_id) or await self._read(stored_id)
            if not operation.own_id:
                operation = await self._refold(stored_id)  # as in `_find`
        except ApiError as error:
            if error.code is ErrorCode.OPERATION_NOT_FOUND:
                return None
            raise
        if operation.tenant != principal.tenant:
            return None
        return FoundOperation(operation.id, operation.public_id, operation.caller != principal.subject)

    async def _find_to_end(self, principal: Principal, own_id: str, what: str) -> FoundOperation:
        scopes, operation = principal.scopes, await self._find(principal, own_id)
        if not scopes.is_admin and (operation.caller != principal.subject or not operation.own_id):
            if scopes.reads_all:
                raise forbidden(ADMIN, what)
            self._on_foreign(principal)
            raise operation_not_found()
        return FoundOperation(operation.id, operation.public_id, operation.caller != principal.subject)

    async def _find(self, principal: Principal, own_id: str) -> Operation:
        """Return an operation of the principal's tenant, of whichever caller."""
        stored_id = self.ids.stored_id(principal.tenant, own_id)
        operation = self._cached(stored_id)
        if operation is None:
            try:
                operation = await self._read(stored_id)
            except ApiError as error:
                if error.code is not ErrorCode.OPERATION_NOT_FOUND:
                    raise error.with_id(stored_id, own_id) from error
                return await self._find_earlier(principal, own_id)
        if not operation.own_id:
            # A projector of an earlier version wrote this snapshot, and left out what it does not know.
            operation = await self._refold(stored_id)
            if not operation.own_id and stored_id == own_id:
                return await self._find_earlier(principal, own_id)  # a child, which has one id for both
        if operation.tenant != principal.tenant or operation.own_id != own_id:
            raise operation_not_found()
        return operation

    async def _find_earlier(self, principal: Principal, own_id: str) -> Operation:
        """Return an operation that was recorded without authentication, so under the client's own id."""
        if principal.tenant or not principal.scopes.reads_all:
            raise operation_not_found()
        if len(own_id) == _STORED_LENGTH:
            # Perhaps a stored id. An earlier projector's snapshot would not say whose, but the journal does.
            operation = await self._refold(own_id)
        else:
            operation = self._cached(own_id) or await self._read(own_id)
        if operation.own_id or operation.tenant:
            raise operation_not_found()  # the stored id of an operation of some tenant, which no client needs
        return operation


def admit(submit: SubmitRequest, principal: Principal | None, ids: OperationIds) -> SubmitRequest:
    """Return a submit as that of its principal, with the id under which its operation is stored.

    Args:
        submit: as the request has it.
        principal: who sends it.
        ids: derive the stored ids.

    Raises:
        ApiError: `Forbidden`: the principal may not submit the action, whether or not there is one, or not with this
            priority; `Unauthenticated`.
    """
    if principal is None:
        raise unauthenticated(CHALLENGE)  # the door has let it pass, so this is a mistake of ours, and stays safe
    if not principal.scopes.may_submit(submit.kind):
        raise forbidden(scope_of(SUBMIT, submit.kind), f"submit {submit.kind}")
    check_allowed(submit.priority, principal.most_priority)
    return msgspec.structs.replace(
        submit,
        caller=msgspec.structs.replace(submit.caller, identity=principal.subject),
        tenant=principal.tenant,
        most_priority=principal.most_priority,
        derived_id=ids.stored_id(principal.tenant, submit.key.operation_id),
    )
