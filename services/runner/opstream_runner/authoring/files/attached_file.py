"""A file that a handler adds to its operation: its path, checked name and media type."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from opstream_schemas.event_types.claims import check_file_name, check_media_type


class FileRequest(NamedTuple):
    """What the runner needs to add a file."""

    path: str
    """Absolute."""
    name: str
    media_type: str


def file_request(path: str | os.PathLike[str], media_type: str, name: str) -> FileRequest:
    """Return the request for a file.

    Args:
        path: of the file.
        media_type: such as `application/pdf`.
        name: by which clients see it; empty for that of the path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file, or the name or the media type is none.
        TypeError: an argument is of another type.
    """
    found = Path(path).absolute()
    if not found.exists():
        raise FileNotFoundError(f"there is no file {str(found)!r}")
    if not found.is_file():
        raise ValueError(f"{str(found)!r} is not a file")
    for value, what in ((media_type, "media type"), (name, "name")):
        if not isinstance(value, str):
            raise TypeError(f"the {what} of a file must be a str, not {type(value).__name__}")
    return FileRequest(str(found), check_file_name(name or found.name), check_media_type(media_type))


def keep_no_file(_request: FileRequest) -> Future[None]:
    """Add a file nowhere: the default in a unit test."""
    done: Future[None] = Future()
    done.set_result(None)
    return done
