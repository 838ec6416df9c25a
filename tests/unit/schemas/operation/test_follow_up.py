"""The id of a follow-up, and what can be done again."""

from __future__ import annotations

import msgspec
import pytest

from opstream_schemas.bulk.kinds import BULK_KINDS
from opstream_schemas.events import Canceled
from opstream_schemas.names import Kind, check_operation_id
from opstream_schemas.operation.follow_up import RETRIABLE, follow_up_id, is_follow_up_id, why_not_retriable
from opstream_schemas.operation.state import Status
from tests.support.schemas.histories import History, request

pytestmark = pytest.mark.unit

LONG = "rhSiVjzPlp2ZrKac5rt0mB9zS7-fZV9zuPBttoyrUhc"
"""SHA-256 of 57 times x, base64url."""


@pytest.mark.parametrize(
    ("operation_id", "follow_up"),
    [
        ("order-17", "order-17-retry-1"),
        ("order-17-retry-1", "order-17-retry-2"),
        ("order-17-retry-9", "order-17-retry-10"),
        ("a-retry-1-retry-3", "a-retry-1-retry-4"),
        ("a-retry-0", "a-retry-0-retry-1"),
        ("a-retry-01", "a-retry-01-retry-1"),
        ("-retry-1", "-retry-1-retry-1"),
        ("x" * 56, "x" * 56 + "-retry-1"),
    ],
)
def test_the_id_counts(operation_id: str, follow_up: str) -> None:
    """It is the operation's own with a number."""
    assert follow_up_id(operation_id) == follow_up


@pytest.mark.parametrize("operation_id", ["retry", "a-retry", "a-retry-0", "a-retry-x", "-retry-1", "retry-1"])
def test_other_ids_are_no_follow_ups(operation_id: str) -> None:
    """So clients may take them."""
    assert not is_follow_up_id(operation_id)


@pytest.mark.parametrize("kind", BULK_KINDS)
def test_a_bulk_operation_is_not_done_again(kind: Kind) -> None:
    """Its request is sent again, as the reason says: the retry of one has no credentials of its own."""
    data = request(resource=kind.resource, action=kind.action, resource_id="")
    ended = History().append(data, Canceled()).operation
    assert f"/status:{kind.action}" in why_not_retriable(ended)


def test_a_long_id_is_hashed() -> None:
    """The hash is an operation id, which counts from there on."""
    hashed = follow_up_id("x" * 57)
    assert hashed == "retry-" + LONG
    assert check_operation_id(hashed)
    assert follow_up_id(hashed) == f"{hashed}-retry-1"


@pytest.mark.parametrize("status", Status)
def test_what_can_be_done_again(status: Status) -> None:
    """What has failed or was canceled; anything else is told what to do."""
    operation = msgspec.structs.replace(History().append(request()).operation, status=status)
    reason = why_not_retriable(operation)
    assert (reason == "") == (status in RETRIABLE)
    assert not reason or ":" in reason
