"""Takes bulk requests: a dry run is answered at once, anything else becomes an operation that `executor` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from opstream_api.access.operation_access import OperationIds
from opstream_api.access.principal import Principal
from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import Caller
from opstream_api.http.requests import Headers
from opstream_api.http.submit_request import (
    OPERATION_ID,
    REPEATABILITY_RESULT,
    IdempotencyKey,
    SubmitRequest,
    parse_idempotency_key,
    read_labels,
)
from opstream_api.lists.operation_list import AnsweredList, OperationList
from opstream_api.operations.submit import Accepted, Submitter
from opstream_index.lists.items import item_of
from opstream_schemas.bulk.kinds import MAX_ITEMS, BulkAct
from opstream_schemas.bulk.records import BulkInput
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Trace

from .bulk_caller import authority_of, bulk_scope, check_may_act
from .bulk_request import FILTER, ORDER, BulkRequest, selected
from .selected_rows import SelectedCount, SelectedRows

_encode: Final = msgspec.json.Encoder().encode


class BulkAsker(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a bulk request."""

    caller: Caller
    principal: Principal | None = None
    """None without authentication."""
    key: IdempotencyKey
    trace: Trace | None = None
    labels: dict[str, str] | None = None

    def headers(self, base: str) -> dict[str, str]:
        """Return the headers of the answer that it gets.

        Args:
            base: the service's own URL, without a slash at the end.
        """
        own_id = self.key.operation_id
        found = {"Operation-Location": f"{base}/status/{own_id}", OPERATION_ID: own_id}
        return {**found, REPEATABILITY_RESULT: "accepted"} if self.key.is_repeatable else found


def bulk_asker(
    headers: Headers,
    caller: Caller,
    principal: Principal | None,
    trace: Trace | None,
    new_operation_id: Callable[[], str],
) -> BulkAsker:
    """Return who sends a bulk request, and which operation it names.

    Raises:
        ApiError: `InvalidHeader`.
    """
    key = parse_idempotency_key(headers, new_operation_id)
    return BulkAsker(caller=caller, principal=principal, key=key, trace=trace, labels=read_labels(headers))


class BulkDesk:
    """One process's.

    Args:
        lists: reads the index.
        submitter: submits the bulk operations.
        ids: derive the stored ids; None without authentication.
        why_off: returns why the bulk operations of an act can't be run, and what to do; empty if they can.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        lists: OperationList,
        submitter: Submitter,
        ids: OperationIds | None,
        why_off: Callable[[BulkAct], str],
        clock: Callable[[], float],
    ) -> None:
        self._lists = lists
        self._submitter = submitter
        self._ids = ids
        self._why_off = why_off
        self._clock = clock

    async def preview(self, request: BulkRequest, principal: Principal | None) -> AnsweredList:
        """Return what a dry run answers: count and sample.

        Raises:
            ApiError: `Forbidden`, `IndexUnavailable`.
        """
        check_may_act(request.act, principal)
        found = await self._count(request, principal)
        body: dict[str, Any] = {
            "count": found.count,
            "isWhole": found.is_whole,
            "sample": [item_of(row) for row in found.sample],
        }
        return AnsweredList(_encode(body), found.lag)

    async def submit(self, request: BulkRequest, asker: BulkAsker, reason: str) -> Accepted:
        """Record the bulk operation, or find that of the same request sent before.

        Args:
            request: what is asked for.
            asker: who asks.
            reason: of a cancel; empty for none.

        Raises:
            ApiError: `Forbidden`; `InvalidParameter`: too many are selected; `IndexUnavailable`; as `Submitter.submit`.
        """
        check_may_act(request.act, asker.principal)
        if why := self._why_off(request.act):
            raise ApiError(ErrorCode.JOURNAL_UNAVAILABLE, why)
        found = await self._count(request, asker.principal)
        if not found.is_whole:
            message = (
                f"{FILTER} selects more than {MAX_ITEMS:,} operations, or too many to be counted: narrow it, as by a "
                f"range of {ORDER}"
            )
            raise ApiError(ErrorCode.INVALID_PARAMETER, message, target=FILTER)
        principal = asker.principal
        submit = SubmitRequest(
            kind=request.act.kind,
            resource_id="",
            key=asker.key,
            caller=asker.caller if principal is None else Caller(identity=principal.subject),
            status_url="",
            trace=asker.trace,
            labels=asker.labels,
            authority=authority_of(principal),
        )
        if principal is not None and self._ids is not None:
            submit = msgspec.structs.replace(
                submit,
                tenant=principal.tenant,
                derived_id=self._ids.stored_id(principal.tenant, asker.key.operation_id),
            )
        bulk_input = BulkInput(filter=request.filter, per_second=request.per_second, reason=reason)
        try:
            return await self._submitter.submit(submit, _encode(bulk_input))
        except ApiError as error:
            raise (error.with_id(submit.derived_id, submit.own_id) if submit.derived_id else error) from error

    async def _count(self, request: BulkRequest, principal: Principal | None) -> SelectedCount:
        term = selected(request.act, request.filter)
        return await SelectedRows(self._lists, term, bulk_scope(request.act, principal)).count(self._clock)
