"""A header of the broker is found behind those of the sender, whatever these say."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from opstream_journal.wire.received_message import ReceivedMessage

pytestmark = pytest.mark.unit

NAME = b"Nats-Sequence"
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20).map(str.strip)


def received(block: bytes | None) -> ReceivedMessage:
    return ReceivedMessage(cast("Client", None), 1, b"a", b"", b"", block)


@given(st.lists(st.tuples(st.sampled_from(["Nats-Sequence", "X-Nats-Sequence", "nats-sequence", "A"]), VALUES)), VALUES)
def test_the_last_one_counts(others: list[tuple[str, str]], value: str) -> None:
    """A sender's header of the same name comes before, and is not taken for it."""
    lines = [f"{name}: {text}" for name, text in [*others, ("Nats-Sequence", value)]]
    block = "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
    assert received(block).broker_header(NAME) == value


@pytest.mark.parametrize(
    "block", [None, b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nX-Nats-Sequence: 3\r\n\r\n", b"Nats-Sequence: 3\r\n\r\n"]
)
def test_there_is_none(block: bytes | None) -> None:
    """Also where another name ends with it."""
    assert received(block).broker_header(NAME) is None
