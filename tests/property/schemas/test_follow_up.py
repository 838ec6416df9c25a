"""No two operations have the same follow-up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.names import OPERATION_ID_PATTERN, check_operation_id
from opstream_schemas.operation.follow_up import follow_up_id, is_follow_up_id

pytestmark = pytest.mark.unit

_PIECES = st.lists(st.sampled_from(["a", "-", "retry", "-retry-", "0", "1", "9", "10", "x" * 50]), min_size=1)
IDS = st.one_of(
    st.from_regex(OPERATION_ID_PATTERN, fullmatch=True),
    _PIECES.map("".join).filter(lambda text: len(text) <= 64),
)


@given(one=IDS, other=IDS)
def test_follow_ups_differ(one: str, other: str) -> None:
    """Of two operations; and each is an operation id, and not the operation's own."""
    follow_up = follow_up_id(one)
    assert check_operation_id(follow_up) != one
    assert is_follow_up_id(follow_up)
    assert (follow_up == follow_up_id(other)) == (one == other)
