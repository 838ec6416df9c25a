"""Who asks for what did not reach others, and of which operations it may see that."""

from __future__ import annotations

from typing import NamedTuple

from opstream_api.access.operation_access import FoundOperation, OperationAccess
from opstream_api.access.principal import Principal
from opstream_api.access.scopes import ADMIN
from opstream_api.errors import forbidden


class Administrator(NamedTuple):
    """Who asks; without authentication everybody is one."""

    principal: Principal | None
    operations: OperationAccess | None
    """None without authentication."""

    def check(self, verb: str) -> None:
        """Check the scope.

        Raises:
            ApiError: `Forbidden`.
        """
        if self.principal is not None and not self.principal.scopes.is_admin:
            raise forbidden(ADMIN, verb)

    async def find(self, own_id: str) -> FoundOperation:
        """Return the operation that a client's id names.

        Raises:
            ApiError: `OperationNotFound`; as `OperationAccess.find_to_read`.
        """
        if self.operations is None or self.principal is None:
            return FoundOperation(own_id, own_id)
        return await self.operations.find_to_read(self.principal, own_id)

    async def find_stored(self, stored_id: str) -> FoundOperation | None:
        """Return the operation that is stored under an id; None for one of another tenant, or whose retention is over.

        Raises:
            ApiError: as `OperationAccess.find_stored`.
        """
        if self.operations is None or self.principal is None:
            return FoundOperation(stored_id, stored_id)
        return await self.operations.find_stored(self.principal, stored_id)
