"""Server-Sent Events (WHATWG HTML, section 9.2), parsed from bytes as they come. Pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

import msgspec

_BOM: Final = "\ufeff"
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_DIGITS: Final = re.compile(r"[0-9]{1,9}")


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream."""

    id: str
    """The last id in the stream up to this event; empty if there was none."""
    event: str
    """Its type; empty if it has none."""
    data: str


class EventStreamParser:
    """Parses the chunks of one response, cut anywhere, into the events that they complete.

    An event that the stream does not complete is dropped: its rest may be lost.

    Attributes:
        retry: seconds to wait before connecting again, as the stream asks; None if it does not.
    """

    def __init__(self) -> None:
        self.retry: float | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._is_start = True
        self._is_after_cr = False
        self._line: list[str] = []
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that end in this chunk."""
        text = self._decode(chunk)
        if not text:
            return []
        if self._is_start:
            self._is_start = False
            text = text.removeprefix(_BOM)
        # The second half of a cut CRLF: the line ended with the first half.
        is_rest = self._is_after_cr and text.startswith("\n")
        self._is_after_cr = text.endswith("\r")
        *ends, begin = _LINE_END.split(text[is_rest:])
        found = []
        for end in ends:
            self._line.append(end)
            event = self._read_line("".join(self._line))
            self._line.clear()
            if event is not None:
                found.append(event)
        self._line.append(begin)
        return found

    def _read_line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if _DIGITS.fullmatch(value):
                self.retry = int(value) / 1000
            case _:
                pass  # a comment (no name before the colon), or an unknown field
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        return ServerSentEvent(id=self._id, event=event, data="\n".join(data)) if data else None
