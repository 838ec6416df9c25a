"""The caller of a request, by its connection and by the headers of trusted proxies."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import MAX_IDENTITY_LENGTH, Caller, CallerResolver
from opstream_api.http.requests import parse_headers

pytestmark = pytest.mark.unit

TRUSTED = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "2001:db8:1::/48")))
BEHIND = CallerResolver(trusted=TRUSTED, identity_header="X-Forwarded-User", client_id_header="X-Client-Id")
PROXY = ("10.0.0.1", 4711)


def resolved(who: CallerResolver, client: tuple[str, int] | None, *headers: tuple[str, str | bytes]) -> Caller:
    """Resolve the caller of a request."""
    pairs = [
        (name.lower().encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in headers
    ]
    return who.resolve(client, parse_headers(pairs))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("/run/socket", ""),
        ("", ""),
    ],
)
def test_the_peer_is_the_client(host: str, address: str) -> None:
    """Without proxies the address is the connection's, in its shortest form; anything that is no address is empty."""
    assert resolved(CallerResolver(), (host, 1)) == Caller(client_address=address)


def test_no_peer() -> None:
    """A Unix socket has no address, and is not trusted."""
    assert resolved(BEHIND, None, ("X-Forwarded-User", "ann"), ("X-Forwarded-For", "192.0.2.7")) == Caller()


@pytest.mark.parametrize("client", [("192.0.2.66", 1), ("2001:db8:2::1", 1), ("nonsense", 1)])
def test_other_peers_are_not_trusted(client: tuple[str, int]) -> None:
    """The headers of a peer that is no trusted proxy are ignored, also malformed ones."""
    claims = (("X-Forwarded-User", "root"), ("X-Client-Id", b"\xff" * 999), ("X-Forwarded-For", "10.0.0.9"))
    assert resolved(BEHIND, client, *claims) == resolved(CallerResolver(), client)


def test_a_proxy_is_trusted() -> None:
    """Caller and application are those that a trusted proxy names, in UTF-8."""
    named = (("X-Forwarded-User", "Jürgen Müller".encode()), ("X-Client-Id", "shop"), ("X-Forwarded-For", "192.0.2.7"))
    expected = Caller(identity="Jürgen Müller", client_id="shop", client_address="192.0.2.7")
    assert resolved(BEHIND, PROXY, *named) == expected
    assert resolved(BEHIND, ("::ffff:10.0.0.1", 1), *named) == expected


def test_a_proxy_without_identity() -> None:
    """Without the headers, or with empty ones, the request has no caller, and the proxy's address."""
    expected = Caller(client_address="10.0.0.1")
    assert resolved(BEHIND, PROXY) == expected
    assert resolved(BEHIND, PROXY, ("X-Forwarded-User", ""), ("X-Forwarded-For", "")) == expected


def test_a_header_that_is_not_configured() -> None:
    """The identity comes from no header that is not configured."""
    who = CallerResolver(trusted=TRUSTED)
    assert resolved(who, PROXY, ("X-Forwarded-User", "ann"), ("", "bob")) == Caller(client_address="10.0.0.1")


@pytest.mark.parametrize(
    ("entries", "address"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["192.0.2.66, 192.0.2.7"], "192.0.2.7"),
        (["192.0.2.66, 192.0.2.7, 10.1.2.3,2001:db8:1::5"], "192.0.2.7"),
        (["192.0.2.66", "192.0.2.7", "10.1.2.3"], "192.0.2.7"),
        (["10.1.2.3, 10.4.5.6"], "10.1.2.3"),
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["10.9.9.9, unknown"], ""),
        (["192.0.2.7, _hidden, 10.1.2.3"], ""),
        (["garbage, 192.0.2.7"], "192.0.2.7"),
        ([", ,192.0.2.7, ,"], "192.0.2.7"),
        (["192.0.2.66," + "10.0.0.1," * 32], "10.0.0.1"),
    ],
)
def test_the_address_behind_proxies(entries: list[str], address: str) -> None:
    """The address is the rightmost that is no trusted proxy's: its owner wrote everything to the left of it."""
    assert resolved(BEHIND, PROXY, *(("X-Forwarded-For", entry) for entry in entries)).client_address == address


@given(st.text(st.characters(max_codepoint=255, exclude_characters=","), max_size=40))
def test_a_client_can_claim_nothing(claim: str) -> None:
    """The proxy appends the real address to whatever the client writes into the header."""
    assert resolved(BEHIND, PROXY, ("X-Forwarded-For", f"{claim}, 192.0.2.7")).client_address == "192.0.2.7"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["a" * (MAX_IDENTITY_LENGTH + 1)], "has more than 256 characters"),
        (["ann\tbob"], "can't be printed"),
        (["ann\u202ebob".encode()], "can't be printed"),
        ([b"M\xfcller"], "is not UTF-8"),
        (["ann", "bob"], "was sent 2 times"),
    ],
)
@pytest.mark.parametrize("header", ["X-Forwarded-User", "X-Client-Id"])
def test_an_invalid_identity_is_refused(header: str, values: list[Any], why: str) -> None:
    """An identity is recorded unchanged or not at all: truncated or cleaned, it could equal another one."""
    with pytest.raises(ApiError, match=why) as refused:
        resolved(BEHIND, PROXY, *((header, value) for value in values))
    assert (refused.value.code, refused.value.body.error.target) == ("InvalidHeader", header)


def test_the_longest_name() -> None:
    """The limit counts characters, not bytes."""
    assert (
        resolved(BEHIND, PROXY, ("X-Forwarded-User", ("ü" * MAX_IDENTITY_LENGTH).encode())).identity
        == "ü" * MAX_IDENTITY_LENGTH
    )
