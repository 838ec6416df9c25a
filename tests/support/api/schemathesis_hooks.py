"""What the document can say only in words, for schemathesis, which reads only the schemas.

Callers: `test_schemathesis.py`, and whoever runs it by hand, with this file's path in `SCHEMATHESIS_HOOKS`.

OpenAPI describes each header by itself. Two rules of a submit are about several requests or headers at once, so that a
request may break them although each of its parts is as described (contract.md, Submit):

- an `Operation-Id` names one request. schemathesis sends its favorite ids with many bodies, and is refused, rightly,
  as `OperationIdReused`. Here each valid id becomes a new one.
- `Repeatability-Request-ID` and `Repeatability-First-Sent` come together, and not with an `Operation-Id`. Here half a
  pair is completed, and one of two ways is taken.

Only requests that are meant to be accepted are changed, and no check and no answer. What is refused is tested in
`tests/broker`.
"""

from __future__ import annotations

import uuid
from email.utils import parsedate_to_datetime
from typing import Any, Final

import schemathesis

OPERATION_ID: Final = "Operation-Id"
REQUEST_ID: Final = "Repeatability-Request-ID"
FIRST_SENT: Final = "Repeatability-First-Sent"
SOME_DATE: Final = "Tue, 24 Nov 2026 08:00:00 GMT"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make the headers of a request that is meant to be accepted fit each other, and the requests before it."""
    headers = case.headers
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if REQUEST_ID in headers and FIRST_SENT in headers:
        headers.pop(OPERATION_ID, None)
    elif OPERATION_ID in headers:
        headers.pop(REQUEST_ID, None)
        headers.pop(FIRST_SENT, None)
    if OPERATION_ID in headers:
        headers[OPERATION_ID] = _new(headers[OPERATION_ID], 64)
    elif REQUEST_ID in headers or FIRST_SENT in headers:
        headers[REQUEST_ID] = _new(headers.get(REQUEST_ID, ""), 256)
        headers[FIRST_SENT] = _date(headers.get(FIRST_SENT, SOME_DATE))


def _new(value: str, limit: int) -> str:
    """As much of a generated id as leaves room for what makes it a new one."""
    tail = uuid.uuid4().hex
    return value[: limit - len(tail)] + tail


def _date(value: str) -> str:
    """A generated date, unless February has it not: the pattern in the document can't tell."""
    try:
        parsedate_to_datetime(value)
    except ValueError:
        return SOME_DATE
    return value
