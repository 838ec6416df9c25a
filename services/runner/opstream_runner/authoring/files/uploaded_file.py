"""A file that the client has uploaded for the operation, as a handler sees it, and the request to have its bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import msgspec

from opstream_runner.errors import FileNotFetched
from opstream_schemas.event_types.claims import Attachment


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the client has uploaded."""

    name: str
    media_type: str = "application/octet-stream"
    """As the client says."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Of these bytes, in hex."""


class FetchRequest(NamedTuple):
    """What the runner needs to write a file."""

    name: str
    path: str
    """Absolute: where it is to be. An existing file is replaced."""


def uploaded_files(uploads: Iterable[Attachment]) -> tuple[UploadedFile, ...]:
    """Return the files of an operation as its handler sees them."""
    return tuple(
        UploadedFile(name=one.file_name, media_type=one.media_type, size=one.payload.size, sha256=one.payload.sha256)
        for one in uploads
    )


def fetch_request(uploads: Iterable[UploadedFile], name: str, path: str | os.PathLike[str]) -> FetchRequest:
    """Return the request for a file.

    Args:
        uploads: the files that there are.
        name: of one of them.
        path: where it is to be.

    Raises:
        KeyError: there is no file of this name.
        FileNotFoundError: there is no folder for it.
    """
    known = [one.name for one in uploads]
    if name not in known:
        raise KeyError(f"the operation has no upload {name!r}, only: {', '.join(known) or 'none'}")
    found = Path(path).absolute()
    if not found.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(found.parent)!r} for the upload {name!r}")
    return FetchRequest(name, str(found))


def find_no_file(request: FetchRequest) -> Future[None]:
    """Fetch a file from nowhere: the default in a unit test."""
    done: Future[None] = Future()
    done.set_exception(FileNotFetched(f"there is no payload store that has {request.name}"))
    return done
