"""URLs of webhooks, and rules about their hosts."""

from __future__ import annotations

import pytest

from opstream_schemas.errors import InvalidName
from opstream_schemas.urls import HostRule, is_host_allowed, parse_url

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://a.example/", "must begin with https://"),
        ("//a.example/", "must be absolute"),
        ("/hook", "must be absolute"),
        ("https:///x", "must be absolute"),
        ("https://user@a.example/", "no user or password"),
        ("https://user:pw@a.example/", "no user or password"),
        ("https://a.example/#x", "no fragment"),
        ("https://a.example\\@b.example/", "visible ASCII"),
        ("https://a.example/a b", "visible ASCII"),
        ("https://\u00e4.example/", "visible ASCII"),
        ("https://a..example/", "a name or an address"),
        ("https://-a.example/", "a name or an address"),
        ("https://a.example:0/", "a port is 1 to 65535"),
        ("https://a.example:70000/", "a port is 1 to 65535"),
        ("https://a.example/" + "x" * 2048, "2048 are allowed"),
        ("ftp://a.example/", "must be absolute"),
        ("", "must be absolute"),
    ],
)
def test_an_invalid_url(text: str, complaint: str) -> None:
    """Only an absolute https URL without user and fragment is valid; the message does not repeat the text."""
    with pytest.raises(InvalidName, match=complaint) as refused:
        parse_url(text)
    assert "pw" not in str(refused.value)


def test_urls() -> None:
    """The host is in lower case, the port defaults to the scheme's, and the redacted URL has no query."""
    url = parse_url("HTTPS://A.Example?token=1")
    assert (url.host, url.port, url.path, url.query, url.redacted) == (
        "a.example",
        443,
        "/",
        "?token=1",
        "https://a.example/",
    )
    assert parse_url("https://[2606:4700::1]:8443/x@y").redacted == "https://[2606:4700::1]:8443/x@y"


@pytest.mark.parametrize(
    ("rule", "url", "expected"),
    [
        ("hooks.example.org", "https://hooks.example.org/x", True),
        ("Hooks.Example.org", "https://HOOKS.example.ORG/", True),
        ("hooks.example.org", "https://hooks.example.org:8443/", False),
        ("hooks.example.org:8443", "https://hooks.example.org:8443/", True),
        ("hooks.example.org:8443", "https://hooks.example.org/", False),
        ("hooks.example.org", "https://a.hooks.example.org/", False),
        ("*.example.org", "https://a.b.example.org/", True),
        ("*.example.org", "https://example.org/", False),
        ("*.example.org", "https://evilexample.org/", False),
        ("example.org", "https://example.org.evil.example/", False),
    ],
)
def test_host_rules(rule: str, url: str, expected: bool) -> None:
    """A rule allows exactly its host, with a wildcard all hosts below it, and another port only if it names it."""
    assert is_host_allowed(parse_url(url), [HostRule.parse(rule)]) is expected


@pytest.mark.parametrize("text", ["", "*", "*.org", "https://a.example", "a.example/x", "a b", "*.10.0.0.1", "a:0"])
def test_an_invalid_host_rule(text: str) -> None:
    """A rule that could allow more than its author meant is refused."""
    with pytest.raises(InvalidName):
        HostRule.parse(text)
