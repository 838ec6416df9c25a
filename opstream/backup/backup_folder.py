"""The folder of one backup: written under another name, checked, and renamed when all of it is on the disk.

Beside the manifest and the streams lies `SHA256SUMS`, in the format of `sha256sum`, so that a copy can be checked by
hand, too. It has the manifest's own sum, which the manifest can't have.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from opstream.terminal.console import CommandError, printable

from .manifest import NAME, FileRecord, Manifest, decode_manifest, encode_manifest

SUMS: Final = "SHA256SUMS"
PARTIAL: Final = ".partial"
"""End of the name of a folder that is being written."""

_MOST_SHOWN: Final = 10
_BLOCK: Final = 128 * 1024
_S2_BEGIN: Final = b"\xff\x06\x00\x00S2sTwO"
_S2_HEADER: Final = 4
_SNAPSHOT_END: Final = ".snapshot"


class BackupFile:
    """A new file of a backup, which is hashed while it is written.

    Args:
        path: of the file; it must not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Append data.

        Raises:
            OSError: it can't be written.
        """
        self._file.write(data)
        self._hash.update(data)
        self.bytes += len(data)

    def finish(self) -> FileRecord:
        """Write all to the disk, and close the file.

        Raises:
            OSError: it can't be written.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileRecord(name=self._path.name, bytes=self.bytes, sha256=self._hash.hexdigest())

    def close(self) -> None:
        """Close it unfinished."""
        with contextlib.suppress(OSError):  # what it could not write, as on a full disk, is thrown away
            self._file.close()


