"""The URLs of a client: of the service, of targets and of operations."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given

from opstream.client.errors import InvalidRequest
from opstream.client.urls import ServiceUrls
from opstream_api.http.submit_request import parse_submit_path
from opstream_schemas.names import Kind
from tests.support.schemas.histories import resource_ids, routable_kinds

pytestmark = pytest.mark.unit

BASE = "https://api.test:8443/ops"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://api.test", "http://api.test"),
        ("HTTP://api.test/", "http://api.test"),
        ("https://api.test:8443/ops/", BASE),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_services(url: str, base: str) -> None:
    """A service has a scheme, a host and perhaps a path."""
    assert (ServiceUrls(url).base, ServiceUrls(url).authorization) == (base, "")


@pytest.mark.parametrize(
    "url", ["", "api.test", "ftp://api.test", "http://", "http://a.test/?x=1", "http://a.test/#x", "http://a:b.test:x"]
)
def test_invalid_services(url: str) -> None:
    """Anything else is refused, with how to write one."""
    with pytest.raises(InvalidRequest, match=r"is not a base URL: (write https?://|leave out what)"):
        ServiceUrls(url)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("api.test", "write https://api.test, or http://api.test without TLS"),
        ("localhost:8080", "write http://localhost:8080"),
        ("127.0.0.1:8080/ops", "write http://127.0.0.1:8080/ops"),
        ("ann:secret@api.test", "write https://api.test, or http://api.test without TLS"),
        ("ftp://api.test", "write http://HOST:PORT, or https://HOST/PATH with TLS"),
        ("https://api.test/?x=1", "leave out what begins at the '?' or '#'"),
        ("", "write http://HOST:PORT, or https://HOST/PATH with TLS"),
    ],
)
def test_advice(url: str, advice: str) -> None:
    """The error says what to write instead, as far as the text says what was meant."""
    with pytest.raises(InvalidRequest) as caught:
        ServiceUrls(url)
    assert str(caught.value).endswith(f" is not a base URL: {advice}")
    assert "secret" not in str(caught.value)


def test_credentials() -> None:
    """Credentials become a header, and are in no URL that could be printed."""
    service = ServiceUrls("https://ann:s%3Acret@api.test/ops")
    assert service.base == "https://api.test/ops"
    assert service.authorization == "Basic YW5uOnM6Y3JldA=="
    with pytest.raises(InvalidRequest) as caught:
        ServiceUrls("ftp://ann:secret@api.test")
    assert "secret" not in str(caught.value)


@given(kind=routable_kinds, resource_id=resource_ids)
@example(kind=Kind("book", "start"), resource_id='..:%2F?#a;b\\"[é]')
def test_any_target(kind: Kind, resource_id: str) -> None:
    """The service reads any resource id from the path as the client was given it."""
    target = f"{kind.resource}/{resource_id}:{kind.action}" if resource_id else str(kind)
    url = httpx.URL(ServiceUrls("http://api.test").action(target))
    parsed = parse_submit_path(url.raw_path)
    assert (parsed.kind, parsed.resource_id) == (kind, resource_id)


def test_a_leading_slash() -> None:
    """A leading slash is allowed: targets look like paths."""
    assert ServiceUrls(BASE).action("/book/42:upload-start") == f"{BASE}/book/42:upload-start"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "book/..:start",
        "book/a/b:start",
        "Book:start",
        "status:start",
        "runners/1:start",
        ".well-known/x:start",
        ":x",
        "/",
        "a b/c",
        "Book",
        "//x",
    ],
)
def test_invalid_targets(target: str) -> None:
    """Anything else is refused, with how to write one."""
    with pytest.raises(InvalidRequest, match="is no target: write 'book"):
        ServiceUrls(BASE).action(target)


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("person/ada", "it names no action: write 'person/ada:ACTION'"),
        ("/person/ada", "it names no action: write 'person/ada:ACTION'"),
        ("person/ada:", "it names no action: write 'person/ada:ACTION'"),
        ("order/7/ship", "it names no action: write 'order/7:ship'"),
        ("person", "it names no action: write 'person:ACTION' or 'person/ID:ACTION'"),
        ("person:", "it names no action: write 'person:ACTION' or 'person/ID:ACTION'"),
        ("person/:greet", "it names no resource: write 'person/ID:greet', or 'person:greet' without one"),
    ],
)
def test_incomplete_targets(target: str, advice: str) -> None:
    """The error says which part is missing, and how the target looks with it."""
    with pytest.raises(InvalidRequest) as caught:
        ServiceUrls(BASE).action(target)
    assert str(caught.value) == f"{target!r} is no target: {advice}"


@pytest.mark.parametrize(
    "location",
    [f"{BASE}/status/1", f"{BASE}/elsewhere/1", "https://API.test:8443/ops/status/1"],
)
def test_locations_of_the_service(location: str) -> None:
    """An `Operation-Location` below the service's URL is used unchanged."""
    assert ServiceUrls(BASE).status("1", location) == location


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "/ops/status/1",
        "https://evil.test:8443/ops/status/1",
        "https://api.test/ops/status/1",
        "http://api.test:8443/ops/status/1",
        "https://api.test:8443/status/1",
        "https://api.test:8443/opsx/status/1",
        "https://api.test:8443/ops/../status/1",
        "https://api.test:8443/ops/status/1?x=1",
        "https://api.test:8443@evil.test/ops/status/1",
        "https://ann@api.test:8443/ops/status/1",
        "https://api.test:port/ops/status/1",
        "https://api.test:8443/ops/status/\n1",
        "https://api.test:8443/ops/status/é",
    ],
)
def test_locations_elsewhere(location: str | None) -> None:
    """Another host, or a path outside of the service's: its own URL is built instead. So no credentials go astray, and
    a service that does not know what its proxy is called can be polled."""
    assert ServiceUrls(BASE).status("1", location) == f"{BASE}/status/1"


def test_default_ports_are_no_difference() -> None:
    """`https://host` and `https://host:443` are one origin."""
    location = "https://api.test:443/status/1"
    assert ServiceUrls("https://api.test").status("1", location) == location
    assert urlsplit(location).port == 443
