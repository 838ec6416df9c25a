"""What a confidential operation can't have."""

from __future__ import annotations

from opstream_api.errors import ApiError
from opstream_api.http.submit_request import SubmitRequest
from opstream_schemas.errors import ErrorCode


def check_sealable(request: SubmitRequest) -> None:
    """Refuse what a confidential operation can't have: files, which are stored already, and a parent, which could not
    read the outcome.

    Raises:
        ApiError: `InvalidInput`.
    """
    if request.uploads:
        message = f"{request.kind} is confidential, and files are not sealed: leave them out"
        raise ApiError(ErrorCode.INVALID_INPUT, message, target="uploads")
    if request.parent is not None:
        message = f"{request.kind} is confidential, so no action can begin it: its parent could not read how it ends"
        raise ApiError(ErrorCode.INVALID_INPUT, message, target="action")
