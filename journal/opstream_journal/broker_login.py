"""Options of nats-py for a login, and the readers of credentials files and of files with a seed.

nats-py's own reader needs one more package to sign, never ends for a file without a JWT, and its errors end a reconnect
for good. `cryptography`, which opstream needs anyway, signs as well. NATS's ADR-14 and the README of nats-io/nkeys
describe the files and the seed: base32 of two bytes of prefix, 32 of the seed and two of a checksum.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import nats.errors

from opstream_schemas.urls import BrokerCredentials

from .errors import InvalidCredentials

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from nats.aio.client import Client

_SECTION_REGEX: Final = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END ")
_SEED_REGEX: Final = re.compile(r"^\s*(SU[A-Z2-7]{56})\s*$", re.MULTILINE)
_JWT: Final = "NATS USER JWT"
_SEED: Final = "USER NKEY SEED"
_SEED_BYTES: Final = slice(2, 34)
_SEED_SIZE: Final = 36
_SEED_PREFIX: Final = 18 << 3
_USER_PREFIX: Final = 20 << 3
_FILE_LIMIT: Final = 64 * 1024
"""Characters of a file that are read; a server takes no more for a whole CONNECT."""


class _UserKey(NamedTuple):
    jwt: str
    key: Ed25519PrivateKey


def login_options(credentials: BrokerCredentials, client: Client) -> dict[str, Any]:
    """Return the options for `client.connect`; none for a login by URL.

    Raises:
        InvalidCredentials: the file can't be read, or is not what it should be.
    """
    if credentials.file:
        path = Path(credentials.file)
        _read(path)

        def read_again() -> _UserKey:
            try:
                return _read(path)
            except InvalidCredentials as error:
                raise nats.errors.Error(str(error)) from None  # which nats-py logs, and then tries again

        return {
            "user_jwt_cb": lambda: read_again().jwt.encode(),  # noqa: PLW0108 - it reads at each call
            "signature_cb": lambda nonce: base64.b64encode(read_again().key.sign(nonce.encode())),
        }
    if credentials.nkey:
        seed_file = Path(credentials.nkey)
        read_seed(seed_file)

        def sign(nonce: str) -> bytes:
            try:
                key = read_seed(seed_file)
            except InvalidCredentials as error:
                raise nats.errors.Error(str(error)) from None
            client._public_nkey = public_key(key)  # noqa: SLF001 - nats-py sends it after it has called this
            return base64.b64encode(key.sign(nonce.encode()))

        return {"signature_cb": sign}
    if credentials.user:
        return {"user": credentials.user, "password": credentials.password}
    return {"token": credentials.token} if credentials.token else {}


def public_key(key: Ed25519PrivateKey) -> str:
    """Return the name of a user's key, as the broker's configuration has it (`U…`)."""
    return _encoded(bytes([_USER_PREFIX]) + key.public_key().public_bytes_raw())


def seed_of(key: Ed25519PrivateKey) -> str:
    """Return the seed of a user's key (`SU…`), which is the key itself: keep it secret."""
    prefix = bytes([_SEED_PREFIX | _USER_PREFIX >> 5, (_USER_PREFIX & 31) << 3])
    return _encoded(prefix + key.private_bytes_raw())


def read_seed(path: Path) -> Ed25519PrivateKey:
    """Return the key of a user, from a file with its seed.

    Raises:
        InvalidCredentials: the file can't be read, or has no seed.
    """
    found = _SEED_REGEX.search(_text(path))
    key = _key(found[1]) if found else None
    if key is None:
        raise InvalidCredentials(
            f"{path} is no file with the seed of a user: name one with a line that begins with SU, as 'opstream "
            "broker-config' or 'nk -gen user' writes it"
        )
    return key


def _read(path: Path) -> _UserKey:
    sections = dict(_SECTION_REGEX.findall(_text(path)))
    key = _key(sections.get(_SEED, ""))
    if key is None or _JWT not in sections:
        raise InvalidCredentials(
            f"{path} is not a credentials file of NATS: name one with a user's JWT and seed, as 'nsc generate creds' "
            "writes it"
        )
    return _UserKey(sections[_JWT], key)


def _text(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            return file.read(_FILE_LIMIT)
    except OSError as error:
        raise InvalidCredentials(
            f"the credentials file {path} can't be read ({error.strerror}): name one that this user may read"
        ) from None
    except UnicodeError:
        return ""


def _encoded(key: bytes) -> str:
    return base64.b32encode(key + binascii.crc_hqx(key, 0).to_bytes(2, "little")).decode().rstrip("=")


def _key(text: str) -> Ed25519PrivateKey | None:
    try:
        seed = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        return None
    if len(seed) != _SEED_SIZE or binascii.crc_hqx(seed[:-2], 0) != int.from_bytes(seed[-2:], "little"):
        return None
    # Here, since hardly any login needs it: it takes a MiB of each process.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed[_SEED_BYTES])
