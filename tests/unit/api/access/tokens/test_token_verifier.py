"""Bearer tokens of a real provider on a loopback address, with real keys: which are taken, and which attacks fail."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from opstream_api.access.tokens import token_verifier
from opstream_api.access.tokens.jwt_settings import ALGORITHMS
from opstream_api.access.tokens.token_verifier import MAX_CACHED, MAX_TOKEN, TokenVerifier
from tests.support.access.identity_provider import (
    AUDIENCE,
    KEYS,
    IdentityProvider,
    SigningKey,
    base64_text,
    rsa_key,
)
from tests.support.access.verifier_desk import FLOOR, desk

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
async def test_a_token_of_the_issuer_names_a_principal(algorithm: str) -> None:
    """With each kind of key; tenant, subject, scopes and end come from its claims."""
    async with desk(SigningKey(algorithm=algorithm), algorithms=ALGORITHMS, tenant_claim="org") as it:
        end = int(time.time()) + 100
        token = it.provider.token(sub="søren", org="acme", scope="openid read submit:book:*", exp=end)
        principal = await it.verifier.verify(token)
        assert (principal.tenant, principal.subject, principal.key_id) == ("acme", "søren", "")
        assert principal.scopes.texts == ("read", "submit:book:*")
        assert principal.expires_at is not None
        assert principal.expires_at.timestamp() == end + it.settings.leeway


async def test_a_token_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll costs no signature check, and nothing of the token stays in memory."""
    async with desk() as it:
        token = it.provider.token()
        assert it.verifier.known(token) is None
        principal = await it.verifier.verify(token)
        monkeypatch.setattr(token_verifier.jwt, "decode", lambda *_, **__: pytest.fail("verified again"))
        assert it.verifier.known(token) is principal
        assert await it.verifier.verify(token) is principal
        assert token not in str(vars(it.verifier))


async def test_what_is_known_ends_with_the_token() -> None:
    """Although nothing is verified again: it is looked up with the time."""
    async with desk() as it:
        now = time.time()
        it.verifier = TokenVerifier(it.settings, it.keys, now=lambda: now)
        token = it.provider.token(exp=int(now) + 5)
        await it.verifier.verify(token)
        now += 5 + it.settings.leeway
        assert it.verifier.known(token) is None


