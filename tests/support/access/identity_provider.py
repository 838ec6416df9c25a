"""An identity provider on a loopback address: it signs tokens, and serves its keys and its discovery document.

async with IdentityProvider() as provider:
    token = provider.token(sub="billing", scope="read")
"""

from __future__ import annotations

import asyncio
import ssl
import time
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, Self

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE: Final = "https://api.example"
KEYS: Final = "/keys"
DISCOVERY: Final = "/.well-known/openid-configuration"

_ALGORITHM_CLASSES: Final[dict[str, Any]] = {
    "RS": RSAAlgorithm,
    "PS": RSAAlgorithm,
    "ES": ECAlgorithm,
    "Ed": OKPAlgorithm,
}


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """A key that is made once for all tests of a process, since that takes long."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


class SigningKey:
    """A key of the provider.

    Args:
        key_id: its `kid`; None for none.
        algorithm: with which it signs.
    """

    def __init__(self, key_id: str | None = "k1", algorithm: str = "ES256") -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self.private: Any = {
            "RS": rsa_key,
            "PS": rsa_key,
            "ES": lambda: ec.generate_private_key(ec.SECP384R1() if algorithm == "ES384" else ec.SECP256R1()),
            "Ed": ed25519.Ed25519PrivateKey.generate,
        }[algorithm[:2]]()

    def member(self, **more: Any) -> dict[str, Any]:
        """The public key as a key set has it."""
        plain = _ALGORITHM_CLASSES[self.algorithm[:2]].to_jwk(self.private.public_key(), as_dict=True)
        named = {} if self.key_id is None else {"kid": self.key_id}
        return {"use": "sig", **{name: value for name, value in plain.items() if name != "key_ops"}, **named, **more}

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """A token with these claims; `headers` replace those that it would have."""
        named = {} if self.key_id is None else {"kid": self.key_id}
        header = {"alg": self.algorithm, "typ": "JWT", **named, **headers}
        return self.sign_text(msgspec.json.encode(claims), msgspec.json.encode(header))

    def sign_text(self, payload: bytes, header: bytes | None = None) -> str:
        """A token whose parts are written by hand."""
        written = header or msgspec.json.encode({"alg": self.algorithm, "kid": self.key_id, "typ": "JWT"})
        signed = f"{base64_text(written)}.{base64_text(payload)}"
        signature = jwt.get_algorithm_by_name(self.algorithm).sign(signed.encode(), self.private)
        return f"{signed}.{base64_text(signature)}"


def base64_text(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class IdentityProvider:
    """A provider.

    Args:
        keys: those that it publishes; the first signs. One, if none is given.
    """

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys) or [SigningKey()]
        self.requests: list[str] = []
        """The paths that were asked for."""
        self.replies: dict[str, tuple[int, bytes]] = {}
        """What it answers on a path instead of what belongs there."""
        self.hold: asyncio.Event | None = None
        """While it is set to an event, answers wait for that."""
        self.tls: ssl.SSLContext | None = None
        """With which it serves; None for plain HTTP."""
        self.issuer = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Begin to serve."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop to serve."""
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Serve, on a port of before perhaps."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self.tls)
        scheme = "https" if self.tls else "http"
        self.issuer = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def port(self) -> int:
        """Its TCP port, also while it is stopped."""
        return int(self.issuer.rpartition(":")[2])

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a token that is valid for ten minutes; None leaves one out."""
        now = int(time.time())
        plain = {"iss": self.issuer, "aud": AUDIENCE, "sub": "billing", "iat": now, "exp": now + 600, "scope": "read"}
        return {name: value for name, value in {**plain, **changed}.items() if value is not None}

    def token(self, **changed: Any) -> str:
        """A token of the first key; for `changed` see `claims`."""
        return self.keys[0].sign(self.claims(**changed))

    def key_set(self) -> bytes:
        """The document with its keys."""
        return msgspec.json.encode({"keys": [key.member() for key in self.keys]})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            self.requests.append(path)
            if self.hold is not None:
                await self.hold.wait()
            status, body = self.replies.get(path) or self._reply(path)
            writer.write(b"HTTP/1.1 %d Reply\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    def _reply(self, path: str) -> tuple[int, bytes]:
        if path == KEYS:
            return 200, self.key_set()
        if path == DISCOVERY:
            return 200, msgspec.json.encode({"issuer": self.issuer, "jwks_uri": self.issuer + KEYS})
        return 404, b"{}"


def make_certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 that is its own authority, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "provider.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    return path
