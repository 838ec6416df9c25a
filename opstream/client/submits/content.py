"""The input, the labels and the uploads of a submit, as the request has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from opstream.client.errors import InvalidRequest
from opstream.client.models import Upload
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import parse_labels


def encode_labels(labels: Mapping[str, str]) -> str:
    """The value of `Operation-Label`.

    Raises:
        InvalidRequest: they are no labels.
    """
    texts = [f"{key}={value}" for key, value in labels.items()]
    try:
        parsed = parse_labels(texts)
    except InvalidName as error:
        raise InvalidRequest(str(error)) from error
    if parsed != dict(labels):
        raise InvalidRequest("the value of a label has a comma, or a space at one of its ends")
    return ", ".join(texts)


def encode_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """The body; an empty object for no value.

    Raises:
        InvalidRequest: it can't be JSON.
    """
    if isinstance(value, msgspec.UnsetType):
        return b"{}"
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the input can't be written as JSON: {error}") from error


def name_uploads(uploads: Sequence[Upload], operation_id: str) -> dict[str, str]:
    """The headers that name the files of a submit.

    Args:
        uploads: none, or some.
        operation_id: of the submit.

    Raises:
        InvalidRequest: one was uploaded for another operation.
    """
    for one in uploads:
        if one.operation_id != operation_id:
            raise InvalidRequest(
                f"{one.name!r} was uploaded for operation {one.operation_id}, and this submit is {operation_id}: "
                f"upload all its files with one operation_id, and leave that of the submit out"
            )
    return {"Operation-Upload": ", ".join(one.claim for one in uploads)} if uploads else {}