async def test_known_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with a token for each request fills no memory; the newest are kept."""
    monkeypatch.setattr(token_verifier, "MAX_CACHED", 3)
    assert MAX_CACHED > 3
    async with desk() as it:
        tokens = [it.provider.token(jti=str(number)) for number in range(5)]
        for token in tokens:
            await it.verifier.verify(token)
        assert [it.verifier.known(token) is not None for token in tokens] == [False, False, True, True, True]


FOREIGN: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "the issuer with a slash": {"iss": "/"},
    "no issuer": {"iss": None},
    "a list of issuers": {"iss": ["x"]},
    "another audience": {"aud": "https://other.example"},
    "a longer audience": {"aud": AUDIENCE + ".evil"},
    "other audiences": {"aud": ["a", "b"]},
    "no audience": {"aud": None},
    "an empty audience": {"aud": ""},
    "an audience that is no text": {"aud": {"x": AUDIENCE}},
    "expired": {"exp": int(time.time()) - 3600},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "tomorrow"},
    "an end that is a text": {"exp": "99999999999"},
    "an end that is true": {"exp": True},
    "an end beyond all time": {"exp": 1e300},
    "not yet valid": {"nbf": int(time.time()) + 3600},
    "issued in the future": {"iat": int(time.time()) + 3600},
    "a beginning that is no number": {"nbf": []},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is a number": {"sub": 7},
    "a subject that is nested": {"sub": {"sub": "billing"}},
    "a subject that is a list": {"sub": ["billing"]},
    "a subject with a line break": {"sub": "a\nb"},
    "a subject that is too long": {"sub": "x" * 257},
    "no tenant": {"org": None},
    "an empty tenant": {"org": ""},
    "a tenant that is nested": {"org": {"org": "acme"}},
    "a tenant that is a list": {"org": ["acme"]},
    "a tenant that is none": {"org": "a/b"},
    "scopes that are a number": {"scope": 1},
    "scopes that are nested": {"scope": [["read"]]},
    "too many scopes": {"scope": ["read"] * 1000},
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_claims_that_are_not_right_are_refused(name: str) -> None:
    """Although the issuer has signed them; the same token with right claims is taken."""
    async with desk(tenant_claim="org") as it:
        await it.verifier.verify(it.provider.token(org="acme"))
        await it.refused(it.provider.token(**{"org": "acme", **FOREIGN[name]}))


async def test_clocks_may_differ_a_little() -> None:
    """By the leeway, to both sides."""
    async with desk() as it:
        now = int(time.time())
        await it.verifier.verify(it.provider.token(exp=now - 20))
        await it.verifier.verify(it.provider.token(nbf=now + 20, iat=now + 20))
        assert "expired" in await it.refused(it.provider.token(exp=now - 40))
        assert "not valid yet" in await it.refused(it.provider.token(nbf=now + 60))


async def test_a_claim_of_another_name_may_be_nested() -> None:
    """By its JSON Pointer, and a name with a slash in it by itself."""
    names = {"tenant_claim": "https://x/org", "subject_claim": "client_id", "scope_claim": "/realm/roles~1all"}
    async with desk(**names) as it:
        more = {"https://x/org": "acme", "client_id": "c", "realm": {"roles/all": ["read", "cancel"]}, "sub": None}
        principal = await it.verifier.verify(it.provider.token(**more))
        assert (*principal.owner, principal.scopes.texts) == ("acme", "c", ("cancel", "read"))
        shallow = await it.verifier.verify(it.provider.token(**{**more, "realm": "read", "scope": "admin"}))
        assert shallow.scopes.texts == ()


@pytest.mark.parametrize("prefix", ["api://opstream/", "opstream.", "opstream:"])
async def test_scopes_may_begin_with_a_prefix(prefix: str) -> None:
    """It is taken off once; what begins otherwise is of another service, also a role that is named as one of ours."""
    async with desk(scope_prefix=prefix) as it:
        given = [f"{prefix}read", f"{prefix}submit:book:*", "admin", f"other/{prefix}cancel", f"{prefix}{prefix}cancel"]
        for scope in (given, " ".join(given)):
            principal = await it.verifier.verify(it.provider.token(scope=scope))
            assert principal.scopes.texts == ("read", "submit:book:*")
        assert (await it.verifier.verify(it.provider.token(scope=f"{prefix} {prefix[:-1]}read"))).scopes.texts == ()


async def test_a_token_without_scopes_may_do_nothing() -> None:
    """It is a principal all the same, so that the answer is 403 and not 401."""
    async with desk() as it:
        assert (await it.verifier.verify(it.provider.token(scope=None))).scopes.texts == ()


def public_pem(key: SigningKey) -> bytes:
    """The public key as a file has it."""
    return key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def forged(provider: IdentityProvider, header: dict[str, Any], code: Callable[[bytes], bytes]) -> str:
    """A token of right claims with a signature of one's own."""
    signed = f"{base64_text(msgspec.json.encode(header))}.{base64_text(msgspec.json.encode(provider.claims()))}"
    return f"{signed}.{base64_text(code(signed.encode()))}"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "hs256", "HS512", None, 7, ["ES256"]])
async def test_an_algorithm_that_proves_nothing_is_refused(algorithm: Any) -> None:
    """`none`, and HMAC with what everyone knows: the public key, in each form in which it is public."""
    key = SigningKey(algorithm="RS256")
    async with desk(key) as it:
        member = key.member()
        secrets = [public_pem(key), public_pem(key).strip(), it.provider.key_set(), member["n"].encode(), b""]
        for secret in secrets:
            for kid in ("k1", None):
                code = hashlib.sha512 if algorithm == "HS512" else hashlib.sha256
                token = forged(
                    it.provider,
                    {"alg": algorithm, "kid": kid, "typ": "JWT"},
                    lambda signed, secret=secret, code=code: hmac.digest(secret, signed, code),
                )
                assert "algorithm" in await it.refused(token)
                assert await it.refused(token.rpartition(".")[0] + ".")
        assert it.fetches == 1


