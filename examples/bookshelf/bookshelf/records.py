"""Inputs and results of the two actions, and the records in the store."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

MAX_FILES: Final = 1_000
"""Files of a book. This limit and the next two keep its record below 256 KiB, which fits into an event: a version must
not be published and then reported as failed because its record is too large."""
MAX_PATHS_BYTES: Final = 48 * 1024
"""UTF-8 bytes of all paths of a book together."""
MAX_METADATA_BYTES: Final = 32 * 1024
"""Bytes of a book's metadata as JSON."""
MAX_PATH_BYTES: Final = 512
"""UTF-8 bytes of a path: an S3 key holds 1024, of which the shelf's own folders and prefix need their part."""

_CHARACTER: Final = r"[^/\\\x00-\x1f\x7f-\x9f\ufffe\uffff]"
_NO_DOT: Final = _CHARACTER.replace("[^", "[^.")
_SEGMENT: Final = rf"(?:{_NO_DOT}{_CHARACTER}*|\.{_NO_DOT}{_CHARACTER}*|\.\.{_CHARACTER}+)"
PATH_PATTERN: Final = rf"^{_SEGMENT}(?:/{_SEGMENT})*$"
"""Folders and a name between single slashes, none of them empty, `.` or `..`; without control characters, backslashes
and what XML (S3's listings) can't hold. Written without look-ahead, which some JSON Schema validators lack."""
SHA256_PATTERN: Final = r"^[0-9a-f]{64}$"

FilePath = Annotated[
    str,
    Meta(
        pattern=PATH_PATTERN,
        min_length=1,
        max_length=MAX_PATH_BYTES,
        description="Relative path of a file in the book.",
        examples=["chapters/1.md"],
    ),
]
Sha256 = Annotated[
    str, Meta(pattern=SHA256_PATTERN, max_length=64, description="SHA-256 of the file, 64 lowercase hex digits.")
]
Metadata = Annotated[dict[str, Any], Meta(max_length=100, description="Whatever the publisher wants to keep.")]


class Wire(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Base of inputs and results."""


class AnnouncedFile(Wire, frozen=True, kw_only=True):
    """A file of the new version, new or unchanged."""

    path: FilePath
    sha256: Sha256


class UploadStart(Wire, frozen=True, kw_only=True):
    """Input of `book:upload-start`: all files of the new version, not only changed ones."""

    title: Annotated[str, Meta(min_length=1, max_length=300)]
    files: Annotated[list[AnnouncedFile], Meta(min_length=1, max_length=MAX_FILES)]


class FileToUpload(Wire, frozen=True, kw_only=True):
    """A file that the client must upload, and its URL."""

    path: str
    upload_url: str
    """`file:` URL to write to, or a presigned URL for one HTTP PUT with the bytes as its body."""


class UploadStarted(Wire, frozen=True, kw_only=True):
    """Result of `book:upload-start`."""

    transaction_id: str
    book_id: str
    """The id to finish with; for `new` the book's new id."""
    version: int
    """The version that this becomes, unless another client publishes it first."""
    upload_url: str
    """The upload folder; it ends with a slash."""
    files_to_upload: list[FileToUpload]
    files_unchanged: int
    """Number of files that were copied from the published version into the upload folder."""


class UploadFinish(Wire, frozen=True, kw_only=True):
    """Input of `book:upload-finish`."""

    transaction_id: Annotated[str, Meta(min_length=1, max_length=100)]
    metadata: Metadata = {}


class PublishedFile(Wire, frozen=True, kw_only=True):
    """A file of a published version."""

    path: str
    sha256: str
    size: int
    """In bytes."""


class Book(Wire, frozen=True, kw_only=True):
    """A published version of a book; result of `book:upload-finish`."""

    book_id: str
    version: int
    """1 for the first, then without gaps."""
    title: str
    metadata: dict[str, Any]
    files: list[PublishedFile]
    published_at: datetime
    """UTC; recorded once, so a retry returns the same time."""


class Transaction(Struct, frozen=True, kw_only=True, rename="camel"):
    """Stored first by `book:upload-start`, never changed."""

    transaction_id: str
    book_id: str
    title: str
    version: int
    """The version that this becomes: one more than the published one at the start."""
    files: list[AnnouncedFile]


class Version(Struct, frozen=True, kw_only=True, rename="camel"):
    """Stored by `book:upload-finish` as its one atomic step, never changed. The highest one is the book."""

    transaction_id: str
    operation_id: str
    """The operation that published, to distinguish its retry from another operation."""
    book: Book
