"""The expected version of a stored message: a number of another writer's is none that a read may trust."""

from __future__ import annotations

import pytest

from opstream_journal.jetstream.rpc import (
    StoredMessage,
    expected_version_headers,
    expected_version_in,
    expected_version_of,
)

pytestmark = pytest.mark.unit

NAME = "Nats-Expected-Last-Subject-Sequence"


def of(text: str) -> tuple[int, int]:
    """What both ways of reading it say."""
    message = StoredMessage("operations.a.b.c.d", 9, hdrs=f"NATS/1.0\r\nA: 1\r\n{NAME}: {text}\r\n\r\n".encode())
    return expected_version_in({NAME: text}), expected_version_of(message)


def test_what_an_append_has() -> None:
    """It is the number that the append was sent with, and not that of its filter."""
    headers = expected_version_headers("operations.a.>", 17)
    assert expected_version_in(headers) == 17
    lines = "".join(f"{name}: {value}\r\n" for name, value in reversed(headers.items()))
    assert expected_version_of(StoredMessage("s", 18, hdrs=f"NATS/1.0\r\n{lines}\r\n".encode())) == 17


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "1" * 21, "9" * 5_000, "\u00b2"])
def test_what_is_none(text: str) -> None:
    """Anything else is 0, as for a message without one, and no error."""
    assert of(text) == (0, 0)


def test_without_one() -> None:
    """A message without the header has none."""
    assert expected_version_in({}) == 0
    assert expected_version_of(StoredMessage("s", 1, hdrs=b"NATS/1.0\r\n\r\n")) == 0
