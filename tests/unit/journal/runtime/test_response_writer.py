"""What uvicorn writes as a response reaches the connection in as few writes as possible, and never too late."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from opstream_journal.runtime.response_writer import ResponseWriter

pytestmark = pytest.mark.unit

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Connection:
    """A transport that keeps what is done to it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def writer(connection: Connection) -> ResponseWriter:
    return ResponseWriter(cast("asyncio.Transport", connection))


def test_head_and_body_are_one_write(connection: Connection, writer: ResponseWriter) -> None:
    """And what follows is not held."""
    writer.write(HEAD)
    assert connection.done == []
    for part in (b"one", b"two"):
        writer.write(part)
    writer.flush()
    assert connection.done == [HEAD + b"one", b"two"]


def test_a_head_alone_is_written_at_the_end(connection: Connection, writer: ResponseWriter) -> None:
    """Of the response (HEAD, 304), or of the connection; once."""
    writer.write(HEAD)
    writer.flush()
    writer.flush()
    writer.close()
    assert connection.done == [HEAD, "closed"]
    assert writer.is_closing()


def test_a_connection_that_ends_early_has_its_head(connection: Connection, writer: ResponseWriter) -> None:
    """As if it had been written at once."""
    writer.write(HEAD)
    writer.close()
    assert connection.done == [HEAD, "closed"]


def test_a_client_that_waits_to_continue_is_not_kept_waiting(connection: Connection, writer: ResponseWriter) -> None:
    """`100 Continue` is no head of a response."""
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert connection.done == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    writer.write(HEAD)
    writer.write(b"")
    assert connection.done[1:] == [HEAD]
