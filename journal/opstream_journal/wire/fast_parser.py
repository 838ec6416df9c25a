"""Parses what the broker sends, and hands messages straight to their receivers.

nats-py's parser tries patterns on a growing buffer and copies it for each message. Then each message goes through two
coroutines, a queue and a task. This one cuts the bytes where the commands say, and calls a receiver in the read loop.
Everything that is not a message of such a receiver is still nats-py's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from .received_message import ReceivedMessage

logger = logging.getLogger(__name__)

Receive = Callable[[ReceivedMessage], None]
"""Takes a message at once: it must not wait, and the next message is not read before it has returned."""

_LINE_END: Final = b"\r\n"
_PLAIN: Final = b"MSG "
_HEADERS: Final = b"HMSG"
_MESSAGES: Final = (_PLAIN, _HEADERS)
_NO_REPLY: Final = 4
"""Words of a plain message's command without a reply subject. A block of headers has one more."""


class FastParser(Parser):
    """The parser of one connection.

    Args:
        nc: the connection, whose parser this replaces.
    """

    def __init__(self, nc: Client) -> None:
        self._receivers: dict[int, Receive] = {}
        self._resets = 0
        super().__init__(nc)

    @classmethod
    def install(cls, nc: Client) -> FastParser:
        """Let a connection that has no subscriptions yet parse with a fast parser."""
        parser = cls(nc)
        parser._parts = [bytes(nc._ps.buf)]  # noqa: SLF001 - the beginning of a command, perhaps
        nc._ps = parser  # noqa: SLF001
        return parser

    async def subscribe(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe, and hand each message to `receive`, until nats-py's subscription that this returns is ended.

        Raises:
            nats.errors.Error: as nats-py's `subscribe`.
        """

        async def receive_later(message: Any) -> None:  # noqa: ANN401 - what came before the number was known
            receive(message)

        limits = {"pending_msgs_limit": -1, "pending_bytes_limit": -1}
        subscription: Subscription = await self.nc.subscribe(subject, cb=receive_later, **limits)
        self._receivers[subscription._id] = receive  # noqa: SLF001
        return subscription

    def reset(self) -> None:
        """Forget the unparsed bytes, because the connection was lost."""
        super().reset()
        self._parts: list[bytes] = []
        self._size = 0
        self._wanted = 0
        self._resets += 1

    async def parse(self, data: bytes = b"") -> None:
        """Handle all commands that are complete; keep the rest for the next call.

        Raises:
            ProtocolError: the bytes are no commands of NATS.
        """
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return
            data = b"".join(self._parts)
            self._parts = []
        resets = self._resets
        at = self._wanted = 0
        while (line_end := data.find(_LINE_END, at)) >= 0:
            kind = data[at : at + 4]
            if kind in _MESSAGES:
                words = data[at:line_end].split()
                if len(words) < _NO_REPLY:
                    raise ProtocolError("nats: malformed MSG")
                begin = line_end + 2
                end = begin + _number(words[-1])
                if len(data) < end + 2:
                    self._wanted = end + 2 - at
                    break
                rest = self._receive(words, data, begin, end)
                if rest is not None:
                    await self.nc._process_msg(*rest)  # noqa: SLF001 - as nats-py's parser does
                at = end + 2
            else:
                await super().parse(data[at : line_end + 2])
                at = line_end + 2
            if self._resets != resets:
                return
        if at < len(data):
            self._parts = [data[at:]]
            self._size = len(data) - at

    def _receive(self, words: list[bytes], data: bytes, begin: int, end: int) -> tuple[Any, ...] | None:
        """Hand a message to its receiver. Return what nats-py's `_process_msg` takes if it has none."""
        block = None
        if words[0] == _HEADERS:
            size = _number(words.pop(-2))
            if size > end - begin:
                raise ProtocolError("nats: malformed MSG")
            block = data[begin : begin + size] or None
            begin += size
        if len(words) == _NO_REPLY:
            _, subject, number, _ = words
            reply = b""
        elif len(words) == _NO_REPLY + 1:
            _, subject, number, reply, _ = words
        else:
            raise ProtocolError("nats: malformed MSG")
        sid = _number(number)
        receive = self._receivers.get(sid)
        if receive is None:
            return sid, subject, reply, data[begin:end], block
        nc = self.nc
        if sid not in nc._subs:  # noqa: SLF001 - it was ended
            del self._receivers[sid]
            return None
        nc.stats["in_msgs"] += 1
        nc.stats["in_bytes"] += end - begin
        try:
            receive(ReceivedMessage(nc, sid, subject, reply, data[begin:end], block))
        except Exception:
            logger.exception("a message on %r could not be handled", subject)
        return None


def _number(word: bytes) -> int:
    if not word.isdigit():
        raise ProtocolError("nats: malformed MSG")
    return int(word)
