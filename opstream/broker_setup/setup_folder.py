"""Writes the folder that `opstream broker-config` makes: configurations, a key for each login, test certificates."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from opstream_journal.broker_login import public_key, read_seed, seed_of
from opstream_schemas.broker_access.permissions import ActionAccess, Role

from .certificates import PrivateAuthority
from .server_config import Party, ServerAddress, accounts_config, server_config

ACCOUNTS_FILE: Final = "accounts.conf"
KEYS_FOLDER: Final = "keys"
TLS_FOLDER: Final = "tls"
_NAME: Final = "{name}"
"""In the path of a certificate: the name of the server."""


class SetupRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    folder: Path
    servers: tuple[ServerAddress, ...]
    actions: tuple[ActionAccess, ...]
    """All that runners of this installation run."""
    durables: tuple[str, ...] = ()
    """Of subscribers."""
    store: str
    """The folder of JetStream on each server; `{name}` stands for the server's name."""
    tls: dict[str, str] | None = None
    """The files `cert_file`, `key_file` and `ca_file` on each server, with `{name}`; None for no TLS."""
    has_test_certificates: bool = False
    """Make an authority and certificates in the folder instead."""
    keys: Path | None = None
    """A folder with keys that are used again; missing ones are made."""


def write_setup(request: SetupRequest) -> list[Path]:
    """Write the folder. Return the files in the order in which they were written.

    Raises:
        FileExistsError: one of the files exists; it is left as it is.
        OSError: a file can't be written.
        InvalidCredentials: a key in `keys` is none.
    """
    return list(_write(request))


def login_names(durables: Sequence[str]) -> dict[str, tuple[Role, str]]:
    """Return the logins of an installation by the names of their key files, each with its role and durable."""
    names = {role.value: (role, "") for role in Role if role is not Role.SUBSCRIBER}
    return names | {f"{Role.SUBSCRIBER.value}-{durable}": (Role.SUBSCRIBER, durable) for durable in durables}


def make_parties(folder: Path, actions: tuple[ActionAccess, ...], durables: Sequence[str]) -> list[Party]:
    """Return the logins, with the keys in a folder. One that is missing there is made, and readable by its owner only.

    Raises:
        OSError: a file can't be read or written.
        InvalidCredentials: a file holds no key.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    parties = []
    for name, (role, durable) in login_names(durables).items():
        path = folder / f"{name}.nk"
        if not path.exists():
            write_new(path, _new_key(name), is_secret=True)
        of_role = actions if role in {Role.RUNNER, Role.API} else ()
        parties.append(Party(role=role, key=public_key(read_seed(path)), actions=of_role, durable=durable))
    return parties


def write_new(path: Path, content: bytes, *, is_secret: bool) -> None:
    """Write a file that does not exist yet; a secret one is readable by its owner only.

    Raises:
        FileExistsError: it exists.
        OSError: it can't be written.
    """
    mode = 0o600 if is_secret else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(content)


def _write(request: SetupRequest) -> Iterator[Path]:
    folder = request.folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = folder / KEYS_FOLDER
    keys.mkdir(mode=0o700)
    for name in login_names(request.durables):
        used = request.keys / f"{name}.nk" if request.keys is not None else None
        if used is not None and used.exists():
            read_seed(used)
            content = used.read_bytes()
        else:
            content = _new_key(name)
        write_new(keys / f"{name}.nk", content, is_secret=True)
        yield keys / f"{name}.nk"
    tls = request.tls or {}
    if request.has_test_certificates:
        tls = {
            "cert_file": str(folder / TLS_FOLDER / f"{_NAME}.pem"),
            "key_file": str(folder / TLS_FOLDER / f"{_NAME}.key"),
            "ca_file": str(folder / TLS_FOLDER / "ca.pem"),
        }
        yield from _write_certificates(folder / TLS_FOLDER, request.servers)
    parties = make_parties(keys, request.actions, request.durables)
    write_new(folder / ACCOUNTS_FILE, accounts_config(parties).encode(), is_secret=True)
    yield folder / ACCOUNTS_FILE
    password = secrets.token_urlsafe(24)
    for server in request.servers:
        text = server_config(
            server,
            request.servers,
            store=request.store.replace(_NAME, server.name),
            tls={key: path.replace(_NAME, server.name) for key, path in tls.items()},
            cluster_password=password,
        )
        path = folder / f"{server.name}.conf"
        write_new(path, text.encode(), is_secret=True)
        yield path


def _write_certificates(folder: Path, servers: Sequence[ServerAddress]) -> Iterator[Path]:
    folder.mkdir(mode=0o700)
    authority = PrivateAuthority()
    write_new(folder / "ca.pem", authority.certificate, is_secret=False)
    yield folder / "ca.pem"
    for server in servers:
        pair = authority.issue(server.name, [server.host, "127.0.0.1", "localhost"])
        for suffix, content in (("pem", pair.certificate), ("key", pair.key)):
            path = folder / f"{server.name}.{suffix}"
            write_new(path, content, is_secret=suffix == "key")
            yield path


def _new_key(name: str) -> bytes:
    # Here, since no other part of the process needs it: it takes a MiB.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    comment = f"# The key of the role {name!r} at the broker ({public_key(key)}), for --nats-nkey. Keep it secret.\n"
    return f"{comment}{seed_of(key)}\n".encode()
