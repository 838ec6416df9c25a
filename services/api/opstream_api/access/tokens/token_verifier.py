"""Verifies bearer tokens: JSON Web Tokens (RFC 7519) that one issuer has signed for this service (RFC 9068, RFC 8725).

PyJWT checks signature, issuer, audience and times. Which key, which algorithm and which claims may be is decided here.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import jwt

from opstream_api.access.principal import Principal
from opstream_schemas.logs.access_log import DenialReason

from .errors import TokenRefused
from .jwt_settings import JwtSettings
from .key_cache import MAX_AGE, KeyCache
from .strict_json import NotStrict, decode_object
from .token_claims import principal_of

MAX_TOKEN: Final = 8 * 1024
"""Characters of a bearer token. Those with many groups have four thousand."""
MAX_CACHED: Final = 2048
"""Verified tokens that are kept, each some 2 KiB at most."""

_MAX_KEY_ID: Final = 256
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""Values of `typ` (RFC 9068, 2.1). A token with another one is for something else, e.g. a logout (RFC 8725, 3.11)."""
_REQUIRED: Final = ["exp", "iss", "aud"]


class _Verified(NamedTuple):
    principal: Principal
    until: float
    """Unix seconds."""


class TokenVerifier:
    """Turns bearer tokens into principals, and remembers those that it has verified.

    Args:
        settings: what a token must be.
        keys: of the issuer.
        now: Unix seconds.
    """

    def __init__(self, settings: JwtSettings, keys: KeyCache, *, now: Callable[[], float]) -> None:
        self._settings = settings
        self._keys = keys
        self._now = now
        self._algorithms = frozenset(settings.algorithms)
        self._verified: dict[bytes, _Verified] = {}
        """By the SHA-256 of the token: the memory of a process should not hold tokens."""
        self._generation = keys.generation

    def known(self, token: str) -> Principal | None:
        """Return the principal of a token that was verified a while ago and still holds; None for any other."""
        if self._generation != self._keys.generation:
            self._verified.clear()  # the key of any of them may have been withdrawn
            self._generation = self._keys.generation
            return None
        found = self._verified.get(_digest(token))
        return found.principal if found is not None and self._now() < found.until else None

    async def verify(self, token: str) -> Principal:
        """Verify a token and return its principal.

        Raises:
            TokenRefused: it is none of the issuer's, or not for this service, or not now.
            ProviderAway: the keys of the issuer were never there, so no token can be verified.
        """
        known = self.known(token)
        if known is not None:
            return known
        header, payload = _split(token)
        algorithm, key_id = self._check_header(header)
        generation = self._keys.generation
        candidates = await self._keys.find(key_id, algorithm)
        if not candidates:
            raise TokenRefused("no key of the issuer fits it", DenialReason.UNKNOWN_SIGNING_KEY)
        claims: dict[str, Any] = {}
        for key in candidates:
            try:
                claims = self._claims(token, key.public_key, algorithm)
                break
            except jwt.InvalidSignatureError as error:
                if key is candidates[-1]:
                    text = "its signature is not the issuer's"
                    raise TokenRefused(text, DenialReason.WRONG_SIGNATURE) from error
        if claims != payload:
            raise TokenRefused("it is read in two ways")
        expires_at = float(claims["exp"]) + self._settings.leeway
        principal = principal_of(claims, self._settings, expires_at)
        self._remember(token, principal, expires_at, generation)
        return principal

    def _check_header(self, header: dict[str, Any]) -> tuple[str, str | None]:
        """Return algorithm and key id of a token."""
        algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenRefused("its algorithm is not one that this service takes")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise TokenRefused("it is no access token (typ)")
        if "crit" in header or header.get("b64", True) is not True:
            raise TokenRefused("it needs an extension that this service does not have (crit)")
        if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= _MAX_KEY_ID):
            raise TokenRefused("the id of its key is none (kid)")
        return algorithm, key_id

    def _claims(self, token: str, public_key: Any, algorithm: str) -> dict[str, Any]:  # noqa: ANN401 - cryptography's
        """Check signature, issuer, audience and times; return the claims."""
        settings = self._settings
        try:
            found: dict[str, Any] = jwt.decode(
                token,
                public_key,
                algorithms=[algorithm],
                issuer=settings.issuer,
                audience=settings.audiences,
                leeway=settings.leeway,
                options={"require": _REQUIRED},
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.PyJWTError as error:
            raise TokenRefused(*_REASONS.get(type(error), _NO_TOKEN)) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenRefused("it is no token: a claim has another type than it must have") from error
        if not all(_is_time(found[name]) for name in ("exp", "nbf", "iat") if name in found):
            raise TokenRefused("it is no token: a time is none")
        return found

    def _remember(self, token: str, principal: Principal, expires_at: float, generation: int) -> None:
        if generation != self._keys.generation:
            return  # the keys have changed meanwhile
        while len(self._verified) >= MAX_CACHED:
            del self._verified[next(iter(self._verified))]
        until = self._now() + min(MAX_AGE, self._keys.trusted_seconds)
        self._verified[_digest(token)] = _Verified(principal, min(expires_at, until))


_REASONS: Final[dict[type[Exception], tuple[str, DenialReason]]] = {
    jwt.ExpiredSignatureError: ("it has expired", DenialReason.EXPIRED_TOKEN),
    jwt.ImmatureSignatureError: ("it is not valid yet", DenialReason.EARLY_TOKEN),
    jwt.InvalidIssuerError: ("it is of another issuer", DenialReason.WRONG_ISSUER),
    jwt.InvalidAudienceError: ("it is for another audience", DenialReason.WRONG_AUDIENCE),
    jwt.MissingRequiredClaimError: ("it lacks one of the claims exp, iss and aud", DenialReason.INVALID_TOKEN),
}
_NO_TOKEN: Final = ("it is no token of this issuer for this service", DenialReason.INVALID_TOKEN)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST


_LATEST: Final = 253_402_214_400
"""Unix seconds of the last day of 9999, after which no `datetime` is."""


def _split(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token, of which nothing is verified."""
    found = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if found is None:
        raise TokenRefused("it is no JSON Web Token")
    try:
        return _decode_part(found[1]), _decode_part(found[2])
    except (NotStrict, ValueError) as error:
        raise TokenRefused("it is no JSON Web Token") from error


def _decode_part(part: str) -> dict[str, Any]:
    return decode_object(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
