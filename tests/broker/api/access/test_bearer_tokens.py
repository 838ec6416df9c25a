"""A service that takes the bearer tokens of an identity provider, beside API keys: who gets in, and as whom."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx
import msgspec
import pytest

from opstream_api.access.tokens.errors import KeySetRefused
from opstream_api.access.tokens.jwt_settings import JwtSettings
from opstream_journal import Connection, announce_action
from tests.support.access.desk import AccessDesk, serving_with_keys
from tests.support.access.identity_provider import AUDIENCE, KEYS, IdentityProvider, SigningKey
from tests.support.api.service import serving, spec
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PUBLIC: Final = "https://api.example/ops"
METADATA: Final = "/.well-known/oauth-protected-resource"


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    """The identity provider."""
    async with IdentityProvider() as provider:
        yield provider


def jwt_settings(provider: IdentityProvider, **more: Any) -> JwtSettings:
    """The service trusts the provider, and knows tenants by a claim."""
    return JwtSettings(issuer=provider.issuer, audiences=(AUDIENCE,), tenant_claim="org", **more)


@pytest.fixture
async def desk(
    broker: Broker, link: Connection, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[AccessDesk]:
    """A service that takes both kinds of credentials, and has a line for each request."""
    caplog.set_level(logging.INFO, "opstream_api.requests")
    await announce_action(link, spec())
    auth = ("keys", "jwt")
    async with serving_with_keys(broker, link, auth=auth, jwt=jwt_settings(provider), public_url=PUBLIC) as desk:
        yield desk


def bearer(token: str, **more: str) -> dict[str, str]:
    """The headers of a request with a token."""
    return {"Authorization": f"Bearer {token}", **more}


async def submit(desk: AccessDesk, token: str, operation_id: str) -> httpx.Response:
    """POST an operation."""
    return await desk.api.submit(headers=bearer(token, **{"Operation-Id": operation_id}))


async def status(desk: AccessDesk, token: str, operation_id: str) -> httpx.Response:
    """GET a status."""
    return await desk.api.client.get(f"/status/{operation_id}", headers=bearer(token))


async def test_a_token_and_a_key_of_one_owner_are_one_caller(desk: AccessDesk, provider: IdentityProvider) -> None:
    """Tenant and subject are the owner; a new token, or a key instead, sees the same operations."""
    token = provider.token(org="acme", sub="ann", scope="openid submit:book:* read cancel")
    assert (await submit(desk, token, "one")).status_code == 202
    ann = await desk.caller("acme", "ann", "read")
    for answer in (await status(desk, provider.token(org="acme", sub="ann"), "one"), await ann.get("/status/one")):
        assert (answer.status_code, answer.json()["id"]) == (200, "one")
    strangers = [provider.token(org="acme", sub="bob"), provider.token(org="other", sub="ann")]
    unknown = await status(desk, token, "two")
    for stranger in strangers:
        hidden = await status(desk, stranger, "one")
        assert (hidden.status_code, hidden.content) == (404, unknown.content)


async def test_the_scopes_of_a_token_hold(desk: AccessDesk, provider: IdentityProvider) -> None:
    """A token without a scope is known, so the answer is 403."""
    answer = await submit(desk, provider.token(org="acme", scope="read"), "one")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "Forbidden")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert (await status(desk, provider.token(org="acme", scope="profile"), "one")).status_code == 403


@pytest.mark.parametrize(
    ("claims", "reason", "word"),
    [
        ({"exp": 1}, "it has expired", "expired-token"),
        ({"nbf": 9_999_999_999}, "it is not valid yet", "early-token"),
        ({"aud": "https://other.example"}, "it is for another audience", "wrong-audience"),
        ({"iss": "https://evil.example"}, "it is of another issuer", "wrong-issuer"),
        ({"org": None}, "its claim org is missing", "invalid-token"),
        ({"org": ""}, "its claim org is no text", "invalid-token"),
    ],
    ids=str,
)
async def test_a_wrong_token_is_refused_with_the_reason(
    desk: AccessDesk,
    provider: IdentityProvider,
    caplog: pytest.LogCaptureFixture,
    claims: Mapping[str, Any],
    reason: str,
    word: str,
) -> None:
    """Its client reads which, and where to get another one; the line of the request has the reason in a word."""
    answer = await status(desk, provider.token(**{"org": "acme", **claims}), "one")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (401, "Unauthenticated")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="opstream", error="invalid_token", error_description="')
    assert reason in challenge
    assert f'resource_metadata="{PUBLIC}{METADATA}"' in challenge
    await eventually(lambda: f" denied={word} " in caplog.text)


async def test_a_forged_token_gets_nowhere(
    desk: AccessDesk, provider: IdentityProvider, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Signed with another key under the id of the right one, or of none; nothing is recorded."""
    for key_id, word in (("k1", "wrong-signature"), ("secret-key", "unknown-signing-key")):
        answer = await submit(desk, SigningKey(key_id).sign(provider.claims(org="acme", scope="admin")), "one")
        assert answer.status_code == 401
        await eventually(lambda word=word: f" denied={word} " in caplog.text)  # type: ignore[misc]
    assert "secret-key" not in caplog.text
    assert (await link.nc.jetstream().stream_info("OPERATIONS")).state.messages == 0


