"""The file of checkpoints: one signed line each. A second file has the operations that were open at the last one.

A line is `{"checkpoint":{…},"keyId":"…","signature":"…"}`. The signature (Ed25519, base64) is over `SIGNATURE_PREFIX`
and the bytes of the member `checkpoint` as they are in the line, so that it can be verified without opstream.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from opstream.terminal.console import CommandError, printable
from opstream_schemas.integrity.chain_state import ChainHead
from opstream_schemas.integrity.checkpoint import Checkpoint, checkpoint_problem

from .signing_keys import key_id

SIGNATURE_PREFIX: Final = b"opstream checkpoint v1\n"
_EXIT_BAD_FILE: Final = 2


class _SignedLine(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A line of the file."""

    checkpoint: msgspec.Raw
    key_id: str
    signature: str


class SignedCheckpoints(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoints of a file, with verified signatures."""

    checkpoints: tuple[Checkpoint, ...]
    last_line_hash: str
    """SHA-256 (hex) of the last line; empty if there is none."""


_line_decoder: Final = msgspec.json.Decoder(_SignedLine)
_checkpoint_decoder: Final = msgspec.json.Decoder(Checkpoint)
_heads_decoder: Final = msgspec.json.Decoder(dict[str, ChainHead])


def read_checkpoints(path: Path, keys: Sequence[Ed25519PublicKey]) -> SignedCheckpoints:
    """Read the checkpoints, and verify their signatures and order. A missing file has none.

    Args:
        path: the file.
        keys: the keys that are trusted.

    Raises:
        CommandError: with status 2, the file can't be read or a key is not trusted; with status 1, it was changed.
    """
    if path.exists() and not path.is_file():
        raise CommandError(f"{path} is not a regular file: name another file", status=_EXIT_BAD_FILE)
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", status=_EXIT_BAD_FILE) from error
    trusted = {key_id(key): key for key in keys}
    checkpoints: list[Checkpoint] = []
    line_hash = ""
    for number, line in enumerate(lines, start=1):
        checkpoint = _verify_line(f"{path}, line {number}", line, trusted)
        if problem := checkpoint_problem(checkpoints[-1] if checkpoints else None, checkpoint, line_hash):
            raise CommandError(f"{path}, line {number}: {problem}: the file was changed, use a copy that was not")
        checkpoints.append(checkpoint)
        line_hash = hashlib.sha256(line).hexdigest()
    return SignedCheckpoints(checkpoints=tuple(checkpoints), last_line_hash=line_hash)


def check_writable(path: Path) -> None:
    """Check that a checkpoint can be written, before a stream is read for hours.

    Raises:
        CommandError: with status 2, the folder can't be written to.
    """
    if not os.access(path.parent, os.W_OK):
        why = "nothing can be written there" if path.parent.is_dir() else "there is no such folder"
        raise CommandError(f"no checkpoint can be added in {path.parent}: {why}", status=_EXIT_BAD_FILE)


def append_checkpoint(path: Path, checkpoint: Checkpoint, heads: bytes, key: Ed25519PrivateKey) -> str:
    """Sign a checkpoint, write it and the open operations, and return the SHA-256 (hex) of the new line.

    Raises:
        CommandError: it can't be written, or the file has got another checkpoint since it was read.
    """
    payload = msgspec.json.encode(checkpoint)
    signature = base64.b64encode(key.sign(SIGNATURE_PREFIX + payload)).decode()
    line = msgspec.json.encode(_SignedLine(msgspec.Raw(payload), key_id(key.public_key()), signature))
    try:
        with _locked(path.parent):
            lines = path.read_bytes().splitlines() if path.exists() else []
            if (hashlib.sha256(lines[-1]).hexdigest() if lines else "") != checkpoint.previous:
                raise CommandError(
                    f"{path} was written to meanwhile, so nothing was added: run it again", status=_EXIT_BAD_FILE
                )
            _replace_files(
                path.parent, {heads_path(path): heads, path: b"".join(one + b"\n" for one in (*lines, line))}
            )
    except OSError as error:
        raise CommandError(
            f"{error.filename or path} can't be written: {error.strerror}", status=_EXIT_BAD_FILE
        ) from error
    return hashlib.sha256(line).hexdigest()


def encode_heads(heads: Mapping[str, ChainHead]) -> bytes:
    """The content of the file of open operations. The same operations give the same bytes."""
    return msgspec.json.encode({operation_id: heads[operation_id] for operation_id in sorted(heads)}) + b"\n"


def read_heads(path: Path, checkpoint: Checkpoint) -> dict[str, ChainHead]:
    """The operations that were open at the last checkpoint.

    Raises:
        CommandError: they can't be read, or are not those that were signed.
    """
    file = heads_path(path)
    hint = "leave --from-checkpoint out, which needs them, and sign again"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CommandError(f"{file} can't be read ({error.strerror}): {hint}", status=_EXIT_BAD_FILE) from error
    if hashlib.sha256(content).hexdigest() != checkpoint.heads:
        raise CommandError(f"{file} does not belong to the last checkpoint, or was changed: {hint}")
    try:
        return _heads_decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise CommandError(f"{file} is of another version of opstream: {hint}", status=_EXIT_BAD_FILE) from error


def heads_path(path: Path) -> Path:
    """The file of open operations that belongs to a file of checkpoints."""
    return path.with_name(f"{path.name}.heads")


def _verify_line(where: str, line: bytes, trusted: Mapping[str, Ed25519PublicKey]) -> Checkpoint:
    try:
        signed = _line_decoder.decode(line)
        signature = base64.b64decode(signed.signature, validate=True)
    except (msgspec.MsgspecError, binascii.Error, UnicodeError) as error:
        raise CommandError(f"{where}: this is not a checkpoint ({error})", status=_EXIT_BAD_FILE) from error
    key = trusted.get(signed.key_id)
    if key is None:
        known, needed = ", ".join(trusted) or "none", printable(signed.key_id[:64])
        text = f"{where}: signed with the key {needed}, but the keys given are {known}: name its public key, too,"
        raise CommandError(f"{text} with --key", status=_EXIT_BAD_FILE)
    try:
        key.verify(signature, SIGNATURE_PREFIX + bytes(signed.checkpoint))
    except InvalidSignature as error:
        raise CommandError(f"{where}: the signature is wrong, so the checkpoint was changed: use a copy") from error
    try:
        return _checkpoint_decoder.decode(signed.checkpoint)
    except msgspec.MsgspecError as error:
        raise CommandError(f"{where}: the checkpoint is of another version of opstream ({error})", status=2) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, so that two processes don't add a checkpoint after the same one at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace_files(folder: Path, contents: Mapping[Path, bytes]) -> None:
    """Replace files atomically: each is either old or new at any time, and all stay old if one can't be written."""
    new_paths = {path: path.with_name(f"{path.name}.new") for path in contents}
    try:
        for path, content in contents.items():
            with new_paths[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, new_path in new_paths.items():
            new_path.replace(path)
    except OSError:
        for new_path in new_paths.values():
            with suppress(OSError):
                new_path.unlink()
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
