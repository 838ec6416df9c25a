"""Server-Sent Events as in the standard, cut into chunks anywhere."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opstream.client.sse import EventStreamParser, ServerSentEvent

pytestmark = pytest.mark.unit

ENDS = st.sampled_from(["\n", "\r", "\r\n"])
TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
WORDS = TEXTS.filter(lambda text: "\0" not in text)


def parse(*chunks: bytes) -> list[ServerSentEvent]:
    stream = EventStreamParser()
    return [event for chunk in chunks for event in stream.feed(chunk)]


def cut(data: st.DataObject, whole: bytes) -> list[bytes]:
    """A text in pieces, some of them empty."""
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8), label="cuts"))
    return [whole[begin:end] for begin, end in zip([0, *places], [*places, len(whole)], strict=True)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[ServerSentEvent]]:
    """A stream's text, and the events that it holds."""
    text, events, last_id = draw(st.sampled_from(["", "\ufeff"])), [], ""
    for _ in range(draw(st.integers(0, 5))):
        data, name = draw(st.lists(TEXTS, max_size=3)), draw(st.none() | WORDS)
        new_id = draw(st.none() | WORDS)
        space = draw(st.sampled_from(["", " "]))
        # The parser removes the first space of a value, so add one.
        lines = [f"data:{space if space or not line.startswith(' ') else ' '}{line}" for line in data]
        lines += [f"event: {name}"] if name is not None else []
        lines += [f"id: {new_id}"] if new_id is not None else []
        lines += draw(
            st.lists(st.sampled_from([": a comment", ":", "colour: red", "nonsense", "retry: soon"]), max_size=2)
        )
        # The order of fields does not matter, except that of the data lines.
        rest = [line for line in lines if not line.startswith("data")]
        for line in draw(st.permutations(rest)):
            lines.remove(line)
            lines.insert(draw(st.integers(0, len(lines))), line)
        last_id = new_id if new_id is not None else last_id
        if data:
            events.append(ServerSentEvent(id=last_id, event=name or "", data="\n".join(data)))
        for line in [*lines, ""]:
            end = draw(ENDS)
            # An empty line after a CR can't end with LF alone: the two would be one line end.
            text += line + ("\r" if end == "\n" and not line and text.endswith("\r") else end)
    return text, events


@given(stream=streams(), tail=st.sampled_from(["", "data: half", "data: half\n", "id: 9\ndata"]), data=st.data())
def test_any_stream_in_any_chunks(stream: tuple[str, list[ServerSentEvent]], tail: str, data: st.DataObject) -> None:
    """The parser returns each complete event, in order, with its lines joined; an incomplete one is dropped."""
    text, events = stream
    assert parse(*cut(data, (text + tail).encode())) == events


@given(whole=st.binary(max_size=60) | st.text("\r\n:id data", max_size=60).map(str.encode), data=st.data())
@example(whole=b"data:\xf0\x9f\x98", data=None)
def test_chunks_do_not_matter(whole: bytes, data: st.DataObject | None) -> None:
    """The chunks of any bytes do not change the result, and nothing raises."""
    assert parse(*(cut(data, whole) if data else [whole])) == parse(whole)


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [("", "", "YHOO\n+2\n10")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [("1", "", "first event"), ("", "", "second event"), ("", "", " third event")],
        ),
        ("data\n\ndata\ndata\n\ndata:", [("", "", ""), ("", "", "\n")]),
        ("data:test\n\ndata: test\n\n", [("", "", "test"), ("", "", "test")]),
        ("event: add\n\ndata: x\n\n", [("", "", "x")]),
        ("id: a\0b\ndata: x\n\n", [("", "", "x")]),
        ("data: a\u2028b\x0bc\n\n", [("", "", "a\u2028b\x0bc")]),
    ],
    ids=["lines", "ids", "empty data", "one space", "no data no event", "NUL in an id", "other line ends"],
)
def test_the_standards_own_examples(text: str, events: list[tuple[str, str, str]]) -> None:
    """The standard's examples; and a block without data is no event and resets the event's type."""
    assert parse(text.encode()) == [ServerSentEvent(id=one, event=two, data=three) for one, two, three in events]


def test_a_line_ends_with_its_first_character() -> None:
    """An event is complete when its CR arrives; an LF that may follow is not awaited, and is no line."""
    stream = EventStreamParser()
    assert [event.data for event in stream.feed(b"data: a\r\n\r")] == ["a"]
    assert stream.feed(b"\n") == []
    assert [event.data for event in stream.feed(b"data: b\r\r")] == ["b"]


def test_broken_utf8_is_replaced() -> None:
    """Broken UTF-8 is replaced, as in browsers."""
    assert parse(b"data: \xff\xfe\n\n")[0].data == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [(b"retry: 1500\n", 1.5), (b"retry:0\n", 0.0), (b"retry: -1\n", None), (b"retry: 1.5\n", None), (b"", None)],
)
def test_retry(lines: bytes, seconds: float | None) -> None:
    """`retry` is in milliseconds; only digits are valid."""
    stream = EventStreamParser()
    stream.feed(lines + b"retry: " + b"9" * 5000 + b"\n")
    assert stream.retry == seconds
