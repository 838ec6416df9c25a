"""What was denied is found by the filter that covers it, and forgotten with it."""

from __future__ import annotations

import pytest

from opstream_journal.wire.denials import Denials

pytestmark = pytest.mark.unit

FORBIDDEN = 'nats: permissions violation for publish to "$js.api.consumer.msg.next.operations.projector"'


@pytest.mark.parametrize(
    ("pattern", "is_found"),
    [
        ("operations.*.*.*.requested", True),
        ("operations.>", True),
        ("operations.op1.book.Upload.requested", True),
        ("operations.*.*.*.started", False),
        ("operations.*.requested", False),
        ("operations.op1.book.upload.requested.>", False),
    ],
)
def test_a_filter_finds_what_it_covers(pattern: str, *, is_found: bool) -> None:
    """`*` is one token, `>` one or more; letters of either case are the same."""
    denials = Denials()
    denials.add("operations.op1.book.upload.requested")
    assert bool(denials.found(pattern)) is is_found
    denials.forget(pattern)
    assert bool(denials.found("operations.>")) is not is_found


def test_only_an_error_about_permissions_forbids() -> None:
    """A subject without a responder may have one later; one that permissions forbid has none."""
    denials = Denials()
    pull = "$JS.API.CONSUMER.MSG.NEXT.OPERATIONS.projector"
    denials.add_error("nats: stale connection")
    denials.add(pull)
    assert not denials.is_forbidden(pull)
    denials.add_error(FORBIDDEN)
    assert denials.is_forbidden(pull)
    denials.add(pull)
    assert denials.is_forbidden(pull)
    denials.forget(pull)
    assert not denials.is_forbidden(pull)


def test_the_oldest_are_forgotten() -> None:
    """A process that is denied one subject after another keeps the latest few."""
    denials = Denials()
    for number in range(1000):
        denials.add(f"operations.op{number}")
    assert len(denials.found("operations.>")) == 64
    assert denials.found("operations.op999")