async def test_only_the_algorithms_of_the_settings_are_taken() -> None:
    """An issuer that signs with more than the operator wants, and a key that names its own algorithm."""
    one, other = SigningKey("one", "RS256"), SigningKey("other", "ES256")
    async with desk(one, other, algorithms=("ES256",)) as it:
        assert (await it.verifier.verify(other.sign(it.provider.claims()))).subject == "billing"
        assert "algorithm" in await it.refused(one.sign(it.provider.claims()))
    async with desk(one, algorithms=("RS256", "PS256")) as it:
        it.provider.replies[KEYS] = (200, msgspec.json.encode({"keys": [one.member(alg="RS256")]}))
        it.time += FLOOR
        await it.keys.start()
        await it.verifier.verify(one.sign(it.provider.claims()))
        twisted = jwt.encode(it.provider.claims(), one.private, "PS256", headers={"kid": "one"})
        assert "no key" in await it.refused(twisted)


async def test_a_key_of_another_kind_verifies_nothing() -> None:
    """The `kid` of an RSA key with a signature of a curve, whose key is one's own."""
    async with desk(SigningKey("k1", "RS256")) as it:
        own = SigningKey("k1", "ES256")
        assert "no key" in await it.refused(own.sign(it.provider.claims()))
        same = SigningKey("k1", "RS256")
        same.private = rsa_key(2048, 1)
        assert "signature" in await it.refused(same.sign(it.provider.claims()))


async def test_what_the_header_brings_along_is_not_trusted() -> None:
    """A key in the token itself, or the address of one's own key set."""
    async with desk() as it:
        own = SigningKey("k1")
        headers = {"jwk": own.member(), "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/cert"}
        assert "signature" in await it.refused(own.sign(it.provider.claims(), **headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": 1},
        {"crit": ["exp"]},
        {"crit": []},
        {"kid": "x" * 257},
        {"kid": "../../keys"},
    ],
    ids=str,
)
async def test_a_header_for_something_else_is_refused(headers: dict[str, Any]) -> None:
    """A token that the issuer has signed to log a user out is no access token."""
    async with desk() as it:
        header = msgspec.json.encode({"alg": "ES256", "kid": "k1", **headers})
        await it.refused(it.provider.keys[0].sign_text(msgspec.json.encode(it.provider.claims()), header))


async def test_access_tokens_by_their_type() -> None:
    """As RFC 9068 names them, in any case."""
    async with desk() as it:
        for kind in ("at+jwt", "application/at+jwt", "AT+JWT", "JWT"):
            await it.verifier.verify(it.provider.keys[0].sign(it.provider.claims(), typ=kind))


async def test_what_is_there_twice_is_refused() -> None:
    """Two readers of a token may take different ones of two claims, or of two members of its header."""
    async with desk() as it:
        key, claims = it.provider.keys[0], msgspec.json.encode(it.provider.claims())[:-1]
        await it.verifier.verify(key.sign_text(claims + b"}"))
        for more in (b',"sub":"other"}', b',"sub":"billing"}', b',"x":{"a":1,"a":2}}', b',"exp":99999999999}'):
            assert "no JSON Web Token" in await it.refused(key.sign_text(claims + more))
        for header in (b'{"alg":"none","alg":"ES256","kid":"k1"}', b'{"alg":"ES256","kid":"x","kid":"k1"}'):
            assert "no JSON Web Token" in await it.refused(key.sign_text(claims + b"}", header))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "ops_key_secret",
        "x" * (MAX_TOKEN + 1),
        "e30.e30.e30",
        "e30.W10.e30",
        "ey==.e30.e30",
        "e30.e30.e30\n",
        "é.é.é",
        base64_text(b'{"alg":"ES256","kid":"k1"}') + "." + base64_text(b"[" * 3000) + ".AA",
        base64_text(b'{"alg":"ES256","kid":"k1"}') + "." + base64_text(b'{"exp":NaN}') + ".AA",
        base64_text(b'{"alg":"ES256","kid":"k1"}') + "." + base64_text(b"\xff") + ".AA",
    ],
    ids=lambda token: token[:20],
)
async def test_what_is_no_token_is_refused(token: str) -> None:
    """And costs no fetch."""
    async with desk() as it:
        await it.refused(token)
        assert it.fetches == 1


async def test_a_changed_token_is_refused() -> None:
    """Each part of it, and a signature with more bytes at its end."""
    async with desk() as it:
        header, payload, signature = it.provider.token().split(".")
        other = base64_text(msgspec.json.encode(it.provider.claims(sub="root")))
        assert "signature" in await it.refused(f"{header}.{other}.{signature}")
        assert "signature" in await it.refused(f"{header}.{payload}.{signature}AAAA")
        assert "signature" in await it.refused(
            f"{header}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
        )
