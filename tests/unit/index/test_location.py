"""The URLs of an index."""

from __future__ import annotations

import pytest

from opstream_index.errors import InvalidLocation
from opstream_index.location import IndexLocation, parse_location

pytestmark = pytest.mark.unit


def test_a_file_and_a_database() -> None:
    """Both forms are read as they are."""
    assert parse_location("sqlite:a/b.db") == IndexLocation(path="a/b.db")
    assert parse_location("sqlite:/a b.db").path == "/a b.db"
    url = "postgresql://me:s3cr3t@db.example:5432/ops?sslmode=require"
    assert parse_location(url) == IndexLocation(url=url)


def test_a_password_is_not_shown() -> None:
    """What goes into logs and errors has neither user nor password nor options."""
    shown = parse_location("postgresql://me:s3cr3t@db.example/ops?password=s3cr3t").shown
    assert shown == "postgresql://db.example/ops"
    assert parse_location("sqlite:/a.db").shown == "sqlite:/a.db"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "begins with sqlite: or postgresql://"),
        ("index.db", "begins with"),
        ("mysql://x/y", "begins with"),
        ("sqlite:", "names no file"),
        ("sqlite::memory:", "names no file"),
        ("sqlite:///a.db", "names no file"),
        ("postgresql://db.example", "names no database"),
        ("postgresql://[::1/ops", "can't be read"),
    ],
)
def test_other_texts_are_refused(text: str, complaint: str) -> None:
    """The error says what to write."""
    with pytest.raises(InvalidLocation, match=complaint):
        parse_location(text)
