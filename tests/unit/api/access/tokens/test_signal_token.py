"""Signal tokens: they send one signal to one wait, and nothing that was not made here sends anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.access.tokens.signal_token import SignalGrant, SignalTokens
from opstream_api.access.tokens.status_token import StatusGrant, StatusTokens

pytestmark = pytest.mark.unit

SECRET = b"secret"
TOKENS = SignalTokens(SECRET)
GRANT = SignalGrant(wait=7, expires_at=2_000, key_id="k1", tenant="acme")
TOKEN = "lAfNB9CiazGkYWNtZQ.iMqZ2Ka8h1FpZWfTUNg9Kz3T9_uOOTzB"
"""Of that grant, as every version makes it."""


def test_a_token_sends_its_signal_until_the_wait_is_over() -> None:
    """It is the same in each process, so that one of another version can open it."""
    assert TOKENS.sign(GRANT, "op-1", "approval") == TOKEN
    assert TOKENS.verify(TOKEN, "op-1", "approval", 1_999.9) == GRANT
    assert TOKENS.verify(TOKEN, "op-1", "approval", 2_000) is None


@pytest.mark.parametrize(
    ("operation_id", "signal"),
    [("op-2", "approval"), ("op-1", "refusal"), ("op-1\napproval", ""), ("", "op-1\napproval"), ("op-1", "")],
)
def test_a_token_sends_nothing_else(operation_id: str, signal: str) -> None:
    """Neither another signal, nor to another operation, nor with id and name divided in another way."""
    assert TOKENS.verify(TOKEN, operation_id, signal, 0) is None


def test_tokens_of_another_kind() -> None:
    """Those of another installation, and status tokens of this one, which have the same secret."""
    assert SignalTokens(b"another").verify(TOKEN, "op-1", "approval", 0) is None
    status = StatusTokens(SECRET).sign(StatusGrant(expires_at=2_000, key_id="k1", tenant="acme"), "op-1")
    assert TOKENS.verify(status, "op-1", "", 0) is None
    assert StatusTokens(SECRET).verify(TOKEN, "op-1\napproval", 0) is None


def test_no_part_can_be_exchanged() -> None:
    """The code of one token with what another one grants."""
    code = TOKEN.partition(".")[2]
    for change in ({"wait": 8}, {"expires_at": 9_000}, {"key_id": ""}, {"tenant": "evil"}):
        other = TOKENS.sign(msgspec.structs.replace(GRANT, **change), "op-1", "approval")
        assert TOKENS.verify(f"{other.partition('.')[0]}.{code}", "op-1", "approval", 0) is None


@given(st.text(st.characters(), max_size=100), st.booleans())
def test_any_text_is_no_token(text: str, is_behind: bool) -> None:
    """And nothing is raised, whatever its characters are."""
    token = f"{TOKEN}{text}" if is_behind and text else text
    assert TOKENS.verify(token, "op-1", "approval", 0) is None
    assert TOKENS.verify(f"{TOKEN[:-1]}\ud800", "op-1", "approval", 0) is None
