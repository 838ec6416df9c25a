"""A message as it arrived: nats-py's, except that its headers are parsed only when they are read."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

_LINE_END: Final = b"\r\n"
_VERSION: Final = b"NATS/1.0"
_FIRST_LINE: Final = _VERSION + _LINE_END
_STATUS_START: Final = len(_VERSION) + 1
_STATUS_END: Final = _STATUS_START + 3
_SPACE: Final = ord(" ")
_KNOWN_NAMES: Final = 256


class ReceivedMessage(Msg):
    """One message. U+FFFD stands for bytes of its subjects that are not UTF-8; a block of headers that NATS would not
    write counts as none.

    Args:
        client: the connection that received it.
        sid: the subscription's number.
        subject: as it was sent.
        reply: as it was sent; empty without one.
        data: the body.
        block: the block of headers; None without one.
    """

    def __init__(
        self, client: Client, sid: int, subject: bytes, reply: bytes, data: bytes, block: bytes | None
    ) -> None:
        # Not nats-py's: a dataclass of eight fields, and two thirds of the time.
        self._client = client
        self._sid = sid
        self.subject = str(subject, "utf-8", "replace")
        self.reply = str(reply, "utf-8", "replace")
        self.data = data
        self._block = block
        self._parsed: dict[str, str] | None = None
        self._is_parsed = block is None

    @property
    def status(self) -> str | None:
        """The status code of a message that the broker sent about a request; None for any other message."""
        block = self._block
        if block is None or len(block) <= _STATUS_END or block[_STATUS_START - 1] != _SPACE:
            return None
        code = block[_STATUS_START:_STATUS_END]
        return code.decode() if code.isdigit() else None

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers, with the broker's `Status` and `Description`; None without any."""
        if not self._is_parsed:
            self._is_parsed = True
            if self._block is not None:
                self._parsed = parse_headers(self._client, self._block)
        return self._parsed

    @headers.setter
    def headers(self, headers: dict[str, str] | None) -> None:
        self._is_parsed = True
        self._parsed = headers

    def broker_header(self, name: bytes) -> str | None:
        """Return a header that the broker adds behind those of the sender; None without it. No other one is parsed.

        Args:
            name: as the broker writes it.
        """
        block = self._block
        if block is None:
            return None
        before, found, after = block.rpartition(b"\r\n" + name + b": ")
        return after.partition(_LINE_END)[0].decode("utf-8", "replace") if found and before else None


def parse_headers(client: Client, block: bytes) -> dict[str, str] | None:
    """Return the headers of a block as nats-py parses them; None without any, or for a block that it can't parse."""
    if block.startswith(_FIRST_LINE):
        return _parse_lines(block[len(_FIRST_LINE) :]) or None
    try:
        client._process_headers(block).send(None)  # noqa: SLF001 - a coroutine that never waits
    except StopIteration as returned:
        parsed: dict[str, str] | None = returned.value
        return parsed
    except (IndexError, UnicodeDecodeError):
        return None
    raise RuntimeError("nats-py waited while it parsed headers")


def _parse_lines(lines: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines.split(_LINE_END):
        name, colon, value = line.partition(b":")
        if colon and (known := _readable_name(name)) is not None:
            headers[known] = value.strip().decode("utf-8", "replace")
    return headers


@lru_cache(maxsize=_KNOWN_NAMES)
def _readable_name(name: bytes) -> str | None:
    """Return the name of a header; None if it is none."""
    name = name.strip()
    if not name.isascii():
        return None
    text = name.decode()
    return None if any(one.isspace() for one in text) else text
