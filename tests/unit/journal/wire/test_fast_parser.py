"""What the broker sends is parsed as nats-py parses it, in whatever pieces it arrives."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from opstream_journal.wire.client_patches import tolerate_invalid_bytes
from opstream_journal.wire.fast_parser import FastParser
from opstream_journal.wire.received_message import ReceivedMessage

pytestmark = pytest.mark.unit

DIRECT, ENDED, OTHER = 1, 2, 3
"""Numbers of subscriptions: of a receiver, of one that has ended, and of nats-py."""
WORDS = st.binary(min_size=1, max_size=6).filter(lambda word: len(word.split()) == 1 and word.split()[0] == word)
LINES = st.lists(st.sampled_from([b"A: b", b"Status: 7", b"X", b":", b" n : v ", b"\xff: 1", b"u: \xff", b"a b: c"]))
BLOCKS = st.builds(
    lambda first, lines: b"\r\n".join((first, *lines, b"", b"")),
    st.sampled_from([b"NATS/1.0", b"NATS/1.0 404", b"NATS/1.0 100 Idle Heartbeat", b"NATS/1.0 x", b"NATS/1.0 40\xff"]),
    LINES,
) | st.binary(max_size=24)
MESSAGES = st.tuples(
    WORDS, st.sampled_from([DIRECT, ENDED, OTHER]), st.just(b"") | WORDS, st.none() | BLOCKS, st.binary()
)
OTHERS = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"a":1}\r\n'])


def sent(commands: list[Any]) -> bytes:
    """The bytes of commands, as a broker sends them."""
    return b"".join(one if isinstance(one, bytes) else sent_message(*one) for one in commands)


def sent_message(subject: bytes, sid: int, reply: bytes, block: bytes | None, data: bytes) -> bytes:
    words = [b"MSG" if block is None else b"HMSG", subject, b"%d" % sid, *([reply] if reply else [])]
    if block is not None:
        words.append(b"%d" % len(block))
    return b"%b %d\r\n%b%b\r\n" % (b" ".join(words), len(block or b"") + len(data), block or b"", data)


class Heard:
    """Takes what nats-py's client gets from its parser; nats-py has no narrower interface."""

    def __init__(self) -> None:
        self._subs = {DIRECT: None, OTHER: None}
        self.stats = {"in_msgs": 0, "in_bytes": 0}
        self.found: list[Any] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        if sid in self._subs:
            self.found.append((sid, *(str(one, "utf-8", "replace") for one in (subject, reply)), data, block))

    async def _process_ping(self) -> None:
        self.found.append("ping")

    async def _process_pong(self) -> None:
        self.found.append("pong")

    async def _process_err(self, error: str) -> None:
        self.found.append(error)

    async def _process_info(self, info: object) -> None:
        self.found.append(info)

    def receive(self, message: ReceivedMessage) -> None:
        self.found.append((message.sid, message.subject, message.reply, message.data, message._block))


async def heard(parser: Parser, pieces: list[bytes]) -> list[Any]:
    for piece in pieces:
        await parser.parse(piece)
    found: list[Any] = parser.nc.found
    return found


def fast_parser() -> FastParser:
    """A parser that has one receiver that is subscribed, and one that is not any more."""
    nc: Any = Heard()
    parser = FastParser(nc)
    parser._receivers = {DIRECT: nc.receive, ENDED: nc.receive}
    return parser


@given(commands=st.lists(MESSAGES | OTHERS), cuts=st.lists(st.integers(min_value=0, max_value=2_000)))
def test_any_pieces_give_what_nats_gives(commands: list[Any], cuts: list[int]) -> None:
    """Commands in any pieces are heard as nats-py's own parser hears them in one piece."""
    data = sent(commands)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[begin:end] for begin, end in itertools.pairwise(edges)]
    expected = asyncio.run(heard(Parser(Heard()), [data]))
    assert asyncio.run(heard(fast_parser(), pieces)) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        b"MSG a 1\r\n",
        b"MSG a 1 b c 2\r\nxx\r\n",
        b"MSG a one 2\r\nxx\r\n",
        b"MSG a 1 -2\r\n",
        b"HMSG a 1 2\r\nxx\r\n",
        b"HMSG a 1 4 2\r\nxx\r\n",
        b"MSG \r\n",
        b"What?\r\n",
    ],
)
def test_what_is_no_command(wrong: bytes) -> None:
    """Bytes that are no command of NATS are an error, after which nats-py connects again."""
    with pytest.raises(ProtocolError):
        asyncio.run(heard(fast_parser(), [wrong]))


def test_a_receiver_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An error in a receiver is logged, and the next message is still heard."""
    parser = fast_parser()

    def fail(_message: ReceivedMessage) -> None:
        parser._receivers[DIRECT] = parser.nc.receive
        raise ValueError("a bug")

    parser._receivers[DIRECT] = fail
    message = sent_message(b"a", DIRECT, b"", None, b"x")
    assert asyncio.run(heard(parser, [message, message])) == [(DIRECT, "a", "", b"x", None)]
    assert "a bug" in caplog.text


def test_a_connection_that_is_lost_in_between() -> None:
    """What came after an error that ended the connection, or before it in part, is not taken for the next one's."""
    parser = fast_parser()

    async def lose(_error: str) -> None:
        parser.reset()

    parser.nc._process_err = lose
    message = sent_message(b"a", DIRECT, b"", None, b"x")
    assert asyncio.run(heard(parser, [b"-ERR 'Stale Connection'\r\n" + message + b"MSG a 1 5\r\nxx"])) == []
    assert len(asyncio.run(heard(parser, [message]))) == 1


@given(BLOCKS)
def test_headers_are_those_of_nats(block: bytes) -> None:
    """Any block of headers is parsed as nats-py parses it; one that would end its read loop counts as none."""
    client = Client()
    tolerate_invalid_bytes(client)
    try:
        client._process_headers(block).send(None)
    except StopIteration as returned:
        expected = returned.value
    message = ReceivedMessage(Client(), DIRECT, b"a", b"", b"", block)
    assert message.headers == expected
    assert message.status is None or not expected or "Status" in expected


def test_subjects_that_are_not_text() -> None:
    """U+FFFD stands for what is not UTF-8 in the subject and the reply."""
    message = ReceivedMessage(Client(), DIRECT, b"a.\xff", b"\xfe.b", b"", None)
    assert (message.subject, message.reply, message.headers, message.status) == ("a.\ufffd", "\ufffd.b", None, None)