class NewBackup:
    """A backup that is being made; a context manager. Without `finish`, nothing of it stays.

    Args:
        path: its folder in the end; it must not exist.

    Raises:
        CommandError: it exists, or can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}{PARTIAL}")
        self._open: BackupFile | None = None

    @property
    def working_path(self) -> Path:
        """The folder until the backup is whole."""
        return self._partial

    def __enter__(self) -> Self:
        if self.path.exists():
            raise CommandError(f"{self.path} exists already, and no backup is overwritten: name another folder")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.mkdir(mode=0o700)
        except FileExistsError as error:
            raise CommandError(
                f"{self._partial} is of a backup that has not ended: wait until it has, or remove it if none runs"
            ) from error
        except OSError as error:
            raise _write_error(self._partial, error) from error
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def create(self, name: str) -> BackupFile:
        """Begin a file; the one before is finished."""
        try:
            self._open = BackupFile(self._partial / name)
        except OSError as error:
            raise _write_error(self._partial, error) from error
        return self._open

    def discard(self, name: str) -> None:
        """Remove a file that is to be begun again.

        Raises:
            OSError: it can't be removed.
        """
        if self._open is not None:
            self._open.close()
        (self._partial / name).unlink()

    def adopt(self, name: str) -> FileRecord:
        """Add a file that is in the folder already.

        Raises:
            OSError: it can't be read.
        """
        path = self._partial / name
        return FileRecord(name=name, bytes=path.stat().st_size, sha256=_sha256(path))

    def explain(self, error: OSError) -> CommandError:
        """Return what ends the command after an error of writing: nothing stays."""
        return _write_error(self._partial, error)

    def finish(self, manifest: Manifest, *, check: Callable[[Path], object]) -> None:
        """Write the manifest and the sums, check what is on the disk, and give the folder its name.

        Raises:
            CommandError: it can't be written, or is not as it was written.
        """
        try:
            written = self.create(NAME)
            written.write(encode_manifest(manifest))
            files = [written.finish(), *manifest.files()]
            sums = self.create(SUMS)
            sums.write("".join(f"{one.sha256}  {one.name}\n" for one in files).encode())
            sums.finish()
            check(self._partial)
            _sync_folder(self._partial)
            self._partial.rename(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise _write_error(self._partial, error) from error


def free_path(directory: Path, now: datetime) -> Path:
    """Return a path for a backup that begins now, which no other one has, whole or not."""
    name = f"{now:%Y%m%dT%H%M%SZ}"
    for number in itertools.count(1):
        path = directory / (name if number == 1 else f"{name}-{number}")
        if not path.exists() and not path.with_name(f"{path.name}{PARTIAL}").exists():
            return path
    raise RuntimeError("the numbers never end")


def find_backup(folder: Path) -> Path:
    """Return the folder of the backup: this one, or the only backup in it.

    Raises:
        CommandError: it holds several backups.
    """
    inside = [] if (folder / SUMS).exists() else _backups_in(folder)
    if len(inside) > 1:
        shown = ", ".join(inside if len(inside) <= _MOST_SHOWN else ["…", *inside[-_MOST_SHOWN:]])
        raise CommandError(
            f"{folder} holds {len(inside)} backups, {shown}: name one of them; the newest is {folder / inside[-1]}"
        )
    return folder / inside[0] if inside else folder


def check_backup(folder: Path, progress: Callable[[int], None] = lambda _: None) -> Manifest:
    """Check each file of a backup, and return its manifest.

    Args:
        folder: of the backup, whole or still partial.
        progress: called with the number of bytes that were read.

    Raises:
        CommandError: it is no backup, or something of it is missing or damaged; nothing else was touched.
    """
    sums = _read_sums(folder)
    if NAME not in sums:
        raise CommandError(
            f"{folder / SUMS} does not name {NAME}: the file was damaged, use another copy of the backup"
        )
    done = 0
    for name, expected in sums.items():
        done = _check_file(folder / name, expected, done, progress)
    manifest = decode_manifest((folder / NAME).read_bytes(), str(folder / NAME))
    for record in manifest.files():
        if sums.get(record.name) != record.sha256:
            raise CommandError(f"{folder / NAME} and {SUMS} differ about {record.name}: use another copy of the backup")
        if record.name.endswith(_SNAPSHOT_END):
            _check_frames(folder / record.name)
    return manifest


def read_chunks(path: Path, size: int, record: FileRecord) -> Iterator[bytes]:
    """Yield a file in chunks, and check at its end that it was the one that was checked before.

    Raises:
        CommandError: it has changed.
        OSError: it can't be read.
    """
    seen = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(size):
            seen.update(chunk)
            yield chunk
    if seen.hexdigest() != record.sha256:
        raise CommandError(f"{path} has changed since it was checked: run it again with another copy of the backup")


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeError) as error:
        raise CommandError(_no_backup_text(folder, error)) from error
    sums = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != hashlib.sha256().digest_size * 2 or not name or "/" in name or name.startswith("."):
            raise CommandError(f"{path} is damaged ({printable(line[:80])!r}): use another copy of the backup")
        sums[name] = digest
    return sums


def _no_backup_text(folder: Path, error: Exception) -> str:
    if folder.name.endswith(PARTIAL):
        return f"{folder} is of a backup that has not ended: use one without {PARTIAL}"
    what = getattr(error, "strerror", None) or "not readable"
    return f"{folder} is no backup: {SUMS}: {what}. Name the folder that 'opstream backup' has printed"


def _backups_in(folder: Path) -> list[str]:
    """Return the names of the backups in a folder. They begin with their time, so the newest is the last."""
    try:
        return sorted(one.parent.name for one in folder.glob(f"*/{SUMS}") if not one.parent.name.endswith(PARTIAL))
    except OSError:
        return []


def _check_file(path: Path, expected: str, done: int, progress: Callable[[int], None]) -> int:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
                done += len(block)
                progress(done)
    except OSError as error:
        raise CommandError(f"{path} can't be read ({error.strerror}): use another copy of the backup") from error
    if found.hexdigest() != expected:
        raise CommandError(f"{path} is damaged: its SHA-256 is not that of {SUMS}. Use another copy of the backup")
    return done


def _check_frames(path: Path) -> None:
    """Check that a snapshot consists of whole frames of S2: it was whole when its sum was taken.

    A frame is a byte with its type, three with its length, and that many bytes (the framing format of Snappy).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(len(_S2_BEGIN))
        place = len(begin)
        while place < size:
            header = file.read(_S2_HEADER)
            place += _S2_HEADER + int.from_bytes(header[1:], "little")
            file.seek(place)
    if begin != _S2_BEGIN or place != size:
        raise CommandError(f"{path} is not a whole snapshot of nats-server 2.15 or later: use another backup")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(path: Path, error: OSError) -> CommandError:
    return CommandError(
        f"{path} can't be written to ({error.strerror or error}): nothing of this backup was kept. Make room there, or "
        "name another folder"
    )
