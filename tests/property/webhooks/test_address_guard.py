"""Which addresses may be called: only those on the public internet, however an address is written."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_webhooks.address_guard import is_permitted, is_public

pytestmark = pytest.mark.unit

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
REFUSED = (
    *("0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1"),
    *("2001::1", "2001:2::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1"),
    *("fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1"),
    # What clouds serve to their own machines: metadata, resolvers, agents.
    *("168.63.129.16", "100.100.100.200", "192.0.0.192", "169.254.170.2", "161.26.0.10", "166.8.1.1"),
    *("fd20:ce::254", "fd00:42::42", "2620:4f:8000::1", "192.31.196.1", "192.52.193.1", "192.175.48.1"),
    *("::ffff:0:127.0.0.1", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:127.0.0.1", "::ffff:168.63.129.16"),
)
PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.255", "2606:4700::1111"),
    *("168.63.129.15", "168.63.129.17", "2606:4700::5efe:8.8.8.8"),
)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text: str) -> None:
    """Each special range, and each way to embed an IPv4 address in an IPv6 address, is refused."""
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public(text: str) -> None:
    """The neighbours of a special range are not refused."""
    assert is_public(ipaddress.ip_address(text))


@given(V4 | V6)
def test_never_more_than_the_standard_library(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """No address that Python calls private, local, reserved or multicast is public here."""
    special = (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast)
    if any((*special, address.is_reserved, address.is_unspecified)):
        assert not is_public(address)


@given(V4)
def test_no_ipv4_address_hides_in_an_ipv6_one(address: ipaddress.IPv4Address) -> None:
    """Mapped, compatible, NAT64 and 6to4 addresses are refused, whatever address they embed."""
    number = int(address)
    for base in ("::ffff:0:0", "::", "64:ff9b::"):
        assert not is_public(ipaddress.IPv6Address(int(ipaddress.IPv6Address(base)) + number))
    assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))


@given(V4 | V6, st.integers(0, 32))
def test_what_the_operator_allows(address: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int) -> None:
    """An allowed network may be called, and changes nothing for addresses outside of it."""
    network = ipaddress.ip_network((address, bits), strict=False)
    assert is_permitted(address, [network])
    other = ipaddress.ip_network("10.9.0.0/16")
    assert is_permitted(address, [other]) == (is_public(address) or address in other)
