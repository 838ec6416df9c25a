"""What a client without a token learns: the document of RFC 9728, and the challenge that names it."""

from __future__ import annotations

import msgspec
import pytest

from opstream_api.access.resource_metadata import ResourceMetadata, challenge

pytestmark = pytest.mark.unit

BEARER = 'Bearer realm="opstream"'
URL = "https://api.example/.well-known/oauth-protected-resource"


def test_the_document_names_the_issuer() -> None:
    """With the names of RFC 9728, and no empty member."""
    metadata = ResourceMetadata(["https://id.example"], ["read", "cancel"], "https://api.example")
    document = metadata.document("http://ignored")
    assert msgspec.json.decode(document) == {
        "resource": "https://api.example",
        "authorization_servers": ["https://id.example"],
        "scopes_supported": ["read", "cancel"],
        "bearer_methods_supported": ["header"],
        "resource_name": "opstream",
    }


def test_no_cache_keeps_what_depends_on_the_request() -> None:
    """Without a public URL the document has the request's own `Host`, which may be a stranger's."""
    for public_url, expected in (("https://api.example", "public, max-age=3600"), ("", "no-store")):
        assert ResourceMetadata(["https://id.example"], ["read"], public_url).cache_control == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (challenge(), BEARER),
        (challenge(URL), f'{BEARER}, resource_metadata="{URL}"'),
        (
            challenge(URL, refused="it has expired"),
            f'{BEARER}, error="invalid_token", error_description="it has expired", resource_metadata="{URL}"',
        ),
        (challenge(scope="read"), f'{BEARER}, error="insufficient_scope", scope="read"'),
    ],
)
def test_a_challenge(value: str, expected: str) -> None:
    """A request without a token gets no error code (RFC 6750, 3.1)."""
    assert value == expected


def test_a_challenge_is_one_header() -> None:
    """Whatever a claim or a host has in it."""
    value = challenge('https://a"\r\nX: y', refused='claim "\\" ü\r\nSet-Cookie: a')
    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') == 8
