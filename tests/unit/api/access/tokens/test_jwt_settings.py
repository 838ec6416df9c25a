"""What an operator may write about bearer tokens, and what is refused with a word on what to write instead."""

from __future__ import annotations

import pytest

from opstream_api.access.tokens.jwt_settings import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    JwtSettings,
    discovery_urls,
    parse_algorithm,
    parse_claim,
    parse_issuer,
    parse_provider_url,
)
from opstream_schemas.errors import InvalidName

pytestmark = pytest.mark.unit


def test_the_default_algorithms() -> None:
    """Those that providers sign with, each asymmetric."""
    assert DEFAULT_ALGORITHMS == ("RS256", "ES256", "EdDSA")
    assert [parse_algorithm(name.lower()) for name in ALGORITHMS] == list(ALGORITHMS)


@pytest.mark.parametrize("name", ["none", "None", "HS256", "hs384", "HS512", "A128KW", "dir", "", "ES256K"])
def test_an_algorithm_that_others_could_sign_with_is_refused(name: str) -> None:
    """By the option, and by the settings themselves."""
    with pytest.raises(InvalidName, match="RS256, RS384"):
        parse_algorithm(name)
    with pytest.raises(ValueError, match="asymmetric"):
        JwtSettings(issuer="https://id.example", audiences=("a",), algorithms=(name,))


def test_settings_that_check_nothing_are_refused() -> None:
    """Whatever builds them."""
    for issuer, audiences, algorithms in [("", ("a",), ("ES256",)), ("i", (), ("ES256",)), ("i", ("a",), ())]:
        with pytest.raises(ValueError, match="audience"):
            JwtSettings(issuer=issuer, audiences=audiences, algorithms=algorithms)


@pytest.mark.parametrize("text", ["https://id.example", "https://id.example/realms/a/", "http://127.0.0.1:8081/x"])
def test_an_issuer_stays_as_it_is(text: str) -> None:
    """Tokens have exactly that text, with its slash at the end or without one."""
    assert parse_issuer(text) == text


@pytest.mark.parametrize(
    "text", ["", "id.example", "http://id.example", "http://10.0.0.7", "https://u:p@id.example", "ftp://id.example"]
)
def test_a_place_that_can_not_be_trusted_is_refused(text: str) -> None:
    """Without TLS anyone on the way could send keys of their own."""
    with pytest.raises(InvalidName):
        parse_provider_url(text)
    with pytest.raises(InvalidName):
        parse_issuer(text)


def test_an_issuer_has_no_query() -> None:
    """OpenID Connect Discovery 1.0, 3."""
    with pytest.raises(InvalidName, match="without a query"):
        parse_issuer("https://id.example/?tenant=a")


def test_where_an_issuer_describes_itself() -> None:
    """OpenID Connect appends, RFC 8414 puts it in between."""
    assert discovery_urls("https://id.example/realms/a/") == (
        "https://id.example/realms/a/.well-known/openid-configuration",
        "https://id.example/.well-known/oauth-authorization-server/realms/a",
    )
    assert discovery_urls("https://id.example:8443") == (
        "https://id.example:8443/.well-known/openid-configuration",
        "https://id.example:8443/.well-known/oauth-authorization-server",
    )


@pytest.mark.parametrize("text", ["", "/", "a\nb", "x" * 257])
def test_what_is_no_claim(text: str) -> None:
    """The message shows how a nested one is written."""
    with pytest.raises(InvalidName, match="/realm_access/roles"):
        parse_claim(text)
    assert parse_claim("https://x.example/tenant") == "https://x.example/tenant"