async def test_a_stream_ends_with_its_token(broker: Broker, link: Connection, provider: IdentityProvider) -> None:
    """Although the operation is open: the token that opened it has expired."""
    await announce_action(link, spec())
    settings = jwt_settings(provider, leeway=0.0)
    async with serving_with_keys(broker, link, auth=("keys", "jwt"), jwt=settings) as desk:
        long = provider.token(org="acme", scope="submit read")
        await submit(desk, long, "one")
        now = provider.claims()["iat"]
        short = provider.token(org="acme", exp=now + 2)
        async with desk.api.connection() as (reader, writer):
            lines = ("GET /status/one/events HTTP/1.1", "Host: x", "Accept: text/event-stream")
            writer.write("\r\n".join((*lines, f"Authorization: Bearer {short}", "", "")).encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert b"event: requested" in await reader.readuntil(b"\r\n0\r\n\r\n")  # the stream is complete
        assert (await status(desk, short, "one")).status_code == 401
        assert (await status(desk, long, "one")).status_code == 200


async def test_where_to_get_a_token_is_no_secret(desk: AccessDesk, provider: IdentityProvider) -> None:
    """The document of RFC 9728 needs no credentials, below the service's own path and at the root of its host."""
    for path in (METADATA, f"{METADATA}/ops"):
        answer = await desk.api.client.get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.headers["Cache-Control"] == "public, max-age=3600"
        document = answer.json()
        assert (document["resource"], document["authorization_servers"]) == (PUBLIC, [provider.issuer])
        assert {"submit", "read", "cancel"} <= set(document["scopes_supported"])
        for method in ("POST", "DELETE", "OPTIONS"):
            refused = await desk.api.client.request(method, path)
            assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    plain = await desk.api.client.get("/openapi.json")
    assert plain.headers["WWW-Authenticate"] == f'Bearer realm="opstream", resource_metadata="{PUBLIC}{METADATA}"'
    for path in (f"{METADATA}/", f"{METADATA}/x", "/.well-known/other"):
        assert (await desk.api.client.get(path)).status_code == 401


async def test_a_service_without_tokens_has_no_such_document(broker: Broker, link: Connection) -> None:
    """Neither with API keys alone nor without any credentials."""
    async with serving_with_keys(broker, link) as desk:
        assert (await desk.api.client.get(METADATA)).status_code == 401
    async with serving(broker.url) as api:
        answer = await api.client.get(METADATA)
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (404, "NotFound")


async def test_a_provider_that_is_away_keeps_no_service_from_starting(
    broker: Broker, link: Connection, provider: IdentityProvider
) -> None:
    """Keys work, tokens get 503, and `/readyz` says so, until the provider is there."""
    await provider.stop()
    async with serving_with_keys(broker, link, auth=("keys", "jwt"), jwt=jwt_settings(provider)) as desk:
        await desk.caller("acme", "ann", "read")
        answer = await status(desk, provider.token(org="acme"), "one")
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (503, "IdentityProviderUnavailable")
        assert answer.headers["Retry-After"] == "5"
        ready = await desk.api.client.get("/readyz")
        assert ready.status_code == 200
        assert [condition["name"] for condition in ready.json()["conditions"]] == ["IdentityProviderAway"]


async def test_a_provider_without_keys_ends_the_start(
    broker: Broker, link: Connection, provider: IdentityProvider
) -> None:
    """An operator has to act, so the service does not pretend to work."""
    provider.replies[KEYS] = (200, msgspec.json.encode({"keys": []}))
    with pytest.raises(KeySetRefused, match="--jwt-algorithms"):
        async with serving(broker.url, auth=("jwt",), jwt=jwt_settings(provider)):
            pass
