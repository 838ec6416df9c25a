"""Which bearer tokens a service takes: their issuer, audience and algorithms, and what their claims mean. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.urls import Url, parse_url

RSA: Final = "RSA"
CURVES: Final = MappingProxyType({"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"})
"""The algorithm of each curve (RFC 7518, 3.4)."""
EDWARDS_CURVES: Final = frozenset({"Ed25519", "Ed448"})
EDWARDS: Final = "EdDSA"
RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS: Final = (*RSA_ALGORITHMS, *CURVES.values(), EDWARDS)
"""All are asymmetric: with a shared secret, each service that can check a token could also make one."""
DEFAULT_ALGORITHMS: Final = ("RS256", "ES256", EDWARDS)

LEEWAY: Final = 30.0
"""Seconds by which the provider's clock may differ."""
REFETCH_FLOOR: Final = 30.0
"""Seconds between two fetches of the keys, whatever tokens come."""

_CLAIM_LIMIT: Final = 256
_SCOPE_PREFIX: Final = re.compile(r"[!#-\[\]-~]{1,256}")
"""The characters of a scope (RFC 6749, 3.3)."""


class JwtSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which bearer tokens a service takes."""

    issuer: str
    """Exactly as tokens have it in `iss`."""
    audiences: tuple[str, ...]
    """A token is for this service if its `aud` has one of them."""
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    """Of `ALGORITHMS`. A token that names another one is refused before anything is fetched for it."""
    jwks_url: str = ""
    """Where the issuer's keys are; empty to find that in the issuer's discovery document."""
    jwks_file: str = ""
    """A file with the issuer's keys, for a network without a way to the provider; empty for none."""
    tenant_claim: str = ""
    """Claim with the tenant, which each token must then have; empty: all tokens are of the operator's own tenant."""
    subject_claim: str = "sub"
    scope_claim: str = "scope"
    scope_prefix: str = ""
    """With what opstream's scopes begin in tokens, e.g. `api://opstream/`; those without it are of other services."""
    leeway: float = LEEWAY
    refetch_floor: float = REFETCH_FLOOR

    def __post_init__(self) -> None:
        """Refuse settings with which nothing would be checked.

        Raises:
            ValueError: the issuer, all audiences or all algorithms are missing, or an algorithm is not in `ALGORITHMS`.
        """
        if not (self.issuer and self.audiences and self.algorithms and set(self.algorithms) <= set(ALGORITHMS)):
            raise ValueError("bearer tokens need an issuer, an audience and asymmetric algorithms")


def parse_algorithm(text: str) -> str:
    """Return the name of a signature algorithm (RFC 7518, RFC 8037) as tokens have it.

    Raises:
        InvalidName: it is no asymmetric one. The message names those that are.
    """
    found = {name.lower(): name for name in ALGORITHMS}.get(text.lower())
    if found is None:
        why = "it proves nothing" if text.lower() == "none" else "it is not one of the asymmetric ones"
        raise InvalidName(f"{text!r} is no algorithm for bearer tokens, {why}: write of {', '.join(ALGORITHMS)}")
    return found


def parse_provider_url(text: str) -> str:
    """Return a URL of an identity provider: https, or http on a loopback address only.

    Raises:
        InvalidName: keys that come from there could be of the attacker who is on the way, or it is no URL.
    """
    provider_url(text)
    return text


def parse_issuer(text: str) -> str:
    """Return an issuer as it is: the URL of an identity provider, without a query (OpenID Connect Discovery 1.0).

    Raises:
        InvalidName: it is none.
    """
    if provider_url(text).query:
        raise InvalidName(f"{text!r} is no issuer: write it as tokens have it in 'iss', without a query ('?')")
    return text


def parse_claim(text: str) -> str:
    """Return the name of a claim, or the JSON Pointer (RFC 6901) of a nested one: `/realm_access/roles`.

    Raises:
        InvalidName: it is neither.
    """
    if not text or len(text) > _CLAIM_LIMIT or not text.isprintable() or text == "/":
        raise InvalidName(
            f"{text!r} is no claim: write its name, or the path of a nested one, e.g. /realm_access/roles"
        )
    return text


def parse_scope_prefix(text: str) -> str:
    """Return what scopes begin with: the characters that a scope may have (RFC 6749, 3.3).

    Raises:
        InvalidName: it has others, so no scope could begin with it.
    """
    if not _SCOPE_PREFIX.fullmatch(text):
        raise InvalidName(
            f"{text!r} is no beginning of a scope: write it as tokens have it, without spaces and quotes, e.g. "
            "api://opstream/ or opstream."
        )
    return text


def provider_url(text: str) -> Url:
    """Parse a URL of an identity provider.

    Raises:
        InvalidName: as `parse_provider_url`.
    """
    url = parse_url(text, is_http_allowed=True)
    if url.scheme != "https" and not _is_loopback(url.host):
        raise InvalidName(
            f"{url.redacted} has no TLS, so anyone on the way could send keys of their own: write https://, or give "
            "the keys as a file (--jwt-jwks-file)"
        )
    return url


def discovery_urls(issuer: str) -> Sequence[str]:
    """Return where an issuer describes itself: by OpenID Connect Discovery 1.0, and by RFC 8414."""
    url = provider_url(issuer)
    base = issuer.rstrip("/")
    path = url.path.rstrip("/")
    return (
        f"{base}/.well-known/openid-configuration",
        f"{url.scheme}://{url.netloc}/.well-known/oauth-authorization-server{path}",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
