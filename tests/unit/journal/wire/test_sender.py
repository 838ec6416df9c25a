"""The bytes of a publish are nats-py's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from opstream_journal.wire.sender import encode_publish

pytestmark = pytest.mark.unit

SUBJECTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1)
NAMES = st.text("ab-_|~!. \t", max_size=8) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(" a\r\n\t:", max_size=6)


def encode_with_nats(subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> bytes:
    client = Client()
    with contextlib.suppress(StopIteration):  # it never waits
        client._send_publish(subject, reply, data, len(data), headers).send(None)
    return b"".join(client._pending)


def outcome_of(encode: Callable[..., bytes], *message: object) -> bytes | str:
    """The command, or the name of the header that was refused."""
    try:
        return encode(*message)
    except nats.errors.BadHeaderError as refused:
        return refused.key


@given(
    subject=SUBJECTS,
    data=st.binary(max_size=64),
    reply=st.just("") | SUBJECTS,
    headers=st.none() | st.dictionaries(NAMES, VALUES, max_size=4),
)
def test_bytes_are_those_of_nats(subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> None:
    """For any message the command is byte for byte what nats-py makes, or both refuse the name of the same header."""
    assert outcome_of(encode_publish, subject, data, reply, headers) == outcome_of(
        encode_with_nats, subject, data, reply, headers
    )
