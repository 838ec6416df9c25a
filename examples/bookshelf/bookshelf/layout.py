"""Paths in the store, and ids derived from operation ids. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

NEW: Final = "new"
"""The resource id that asks for a book with a fresh id."""
TRANSACTION_ID: Final = re.compile(r"tx-[0-9a-f]{32}")

_PLAIN_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RECORD: Final = re.compile(r"([0-9]{6,})\.json")
_FOLDER: Final = re.compile(r"([0-9]{6,})")


def book_id_for(resource_id: str, operation_id: str) -> str:
    """The book's id; for `new` an id that is the same for all attempts of the operation."""
    return f"book-{_digest('book', operation_id)[:32]}" if resource_id == NEW else resource_id


def transaction_id_for(operation_id: str) -> str:
    """The transaction that an upload-start opens, the same for all its attempts."""
    return f"tx-{_digest('transaction', operation_id)[:32]}"


def book_key(book_id: str) -> str:
    """A folder name for any text: the id itself if it is plain, else a hash that no plain id can equal.

    Percent-encoding instead would exceed what a file system takes as a name: 256 characters can be 3 KiB of it.
    """
    return book_id if _PLAIN_KEY.fullmatch(book_id) else f"~{_digest('id', book_id)}"


class Layout:
    """The folder of one book.

    All files of a version are below its number, so cleaning up after version n can't touch transactions for version
    n+1.
    """

    def __init__(self, book_id: str) -> None:
        root = f"books/{book_key(book_id)}"
        self.transactions = f"{root}/transactions"
        self.versions = f"{root}/versions"

    def transaction(self, transaction_id: str) -> str:
        """The record of the announced files."""
        return f"{self.transactions}/{transaction_id}.json"

    def version(self, number: int) -> str:
        """The record that makes a version published."""
        return f"{self.versions}/{number:06d}.json"

    def folder(self, number: int) -> str:
        """All files of a version, including those of competing transactions."""
        return f"{self.versions}/{number:06d}"

    def candidates(self, number: int) -> str:
        """The folder of verified files of all transactions for a version; each has its own folder in it."""
        return f"{self.folder(number)}/files"

    def files(self, number: int, transaction_id: str) -> str:
        """The verified files of a transaction; once it is published, the files of the book."""
        return f"{self.candidates(number)}/{transaction_id}"

    def all_uploads(self, number: int) -> str:
        """The upload folders of all transactions for a version."""
        return f"{self.folder(number)}/uploads"

    def uploads(self, number: int, transaction_id: str) -> str:
        """The client's upload folder; it may hold any file."""
        return f"{self.all_uploads(number)}/{transaction_id}"


def record_number(path: str) -> int:
    """The version whose record has this path; 0 if it is no record."""
    found = _RECORD.fullmatch(path.rpartition("/")[2])
    return int(found[1]) if found else 0


def folder_number(path: str) -> int:
    """The version whose folder has this path; 0 if it is none."""
    found = _FOLDER.fullmatch(path.rstrip("/").rpartition("/")[2])
    return int(found[1]) if found else 0


def _digest(purpose: str, text: str) -> str:
    return hashlib.sha256(f"{purpose}:{text}".encode()).hexdigest()
