"""Which hosts a service answers for, and how hosts and origins are written."""

from __future__ import annotations

import pytest

from opstream_api.http.request_origin import HostPolicy
from opstream_schemas.errors import InvalidName
from opstream_schemas.urls import parse_host_rule, parse_origin

pytestmark = pytest.mark.unit

LOCAL = [
    "localhost",
    "localhost:8080",
    "LOCALHOST:1",
    "127.0.0.1",
    "127.0.0.1:8080",
    "[::1]:8080",
    "[0:0::1]",
    "localhost.",
]
FOREIGN = [
    *(
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#localhost",
    ),
    *("", "evil.example:localhost", "localhost@evil.example", "[::2]", "10.0.0.7", "0.0.0.0", "127.1", "xlocalhost"),
    *("localhost:80:80", "api.example.evil", "local host", "::1.evil.example"),
]


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "localhost", "::1", "127.0.0.53"])
def test_on_a_loopback_address_only_this_machine_is_a_host(bound_to: str) -> None:
    """So a web site whose name resolves to this machine reaches nothing (DNS rebinding)."""
    policy = HostPolicy.of((), bound_to=bound_to, public_url="")
    assert [host for host in LOCAL if not policy.permits(host)] == []
    assert [host for host in FOREIGN if policy.permits(host)] == []
    assert policy.permits(f"[{bound_to}]:1" if ":" in bound_to else bound_to)


def test_the_public_host_is_allowed_and_so_is_what_the_operator_names() -> None:
    """Beside the names of this machine; `*.` stands for all names below."""
    policy = HostPolicy.of(
        ("Api.Example", "*.internal.example", "10.0.0.7", "[FD00::0:1]"),
        bound_to="0.0.0.0",
        public_url="https://Public.example:8443/x",
    )
    for host in (*LOCAL, "api.example:1", "a.b.internal.example", "10.0.0.7:80", "[fd00::1]", "public.example"):
        assert policy.permits(host), host
    for host in ("internal.example", "evilinternal.example", "10.0.0.8", "public.example.evil", "b.api.example"):
        assert not policy.permits(host), host


@pytest.mark.parametrize(("allowed", "bound_to"), [((), "0.0.0.0"), ((), "::"), ((), "h"), (("*",), "127.0.0.1")])
def test_any_host_elsewhere_or_if_asked_for(allowed: tuple[str, ...], bound_to: str) -> None:
    """A service on a network has names that it can't know."""
    policy = HostPolicy.of(allowed, bound_to=bound_to, public_url="https://a.example")
    assert policy.is_any
    assert policy.permits("evil.example")


@pytest.mark.parametrize(
    "text", ["", "a.example:80", "https://a.example", "a b", "*.", "*a", "a.*", "-a", "a/b", "a,b"]
)
def test_what_is_no_host(text: str) -> None:
    """The message says how a host is written."""
    with pytest.raises(InvalidName, match=r"write api\.example\.com"):
        parse_host_rule(text)


@pytest.mark.parametrize(
    "text", ["", "*", "null", "a.example", "https://a.example/", "https://a.example/x", "ftp://a", "https://"]
)
def test_what_is_no_origin(text: str) -> None:
    """The message says how an origin is written."""
    with pytest.raises(InvalidName, match="without a path"):
        parse_origin(text)
    assert parse_origin("HTTPS://App.example:8443") == "https://app.example:8443"


@pytest.mark.parametrize("policy", [HostPolicy.of((), bound_to="127.0.0.1", public_url=""), HostPolicy(is_any=True)])
def test_a_host_has_one_port_or_none(policy: HostPolicy) -> None:
    """Also where any host is allowed, since links are built from it."""
    valid = ["localhost", "localhost.", "localhost:", "localhost:1", "localhost:65535", "[::1]", "[::1]:", "[::1]:80"]
    assert [host for host in valid if not policy.permits(host)] == []
    invalid = ["localhost:99999", "localhost:0", "localhost:a", "localhost:1:1", "[::1]80", "[::1]:0", "localhost:-1"]
    assert [host for host in invalid if policy.permits(host)] == []


def test_a_host_has_one_dot_at_its_end() -> None:
    """More are no name."""
    assert not HostPolicy.of((), bound_to="127.0.0.1", public_url="").permits("localhost...")
