"""Where keys come from: a provider that does not answer, answers too much, or is another one; and files."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_api.access.tokens.errors import KeySetRefused, ProviderAway
from opstream_api.access.tokens.jwt_settings import JwtSettings
from opstream_api.access.tokens.key_set import parse_key_set
from opstream_api.access.tokens.key_source import MAX_DOCUMENT, ProviderSource, key_source
from tests.support.access.identity_provider import (
    AUDIENCE,
    DISCOVERY,
    KEYS,
    IdentityProvider,
    SigningKey,
    make_certificate,
    rsa_key,
)

pytestmark = pytest.mark.unit

RFC_8414 = "/.well-known/oauth-authorization-server"


def settings(provider: IdentityProvider, **more: Any) -> JwtSettings:
    """Those of a service that trusts the provider."""
    return JwtSettings(issuer=provider.issuer, audiences=(AUDIENCE,), **more)


async def test_keys_are_found_by_the_discovery_document() -> None:
    """By OpenID Connect's, or by that of RFC 8414 where there is only that one."""
    async with IdentityProvider() as provider:
        assert await key_source(settings(provider)).load() == provider.key_set()
        provider.replies[RFC_8414] = provider._reply(DISCOVERY)
        provider.replies[DISCOVERY] = (404, b"")
        assert await key_source(settings(provider)).load() == provider.key_set()
        assert provider.requests == [DISCOVERY, KEYS, DISCOVERY, RFC_8414, KEYS]


async def test_the_settings_may_name_the_place() -> None:
    """Then no document is asked for."""
    async with IdentityProvider() as provider:
        source = key_source(settings(provider, jwks_url=provider.issuer + KEYS))
        assert await source.load() == provider.key_set()
        assert provider.requests == [KEYS]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"issuer": "https://evil.example", "jwks_uri": "{}/keys"}, "--jwt-issuer"),
        ({"issuer": "{}/", "jwks_uri": "{}/keys"}, "--jwt-issuer"),
        ({"jwks_uri": "{}/keys"}, "--jwt-issuer"),
        ({"issuer": "{}", "jwks_uri": "http://keys.example/keys"}, "no TLS"),
        ({"issuer": "{}", "jwks_uri": "file:///etc/passwd"}, "can be trusted"),
        ({"issuer": "{}", "jwks_uri": 7}, "can be trusted"),
        ({"issuer": "{}"}, "can be trusted"),
        ([], "no discovery document"),
    ],
    ids=str,
)
async def test_a_document_that_leads_elsewhere_is_refused(document: Any, reason: str) -> None:
    """One of another issuer, and one whose keys anyone on the way could replace."""
    async with IdentityProvider() as provider:
        body = msgspec.json.encode(document).replace(b"{}", provider.issuer.encode())
        provider.replies[DISCOVERY] = (200, body)
        with pytest.raises(KeySetRefused, match=reason):
            await key_source(settings(provider)).load()
        assert provider.requests == [DISCOVERY]


async def test_a_provider_without_any_document() -> None:
    """The message says which option names the keys."""
    async with IdentityProvider() as provider:
        provider.replies[DISCOVERY] = (404, b"")
        with pytest.raises(KeySetRefused, match="404"):
            await key_source(settings(provider)).load()


@pytest.mark.parametrize(("status", "error"), [(500, ProviderAway), (503, ProviderAway), (429, ProviderAway)])
async def test_an_outage_may_end(status: int, error: type[Exception]) -> None:
    """Whatever a provider says that has no time now."""
    async with IdentityProvider() as provider:
        provider.replies[KEYS] = (status, b"")
        with pytest.raises(error, match=str(status)):
            await key_source(settings(provider)).load()


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404])
async def test_another_answer_is_a_mistake_of_the_settings(status: int) -> None:
    """No redirect is followed."""
    async with IdentityProvider() as provider:
        provider.replies[KEYS] = (status, b"")
        with pytest.raises(KeySetRefused, match=f"{status}; redirects are not followed"):
            await key_source(settings(provider)).load()


async def test_a_huge_key_set_is_not_read() -> None:
    """Nor a huge document before it: neither may fill the memory of a service."""
    async with IdentityProvider() as provider:
        for path in (KEYS, DISCOVERY):
            provider.replies[path] = (200, b" " * (MAX_DOCUMENT + 1))
            with pytest.raises(KeySetRefused, match=f"more than {MAX_DOCUMENT} bytes"):
                await key_source(settings(provider)).load()


async def test_a_silent_provider_holds_nothing_up() -> None:
    """The time is for the whole, so a slow drip holds it up no longer."""
    async with IdentityProvider() as provider:
        provider.hold = asyncio.Event()
        with pytest.raises(ProviderAway, match=r"within 0\.01 s"):
            await ProviderSource(settings(provider), seconds=0.01).load()
        provider.hold.set()


