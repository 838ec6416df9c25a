"""Rules for the actions' inputs that a JSON Schema can't express."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from opstream import ActionError

from .records import (
    MAX_FILES,
    MAX_METADATA_BYTES,
    MAX_PATH_BYTES,
    MAX_PATHS_BYTES,
    PATH_PATTERN,
    SHA256_PATTERN,
    AnnouncedFile,
)

MAX_NAME_BYTES: Final = 200
"""UTF-8 bytes of one folder or file name: file systems allow 255, and LocalStore appends a suffix while it writes."""

_PATH: Final = re.compile(PATH_PATTERN)
_SHA256: Final = re.compile(SHA256_PATTERN)
_STAGED: Final = re.compile(r"#\d+$")


def check_files(files: Sequence[AnnouncedFile]) -> None:
    """Check that the files can be stored, each at its own path.

    This repeats the schema's rules, since its `$` allows a final line feed in some validators.

    Raises:
        ActionError: `InvalidFiles`; the target is the first wrong file, e.g. `files[3].path`.
    """
    if not 1 <= len(files) <= MAX_FILES:
        raise ActionError("InvalidFiles", f"announce 1 to {MAX_FILES} files, not {len(files)}", target="files")
    paths: set[str] = set()
    for index, file in enumerate(files):
        if problem := path_problem(file.path):
            raise ActionError("InvalidFiles", f"the path {problem}", target=f"files[{index}].path")
        if not _SHA256.fullmatch(file.sha256):
            raise ActionError("InvalidFiles", "a SHA-256 is 64 lowercase hex digits", target=f"files[{index}].sha256")
        if file.path in paths:
            raise ActionError("InvalidFiles", f"{file.path} is announced twice", target=f"files[{index}].path")
        paths.add(file.path)
    if sum(len(path.encode()) for path in paths) > MAX_PATHS_BYTES:
        raise ActionError("InvalidFiles", f"all paths together must not exceed {MAX_PATHS_BYTES} bytes", target="files")
    for index, file in enumerate(files):
        if folder := next((folder for folder in _folders(file.path) if folder in paths), None):
            raise ActionError(
                "InvalidFiles", f"{folder} can't be a file and the folder of {file.path}", target=f"files[{index}].path"
            )


def check_metadata(metadata: dict[str, Any]) -> None:
    """Check that the metadata does not make the book's record too large.

    Raises:
        ActionError: `InvalidMetadata`.
    """
    size = len(msgspec.json.encode(metadata))
    if size > MAX_METADATA_BYTES:
        raise ActionError(
            "InvalidMetadata", f"metadata must not exceed {MAX_METADATA_BYTES} bytes, not be {size}", target="metadata"
        )


def path_problem(path: str) -> str:
    """The problem of a path, as the end of a sentence; empty for a valid path."""
    if not _PATH.fullmatch(path):
        return "must be relative, without empty, '.' or '..' parts, backslashes and control characters"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    if len(encoded) > MAX_PATH_BYTES:
        return f"must not exceed {MAX_PATH_BYTES} bytes"
    if any(len(name) > MAX_NAME_BYTES for name in encoded.split(b"/")):
        return f"must not hold a name of more than {MAX_NAME_BYTES} bytes"
    if _STAGED.search(path):
        # LocalStore refuses such names: it uses them for files that are not complete.
        return "must not end with '#' and digits"
    return ""


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
