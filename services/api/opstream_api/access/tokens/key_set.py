"""The public keys of an issuer: a JSON Web Key Set (RFC 7517), and which of them may verify a token.

A set comes from elsewhere, so a key in it that can't be used is left out: another one may be what a token needs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from .errors import KeySetRefused, NoUsableKeys
from .jwt_settings import CURVES, EDWARDS, EDWARDS_CURVES, RSA, RSA_ALGORITHMS
from .strict_json import NotStrict, decode_object

MAX_KEYS: Final = 64
"""Keys of a set that are read. Providers have two or three."""
MIN_RSA_BITS: Final = 2048
"""RFC 7518, 3.3."""
MAX_RSA_BITS: Final = 8192
"""A larger key takes milliseconds for each token, and the size is the provider's choice."""
MAX_TRIED: Final = 4
"""Keys that are tried for a token that names none."""

_NO_SET: Final = (
    "in the place of the issuer's keys (--jwt-issuer, --jwt-jwks-url or --jwt-jwks-file) is no JSON Web Key Set"
)
_CLASSES: Final[dict[str, Any]] = {RSA: RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


class VerificationKey(msgspec.Struct, frozen=True, kw_only=True):
    """One public key."""

    key_id: str
    """Empty if the set names it not."""
    algorithms: frozenset[str]
    """Those of the algorithms that are taken with which it may verify: of its type, and its own if it names one."""
    public_key: Any
    """An object of cryptography."""


class KeySet:
    """The keys of an issuer.

    Args:
        keys: all that may verify a token.
    """

    def __init__(self, keys: Sequence[VerificationKey] = ()) -> None:
        self._keys = tuple(keys)

    def candidates(self, key_id: str | None, algorithm: str) -> Sequence[VerificationKey]:
        """Return the keys that may have signed a token; none if there is no such key, or too many.

        Args:
            key_id: the token's `kid`; None without one, as some providers with a single key do it.
            algorithm: the token's `alg`, one of those that are taken.
        """
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if key_id is None:
            return fitting if len(fitting) <= MAX_TRIED else ()
        return [key for key in fitting if key.key_id == key_id][:MAX_TRIED]


def parse_key_set(data: bytes, algorithms: Collection[str]) -> KeySet:
    """Read a JSON Web Key Set.

    Args:
        data: the set.
        algorithms: those that are taken; keys for others are left out.

    Raises:
        KeySetRefused: it is no set.
        NoUsableKeys: none of its keys can be used, or it has none.
    """
    try:
        members = decode_object(data).get("keys")
    except NotStrict as error:
        raise KeySetRefused(f"{_NO_SET}: {error}") from error
    if not isinstance(members, list):
        raise KeySetRefused(f"{_NO_SET}: it has no array 'keys'")
    found = [_parse_key(member, algorithms) for member in members[:MAX_KEYS]]
    keys = [key for key in found if key is not None]
    if not keys:
        raise NoUsableKeys(
            f"none of the issuer's {len(members)} keys can verify tokens of {', '.join(algorithms)}: is it the right "
            "issuer, and does it sign with one of these (--jwt-algorithms)?"
        )
    return KeySet(keys)


def _parse_key(member: Any, algorithms: Collection[str]) -> VerificationKey | None:  # noqa: ANN401 - JSON
    """Return a key of a set; None if it can't verify a token here."""
    if not isinstance(member, dict) or not _is_for_signatures(member):
        return None
    own = member.get("alg")
    usable = frozenset(name for name in _algorithms_of(member) if name in algorithms and (own is None or name == own))
    key_id = member.get("kid", "")
    if not usable or not isinstance(key_id, str):
        return None
    try:
        public_key = _CLASSES[member["kty"]].from_jwk(member)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm):
        return None
    if isinstance(public_key, RSAPublicKey) and not MIN_RSA_BITS <= public_key.key_size <= MAX_RSA_BITS:
        return None
    return VerificationKey(key_id=key_id, algorithms=usable, public_key=public_key)


def _is_for_signatures(member: dict[str, Any]) -> bool:
    """Return True for a public key that is not meant for something else. A published private key proves nothing."""
    operations = member.get("key_ops", ["verify"])
    return (
        member.get("use", "sig") == "sig"
        and "d" not in member
        and (isinstance(operations, list) and "verify" in operations)
    )


def _algorithms_of(member: dict[str, Any]) -> Collection[str]:
    """Return the algorithms of a key's type. None for a shared secret (`oct`), whatever the set says."""
    kind, curve = member.get("kty"), member.get("crv")
    if kind == RSA:
        return RSA_ALGORITHMS
    if kind == "EC" and isinstance(curve, str) and curve in CURVES:
        return (CURVES[curve],)
    return (EDWARDS,) if kind == "OKP" and isinstance(curve, str) and curve in EDWARDS_CURVES else ()
