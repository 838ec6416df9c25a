"""Whether a submit is the one that an operation began with.

The hash of a request finds most repetitions. These find the others, and those of confidential operations.
"""

from __future__ import annotations

from typing import Any

import msgspec

from opstream_api.http.submit_request import SubmitRequest
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_payloads.documents import Documents
from opstream_schemas.events import EventData, Requested
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import file_identities, is_same_json, start_text


async def has_hash(keys: OperationKeys, operation: Operation, digest: str) -> bool:
    """Return True if an operation was requested with a request hash.

    Args:
        keys: of confidential operations.
        operation: its state.
        digest: as `request_hash` returns it.

    Raises:
        OperationErased: nobody can say it any more.
        JournalError: the key can't be had.
    """
    if operation.confidential:
        digest = (await keys.find(operation.kind, operation.id)).keyed_hash(digest)
    return operation.request_hash == digest


def is_same_retry(operation: Operation, request: SubmitRequest) -> bool:
    """Return True if both do the same operation again, for the same caller."""
    is_same = operation.retry_of == request.retry_of and operation.caller == request.caller.identity
    return bool(request.retry_of) and is_same


async def is_same_request(
    keys: OperationKeys,
    documents: Documents,
    requested: EventData | None,
    request: SubmitRequest,
    value: Any,  # noqa: ANN401 - JSON
) -> bool:
    """Return True if a request is the recorded one, but that its numbers are written in another way.

    Their hashes differ then, and stay as they are: APIs of 0.2.0 compare those.

    Raises:
        PayloadError: the recorded input can't be read.
        OperationErased, JournalError: as `has_hash`.
    """
    if not isinstance(requested, Requested) or not _has_same_head(requested, request):
        return False
    recorded = await documents.read(request.stored_id, requested.input, requested.input_payload)
    if requested.confidential:
        recorded = (await keys.find(request.kind, request.stored_id)).open_json(recorded)
    return is_same_json(msgspec.json.decode(recorded), value)


def _has_same_head(requested: Requested, request: SubmitRequest) -> bool:
    """Return True if all but the input of a request is as recorded."""
    return (
        Kind(requested.resource, requested.action) == request.kind
        and requested.resource_id == request.resource_id
        and requested.caller == request.caller.identity
        and requested.callback == request.callback
        and file_identities(requested.uploads) == file_identities(request.uploads)
        and start_text(requested.start_at, requested.start_after) == start_text(request.start.at, request.start.after)
    )
