"""Ed25519 keys that sign checkpoints, as PEM files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from opstream.terminal.console import CommandError


def create_key_file(path: Path) -> None:
    """Write a new private key, readable by its owner only, and print the public one.

    Raises:
        CommandError: the file exists, or can't be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise CommandError(f"{path} exists, and a key is never overwritten: name another file", status=2) from error
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}", status=2) from error
    try:
        click.echo(public_pem(key.public_key()), nl=False)
    except OSError as error:
        path.unlink()  # without the public key, its signatures could not be verified
        raise CommandError(f"the public key can't be printed ({error.strerror}), so none was made", status=2) from error


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file that `create_key_file` wrote.

    Raises:
        CommandError: the file can't be read, or holds something else.
    """
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandError(
            f"{path} holds no private key that can be used: 'opstream keygen' makes one", status=2
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CommandError(f"{path} holds a private key, but not for Ed25519: 'opstream keygen' makes one", status=2)
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
        CommandError: the file can't be read, or holds something else.
    """
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandError(
            f"{path} holds no public key: give the PEM that 'opstream keygen' printed", status=2
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise CommandError(f"{path} holds a public key, but not for Ed25519", status=2)
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The id of a key in checkpoints: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def public_pem(key: Ed25519PublicKey) -> str:
    """A public key as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", status=2) from error
