"""The URL of an index: `sqlite:PATH` or `postgresql://…`. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from .errors import InvalidLocation

_SQLITE: Final = "sqlite:"
_POSTGRES: Final = ("postgresql://", "postgres://")


class IndexLocation(msgspec.Struct, frozen=True):
    """Where an index is."""

    path: str = ""
    """Of the file of SQLite; empty for PostgreSQL."""
    url: str = ""
    """Of the database in PostgreSQL; empty for SQLite."""

    @property
    def shown(self) -> str:
        """Return it for a log: without a password."""
        if self.path:
            return f"{_SQLITE}{self.path}"
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))


def parse_location(text: str) -> IndexLocation:
    """Return the location that a URL names.

    Raises:
        InvalidLocation: it is none.
    """
    if text.startswith(_SQLITE):
        path = text.removeprefix(_SQLITE)
        if not path or path.startswith("//") or "\0" in path or path == ":memory:":
            raise InvalidLocation(
                f"{text!r} names no file: write sqlite:PATH, for example sqlite:/var/lib/opstream/index.db"
            )
        return IndexLocation(path=path)
    if text.startswith(_POSTGRES):
        try:
            host = urlsplit(text).path
        except ValueError as error:
            raise InvalidLocation(f"the URL of the index can't be read: {error}") from error
        if not host.strip("/"):
            raise InvalidLocation("the URL of the index names no database: write postgresql://USER@HOST/DATABASE")
        return IndexLocation(url=text)
    raise InvalidLocation("the URL of an index begins with sqlite: or postgresql://")
