"""A broker whose users log in with a JWT and a key, and the credentials file of one: what `nsc` would make.

Broker(extra=login.server_lines)
path.write_text(login.credentials)
"""

from __future__ import annotations

import base64
import binascii
import itertools
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_OPERATOR: Final = 14 << 3
_ACCOUNT: Final = 0
_USER: Final = 20 << 3
_SEED: Final = 18 << 3
_UNLIMITED: Final = dict.fromkeys(
    ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams"), -1
) | {"consumer": -1, "wildcards": True}
_numbers: Final = itertools.count()


class _Identity:
    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._key = Ed25519PrivateKey.generate()
        self.name = _text(bytes([kind]) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        return _text(bytes([_SEED | self._kind >> 5, (self._kind & 31) << 3]) + self._key.private_bytes_raw())

    def sign(self, subject: str, claims: dict[str, Any]) -> str:
        """A JWT about `subject`."""
        body = {"jti": str(next(_numbers)), "iat": 1, "iss": self.name, "name": "test", "sub": subject}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body | {"nats": claims | {"version": 2}}]
        signed = b".".join(_url_text(msgspec.json.encode(part)) for part in parts)
        return b".".join((signed, _url_text(self._key.sign(signed)))).decode()


class JwtLogin:
    """An operator with two accounts, and a user of one."""

    def __init__(self) -> None:
        operator, account, system, user = map(_Identity, (_OPERATOR, _ACCOUNT, _ACCOUNT, _USER))
        limits = {"type": "account", "limits": _UNLIMITED}
        idle = {"type": "account", "limits": _UNLIMITED | dict.fromkeys(("mem_storage", "disk_storage"), 0)}
        self.server_lines = (
            f"operator: {operator.sign(operator.name, {'type': 'operator'})}\n"
            f"system_account: {system.name}\nresolver: MEMORY\nresolver_preload {{\n"
            f"  {account.name}: {operator.sign(account.name, limits)}\n"
            f"  {system.name}: {operator.sign(system.name, idle)}\n}}\n"
        )
        """For the configuration of the broker."""
        jwt = account.sign(user.name, {"type": "user", "subs": -1, "data": -1, "payload": -1})
        self.seed = user.seed
        self.credentials = (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
        """The text of the file."""


def _text(key: bytes) -> str:
    return base64.b32encode(key + binascii.crc_hqx(key, 0).to_bytes(2, "little")).decode().rstrip("=")


def _url_text(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
