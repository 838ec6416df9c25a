"""Files of operation keys and of erasures, one JSON object a line: what is kept outside of backups.

A line is a value of the bucket with its name: a wrapped key, or the record of an erasure. Of a file of keys that is
older than an erasure, the record in a newer file wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from opstream.terminal.console import CommandError
from opstream_journal.keys.operation_keys import NamedEntry, OperationKeys
from opstream_schemas.errors import InvalidName, SealBroken
from opstream_schemas.event_types.erasure import Erasure
from opstream_schemas.seals.wrapped_key import KeyEntry, decode_entry, encode_entry
from opstream_schemas.subjects import parse_operation_key


class KeyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line."""

    name: str
    kek: str = ""
    wrapped: bytes = b""
    erased: Erasure | None = None


class Applied(msgspec.Struct, frozen=True):
    """What was brought to a broker."""

    erased: int
    """Operations that are erased now."""
    keys: int
    """Keys that were not there."""


_decode: Final = msgspec.json.Decoder(KeyLine).decode


def encode_line(entry: NamedEntry) -> bytes | None:
    """Return a value of the bucket as a line; None for one that can't be read, which no file should carry on."""
    try:
        found = decode_entry(entry.name, entry.data)
    except SealBroken:
        return None
    line = KeyLine(name=entry.name, kek=found.kek, wrapped=found.wrapped, erased=found.erased)
    return msgspec.json.encode(line) + b"\n"


def is_erasure(line: bytes) -> bool:
    """Return True if a line is the record of an erasure."""
    return _decode(line).erased is not None


def read_lines(path: Path) -> Iterator[KeyLine]:
    """Read a file.

    Raises:
        CommandError: it can't be read, or a line is none of such a file.
    """
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield _checked(path, number, text)
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", status=2) from error


async def apply_erasures(keys: OperationKeys, lines: Iterable[KeyLine]) -> int:
    """Destroy the keys of all operations that these lines say are erased. Return how many those are.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    count = 0
    for line in lines:
        if line.erased is not None:
            await keys.put_erased(line.name, line.erased)
            count += 1
    return count


async def apply_lines(keys: OperationKeys, lines: Iterable[KeyLine]) -> Applied:
    """Bring keys and erasures to a broker: erasures first, so that no key of an erased operation comes back.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    lines = list(lines)
    erased = await apply_erasures(keys, lines)
    count = 0
    for line in lines:
        if line.erased is None:
            count += await keys.put_wrapped(line.name, encode_entry(KeyEntry(kek=line.kek, wrapped=line.wrapped)))
    return Applied(erased, count)


def _checked(path: Path, number: int, text: bytes) -> KeyLine:
    try:
        line = _decode(text)
        parse_operation_key(line.name)
    except (msgspec.MsgspecError, InvalidName, ValueError) as error:
        raise CommandError(
            f"{path}, line {number}: it is no line of 'opstream keys export' or 'opstream keys erased': {error}",
            status=2,
        ) from error
    if bool(line.wrapped) == (line.erased is not None):
        raise CommandError(f"{path}, line {number}: it is neither a key nor an erasure", status=2)
    return line
