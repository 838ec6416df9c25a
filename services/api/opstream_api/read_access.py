"""Which operation a request reads, and until when it may: what the routes of an operation have in common."""

from __future__ import annotations

import asyncio
import contextlib

from .access.authentication import CHALLENGE
from .access.operation_access import FoundOperation
from .access.principal import Principal
from .dependencies import Dependencies
from .errors import ApiError, operation_not_found, unauthenticated


async def find_to_read(dependencies: Dependencies, principal: Principal | None, operation_id: str) -> FoundOperation:
    """Return the operation that a request reads; without authentication that of the id, whether or not it exists."""
    if dependencies.access is None:
        return FoundOperation(operation_id, operation_id)
    if principal is None:
        raise access_ended(dependencies)  # the door has let it pass, so this is a mistake of ours, and stays safe
    return await dependencies.access.operations.find_to_read(principal, operation_id)


def until_access_ends(
    dependencies: Dependencies, principal: Principal | None
) -> contextlib.AbstractContextManager[asyncio.Future[None] | None]:
    """Yield a future that is done when the caller may not read on; None if it always may."""
    if principal is None or dependencies.access is None:
        return contextlib.nullcontext()
    return dependencies.access.ends.watch(principal)


def access_ended(dependencies: Dependencies, principal: Principal | None = None) -> ApiError:
    """Return the error for a caller that may not read, or not any more."""
    if principal is not None and not principal.subject:
        return operation_not_found()  # a status token, which is answered so whatever is wrong with it
    return unauthenticated(CHALLENGE if dependencies.access is None else dependencies.access.challenge)
