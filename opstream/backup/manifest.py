"""The manifest of a backup: what is in it, and how each stream was configured. A file of JSON.

Format 1. Members may be added, and readers ignore those that they don't know; a member is never removed or changed, so
that each later version reads each older backup. What an older version could not restore gets a higher number.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from opstream.terminal.console import CommandError, printable

FORMAT: Final = 1
NAME: Final = "manifest.json"


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file of the backup."""

    name: str
    bytes: int
    sha256: str


class StreamRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One stream, as it was when its snapshot was begun."""

    name: str
    first: int
    """In an empty stream, the next sequence."""
    last: int
    messages: int
    bytes: int
    """As the broker counts them."""
    created: str
    """As the broker writes it; checkpoints name it, too."""
    snapshot: FileRecord
    """The broker's own format."""
    tail: FileRecord | None = None
    """Messages that are newer than the snapshot, one JSON object a line; None for a stream without a tail."""
    tail_messages: int = 0
    config: dict[str, Any]
    """In the broker's form."""
    state: dict[str, Any]
    """In the broker's form."""
    copied: int = 0
    """Of the archive: the journal's sequence up to which it has copied; 0 for any other stream."""
    consumers: tuple[dict[str, Any], ...] = ()
    """The configurations of the durable consumers that are in the snapshot, in the broker's form."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a backup holds."""

    format: int
    opstream_version: str
    server_version: str
    began_at: datetime
    """By the clock of the machine that made the backup, as `ended_at`."""
    ended_at: datetime
    streams: tuple[StreamRecord, ...]
    """In the order in which they were copied."""
    checkpoint: tuple[FileRecord, ...] = ()
    """The signed checkpoints of the journal, and the operations that were open at the last one; empty without a key."""

    def files(self) -> list[FileRecord]:
        """Return all files but the manifest."""
        found = list(self.checkpoint)
        for stream in self.streams:
            found += [stream.snapshot] if stream.tail is None else [stream.snapshot, stream.tail]
        return found

    def stream(self, name: str) -> StreamRecord:
        """Return a stream of the backup.

        Raises:
            KeyError: it has none of that name.
        """
        for one in self.streams:
            if one.name == name:
                return one
        raise KeyError(name)


class _Format(msgspec.Struct):
    format: int
    opstream_version: str = msgspec.field(name="opstreamVersion", default="")


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the content of the file, for people and programs."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(content: bytes, where: str) -> Manifest:
    """Read the content of the file.

    Raises:
        CommandError: it is no manifest, or that of a later format.
    """
    try:
        begin = msgspec.json.decode(content, type=_Format)
        if begin.format > FORMAT:
            raise CommandError(
                f"{where} has format {begin.format}, written by opstream {printable(begin.opstream_version)}; this "
                f"version reads up to {FORMAT}: restore it with that version or a later one"
            )
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CommandError(f"{where} is not the manifest of a backup ({error}): use another copy of it") from error
