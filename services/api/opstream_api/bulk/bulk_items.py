"""What a bulk operation does to one operation: what a request for it alone would do, with the caller's own rights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from opstream_api.access.access_control import AccessControl
from opstream_api.access.operation_access import FoundOperation, may_see
from opstream_api.access.principal import Principal
from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import Caller
from opstream_api.operations.cancel import Canceler
from opstream_api.operations.retry import Retrier, RetryRequest
from opstream_index.lists.items import ListRow
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.bulk.records import ITEM_MESSAGE_LIMIT, BulkItem
from opstream_schemas.errors import ErrorCode
from opstream_schemas.text import truncate_text

_PASSING: Final = frozenset({ErrorCode.JOURNAL_UNAVAILABLE, ErrorCode.JOURNAL_FULL, ErrorCode.TOO_MANY_REQUESTS})


class BulkItems:
    """Acts on single operations.

    Args:
        retrier: makes follow-ups.
        canceler: cancels.
        access: who may do what; None without authentication.
        on_forbidden: hears of a caller whose scopes don't allow an item.
    """

    def __init__(
        self,
        *,
        retrier: Retrier,
        canceler: Canceler,
        access: AccessControl | None,
        on_forbidden: Callable[[Principal, str], None],
    ) -> None:
        self._retrier = retrier
        self._canceler = canceler
        self._access = access
        self._on_forbidden = on_forbidden

    async def act(
        self, act: BulkAct, row: ListRow, *, caller: str, principal: Principal | None, reason: str
    ) -> BulkItem:
        """Do the act to an operation. Doing it again changes nothing.

        Args:
            act: what.
            row: the operation as the index has it.
            caller: who asks, as `Requested.caller` has it.
            principal: the same with its rights; None without authentication.
            reason: of a cancel.

        Raises:
            ApiError: it can't be done now, and may be done later.
        """
        try:
            if act is BulkAct.RETRY:
                return await self._retry(row, caller, principal)
            return await self._cancel(row, caller, principal, reason)
        except ApiError as error:
            if error.code in _PASSING:
                raise
            if error.code is ErrorCode.FORBIDDEN and principal is not None:
                self._on_forbidden(principal, act)
            stored = row.id if row.id != row.own_id else ""
            text = error.body.error.message
            message = truncate_text(text.replace(stored, row.own_id) if stored else text, ITEM_MESSAGE_LIMIT)
            return BulkItem(id=row.own_id, code=error.code, message=message)

    async def _retry(self, row: ListRow, caller: str, principal: Principal | None) -> BulkItem:
        found = FoundOperation(row.id, row.own_id)
        sees = None
        if self._access is not None and principal is not None:
            found = await self._access.operations.find_to_retry(principal, row.own_id)
            sees = partial(may_see, principal)
        asked = RetryRequest(caller=Caller(identity=caller), principal=principal)
        accepted = await self._retrier.retry(found.stored_id, found.own_id, asked, sees)
        return BulkItem(id=row.own_id, operation_id=accepted.operation.public_id)

    async def _cancel(self, row: ListRow, caller: str, principal: Principal | None, reason: str) -> BulkItem:
        found = FoundOperation(row.id, row.own_id)
        if self._access is not None and principal is not None:
            found = await self._access.operations.find_to_cancel(principal, row.own_id)
        operation = await self._canceler.cancel(found.stored_id, by=caller, reason=reason)
        return BulkItem(id=row.own_id, status=operation.status)
