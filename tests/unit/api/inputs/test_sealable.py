"""What a confidential operation can't have."""

from __future__ import annotations

from typing import Any

import pytest

from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import Caller
from opstream_api.http.submit_request import OPERATION_ID, IdempotencyKey, SubmitRequest
from opstream_api.inputs.sealable import check_sealable
from opstream_schemas.errors import ErrorCode
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.events import ParentRef
from opstream_schemas.names import Kind
from opstream_schemas.payloads.payload_ref import PayloadRef

pytestmark = pytest.mark.unit

FILE = Attachment(
    file_name="scan.tif", media_type="image/tiff", payload=PayloadRef(uri="payload:a/b", size=1, sha256="0" * 64)
)
PARENT = ParentRef(id="a", name="pages", index=0, depth=1)


def request(**changed: Any) -> SubmitRequest:
    """A submit of a confidential action."""
    return SubmitRequest(
        kind=Kind("person", "check"),
        resource_id="7",
        key=IdempotencyKey(operation_id="mine", header=OPERATION_ID),
        caller=Caller(),
        status_url="",
        trace=None,
        **changed,
    )


@pytest.mark.parametrize(("changed", "target"), [({"uploads": (FILE,)}, "uploads"), ({"parent": PARENT}, "action")])
def test_files_and_parents_are_refused(changed: dict[str, Any], target: str) -> None:
    """Files are stored before the submit, in the clear, and a parent could not read the outcome."""
    check_sealable(request())
    with pytest.raises(ApiError) as caught:
        check_sealable(request(**changed))
    assert (caught.value.code, caught.value.body.error.target) == (ErrorCode.INVALID_INPUT, target)