async def test_a_provider_that_is_gone() -> None:
    """A refused connection is an outage."""
    async with IdentityProvider() as provider:
        source = key_source(settings(provider))
    with pytest.raises(ProviderAway, match="ConnectError"):
        await source.load()


async def test_the_provider_s_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of one that no trusted authority knows are not read; the system's authorities are trusted."""
    certificate = make_certificate(tmp_path)
    provider = IdentityProvider()
    provider.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    provider.tls.load_cert_chain(certificate)
    async with provider:
        with pytest.raises(ProviderAway, match="certificate verify failed"):
            await key_source(settings(provider)).load()
        assert provider.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await key_source(settings(provider)).load() == provider.key_set()


async def test_keys_may_come_from_a_file(tmp_path: Path) -> None:
    """It is read at each load; one that can't be read, or is huge, is a mistake of the settings."""
    async with IdentityProvider() as provider:
        path = tmp_path / "keys.json"
        source = key_source(settings(provider, jwks_file=str(path)))
        with pytest.raises(KeySetRefused, match="--jwt-jwks-file"):
            await source.load()
        path.write_bytes(provider.key_set())
        assert await source.load() == provider.key_set()
        path.write_bytes(b" " * (MAX_DOCUMENT + 1))
        with pytest.raises(KeySetRefused, match="--jwt-jwks-file"):
            await source.load()
        assert provider.requests == []


GOOD = SigningKey("good")
SECRET = {"kty": "oct", "kid": "bad", "k": "c2VjcmV0", "alg": "HS256"}


def private_member(key: SigningKey) -> dict[str, Any]:
    """A private key, as a mistaken provider might publish it."""
    return {**key.member(kid="bad"), "d": "AAAA"}


@pytest.mark.parametrize(
    "member",
    [
        SECRET,
        {**SECRET, "alg": "ES256"},
        private_member(GOOD),
        GOOD.member(kid="bad", use="enc"),
        GOOD.member(kid="bad", key_ops=["sign"]),
        GOOD.member(kid="bad", key_ops="verify"),
        GOOD.member(kid="bad", alg="ES384"),
        GOOD.member(kid="bad", alg="none"),
        GOOD.member(kid="bad", crv="P-384"),
        GOOD.member(kid="bad", crv=["P-256"]),
        GOOD.member(kid="bad", crv="P-9"),
        GOOD.member(kid="bad", x="AAAA"),
        GOOD.member(kid=7),
        {"kty": "RSA", "kid": "bad", "n": "", "e": "AQAB"},
        {"kty": "RSA", "kid": "bad"},
        {"kty": "EC", "kid": "bad"},
        {"kid": "bad"},
        "text",
        None,
    ],
    ids=[
        *(
            "secret",
            "secret-alg",
            "private",
            "use",
            "key-ops",
            "key-ops-type",
            "alg",
            "alg-none",
            "curve",
            "curve-type",
        ),
        *("curve-unknown", "point", "kid-type", "rsa-empty", "rsa-bare", "ec-bare", "nothing", "text", "null"),
    ],
)
def test_a_key_that_can_not_be_used_is_left_out(member: Any) -> None:
    """The others of its set are taken."""
    data = msgspec.json.encode({"keys": [member, GOOD.member()]})
    found = parse_key_set(data, ("ES256", "ES384", "RS256", "EdDSA"))
    assert [key.key_id for algorithm in ("ES256",) for key in found.candidates("good", algorithm)] == ["good"]
    for algorithm in ("ES256", "ES384", "RS256", "EdDSA", "HS256", "none"):
        assert list(found.candidates("bad", algorithm)) == []


@pytest.mark.parametrize("bits", [1024, 16_384])
def test_rsa_keys_have_a_size(bits: int) -> None:
    """A small one can be broken, and a very large one takes long for each token."""
    key = SigningKey("k", "RS256")
    if bits == 1024:
        key.private = rsa_key(bits)
        member = key.member()
    else:
        member = {"kty": "RSA", "kid": "k", "e": "AQAB", "n": "_" * (bits // 6)}
    with pytest.raises(KeySetRefused, match="--jwt-algorithms"):
        parse_key_set(msgspec.json.encode({"keys": [member]}), ("RS256",))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"<html>", b'{"keys": {}}', b'{"keys": [], "keys": []}', b'{"keys": []}', b"\xff"]
)
def test_what_is_no_key_set(data: bytes) -> None:
    """A page of a proxy, for instance."""
    with pytest.raises(KeySetRefused, match=r"issuer"):
        parse_key_set(data, ("ES256",))


def test_only_so_many_keys_are_read() -> None:
    """A set that names thousands takes no time."""
    members = [GOOD.member(kid=f"k{number}") for number in range(100)]
    found = parse_key_set(msgspec.json.encode({"keys": members}), ("ES256",))
    assert len(found.candidates("k63", "ES256")) == 1
    assert len(found.candidates("k64", "ES256")) == 0
