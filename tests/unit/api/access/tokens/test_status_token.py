"""Status tokens: they open one operation, for a time, and nothing that was not made here opens anything."""

from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.access.tokens.sealed_grants import MAX_LENGTH
from opstream_api.access.tokens.status_token import StatusGrant, StatusTokens

pytestmark = pytest.mark.unit

TOKENS = StatusTokens(b"secret of an installation")
GRANT = StatusGrant(expires_at=2_000, key_id="k7", tenant="acme")
TOKEN = TOKENS.sign(GRANT, "op-1")
URL_SAFE = set(string.ascii_letters + string.digits + "-_.")


def test_a_token_opens_its_operation_until_it_ends() -> None:
    """It fits into a URL as it is, and says for which key and tenant it was made."""
    assert set(TOKEN) <= URL_SAFE
    assert len(TOKEN) < 80
    assert TOKENS.verify(TOKEN, "op-1", 1_999.9) == GRANT
    assert TOKENS.verify(TOKEN, "op-1", 2_000) is None


def test_a_token_of_another_process() -> None:
    """It opens what it was made for while processes of several versions serve."""
    token = "k80H0KJrMaRhY21l.VkmSvFMSoxe3LvQHtq-3pY24o6FgIgwD"
    found = StatusTokens(b"secret").verify(token, "op-1", 0)
    assert found == StatusGrant(expires_at=2_000, key_id="k1", tenant="acme")


def test_a_token_opens_nothing_else() -> None:
    """Neither another operation, nor another installation, nor as what another part of opstream signs."""
    for operation_id in ("op-2", "op-10", "op-", "", "op-1 ", "OP-1"):
        assert TOKENS.verify(TOKEN, operation_id, 0) is None
    assert StatusTokens(b"another secret").verify(TOKEN, "op-1", 0) is None
    assert StatusTokens(b"").verify(TOKEN, "op-1", 0) is None


def test_no_part_can_be_exchanged() -> None:
    """The code of one token with what another one grants."""
    payload, _, code = TOKEN.partition(".")
    longer = TOKENS.sign(StatusGrant(expires_at=9_000, key_id="k7", tenant="acme"), "op-1")
    other = TOKENS.sign(StatusGrant(expires_at=2_000, key_id="k7", tenant="evil"), "op-1")
    for token in (longer, other):
        assert TOKENS.verify(f"{token.partition('.')[0]}.{code}", "op-1", 0) is None
        assert TOKENS.verify(f"{payload}.{token.partition('.')[2]}", "op-1", 0) is None


def test_a_truncated_token_is_none() -> None:
    """After each of its characters, and with more at either end."""
    assert [TOKENS.verify(TOKEN[:length], "op-1", 0) for length in range(len(TOKEN))] == [None] * len(TOKEN)
    for token in (
        TOKEN + "A",
        TOKEN + "=",
        "A" + TOKEN,
        TOKEN + ".",
        f" {TOKEN}",
        f"{TOKEN}\n",
        TOKEN.replace(".", ""),
    ):
        assert TOKENS.verify(token, "op-1", 0) is None


def test_each_character_counts() -> None:
    """One that is another, and one more of those that base64 ignores."""
    for index, char in enumerate(TOKEN):
        for other in ("A" if char != "A" else "B", "!", "é", char.swapcase() if char.isalpha() else "z"):
            assert TOKENS.verify(TOKEN[:index] + other + TOKEN[index + 1 :], "op-1", 0) is None
        assert TOKENS.verify(TOKEN[:index] + "!" + TOKEN[index:], "op-1", 0) is None


@given(st.text(max_size=100))
def test_any_text_is_no_token(text: str) -> None:
    """And nothing is raised."""
    assert TOKENS.verify(text, "op-1", 0) is None


def test_a_very_long_text_is_not_looked_at() -> None:
    """Not even one that was made here, which no grant is long enough for."""
    long = TOKENS.sign(StatusGrant(expires_at=2_000, key_id="k" * MAX_LENGTH, tenant=""), "op-1")
    assert TOKENS.verify(long, "op-1", 0) is None


@given(
    st.builds(
        StatusGrant,
        expires_at=st.integers(1, 2**33),
        key_id=st.text("abc0", max_size=40),
        tenant=st.text(string.ascii_letters + "._-", max_size=64),
    ),
    st.from_regex("[A-Za-z0-9_-]{1,64}", fullmatch=True),
)
def test_every_grant_comes_back(grant: StatusGrant, operation_id: str) -> None:
    """For each operation id, key and tenant that there may be."""
    token = TOKENS.sign(grant, operation_id)
    assert set(token) <= URL_SAFE
    assert len(token) <= MAX_LENGTH
    assert TOKENS.verify(token, operation_id, grant.expires_at - 1) == grant


def test_a_grant_of_a_newer_version_is_none() -> None:
    """Signed with the same secret, but of a shape that this one can't read; one with a further member can be read."""
    for value, expected in (([2_000, "k7", "acme", "more"], GRANT), (["k7"], None), ({"a": 1}, None)):
        payload = msgspec.msgpack.encode(value)
        token = TOKENS._grants._token(payload, ("op-1",))
        assert TOKENS.verify(token, "op-1", 0) == expected
