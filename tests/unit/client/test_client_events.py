"""Following an operation's events: each once, in order, over broken connections."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream.client.errors import ServiceUnavailable, UnexpectedAnswer
from opstream.client.io_requests import NoResponse, ServiceResponse
from opstream_schemas.events import Progressed, Started, Succeeded
from tests.support.client.flow_driver import BASE, After, World, refusal, reply

pytestmark = pytest.mark.unit

CUT = NoResponse("the connection broke")
END = b""
OPEN = reply(200, None, content_type="text/event-stream; charset=utf-8")
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("started", {"attempt": 1, "runner": "r", "token": "t", "ticket": 1, "lease": 30.0}),
    ("progressed", {"percent": 50.0, "message": "half"}),
    ("melted", {"new": True}),
    ("succeeded", {"result": {"n": 1}}),
]
"""The events of the tests' operation; one has an unknown type."""


def stored(position: int) -> bytes:
    """An event as the journal holds it."""
    name, data = KINDS[position - 1]
    event = {
        "specversion": "1.0",
        "id": f"event-{position}",
        "source": "test",
        "type": f"opstream.action.{name}.v1",
        "subject": "x",
        "time": f"2026-11-24T10:00:0{position}Z",
        "datacontenttype": "application/json",
        "position": position,
        "previoushash": "",
        "data": data,
    }
    return msgspec.json.encode(event)


def frame(*positions: int) -> bytes:
    """Events as the service sends them."""
    return b"".join(
        f"id: {position}\nevent: {KINDS[position - 1][0]}\ndata: ".encode() + stored(position) + b"\n\n"
        for position in positions
    )


def follow(*outcomes: Any, after: int = 0, timeout: float | None = None) -> World:
    world = World(*outcomes)
    world.run(world.flows.follow("x", after=after, timeout=timeout))
    assert world.is_used_up
    return world


def positions(world: World) -> list[int]:
    return [event.position for event in world.delivered]


def test_a_stream() -> None:
    """One request; each event is decoded with its position, name, time and data; the terminal one ends the call."""
    world = follow(OPEN, b"retry: 1000\n\n" + frame(1, 2), b": still following\n\n", frame(3), frame(4))
    (sent,) = world.sent
    assert (sent.method, sent.url, sent.is_stream) == ("GET", f"{BASE}/status/x/events", True)
    assert (sent.headers["Accept"], "Last-Event-ID" in sent.headers) == ("text/event-stream", False)
    assert [(event.position, event.name) for event in world.delivered] == [
        (1, "started"),
        (2, "progressed"),
        (3, "melted"),
        (4, "succeeded"),
    ]
    first, second, third, fourth = world.delivered
    assert isinstance(first.data, Started)
    assert second.data == Progressed(percent=50.0, message="half")
    assert third.data is None
    assert isinstance(fourth.data, Succeeded)
    assert (f"{first.time:%H:%M:%S%z}", first.stored) == ("10:00:01+0000", stored(1))


@pytest.mark.parametrize("end", [CUT, END], ids=["cut", "ended"])
def test_a_stream_that_is_resumed(end: Any) -> None:
    """The next request names the last complete event; an incomplete one comes again and is delivered once."""
    world = follow(
        OPEN, b"retry: 500\n\n", frame(1) + frame(2)[:-5], end, CUT, OPEN, frame(1, 2), frame(3), end, OPEN, frame(4)
    )
    assert positions(world) == [1, 2, 3, 4]
    assert world.asked("Last-Event-ID") == [None, "1", "1", "3"]
    assert world.sleeps == [0.7, 0.4, 0.2]
    assert len(world.troubles) == 3


def test_no_more_events() -> None:
    """204 means that the client has the last event of the ended operation; the call ends."""
    assert follow(OPEN, frame(1, 2, 3), CUT, reply(204)).delivered[-1].position == 3
    world = follow(reply(204), after=4)
    assert (positions(world), world.asked("Last-Event-ID")) == ([], ["4"])


def test_a_terminal_event_that_is_known() -> None:
    """A terminal event that the client has ends the call, and is not delivered again."""
    assert positions(follow(OPEN, frame(3, 4), after=4)) == []


def test_a_service_that_is_away() -> None:
    """The client tries again as long as data comes now and then; then it gives up."""
    sign = [After(50, b": still following\n\n"), CUT, OPEN]
    world = World(OPEN, *sign * 5, After(50, frame(1)), CUT, *[After(20, CUT)] * 3)
    with pytest.raises(ServiceUnavailable, match="after= the position") as caught:
        world.run(world.flows.follow("x", after=0, timeout=60.0))
    assert (positions(world), caught.value.operation_id) == ([1], "x")
    assert world.now - 1000 > 300


def test_a_stream_that_breaks_again_and_again() -> None:
    """Without events the pauses grow: comments are no progress."""
    world = follow(*[OPEN, b": hello\n\n", CUT] * 6, OPEN, frame(4))
    assert world.sleeps == [0.2, 0.4, 0.8, 1.6, 3.2, 5]


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([reply(200, b"<html>", content_type="text/html")], "not from opstream"),
        ([reply(200, {"value": []}, content_type="application/json")], r"a proxy .* proxy_http_version 1\.1"),
        ([refusal(500, "InternalError")], "the service failed"),
        ([OPEN, b"data: {}\n\n"], "this version can't read"),
        ([OPEN, b"data: nonsense\n\n"], "this version can't read"),
    ],
)
def test_what_is_no_stream_of_events(outcomes: list[Any], text: str) -> None:
    """A response that is no stream of events raises UnexpectedAnswer."""
    world = World(*outcomes)
    with pytest.raises(UnexpectedAnswer, match=text):
        world.run(world.flows.follow("x", after=0, timeout=None))


def test_a_history() -> None:
    """Without `follow` it is one document; events up to `after` are left out."""
    document = reply(200, {"value": [msgspec.Raw(stored(n)) for n in (1, 2, 3)]})
    world = World(CUT, document)
    world.run(world.flows.history("x", after=1, timeout=60.0))
    assert positions(world) == [2, 3]
    assert [event.stored for event in world.delivered] == [stored(2), stored(3)]
    assert world.asked("Accept") == ["application/json"] * 2


@pytest.mark.parametrize("body", [b"[]", b'{"value": [{}]}', b'{"value": 1}', b"\xff"])
def test_what_is_no_history(body: bytes) -> None:
    """A response that is no history raises UnexpectedAnswer."""
    world = World(reply(200, body))
    with pytest.raises(UnexpectedAnswer, match="not from opstream"):
        world.run(world.flows.history("x", after=0, timeout=60.0))


ROUNDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, len(frame(1, 2, 3, 4)) - 1), st.sampled_from([CUT, END])))


@given(rounds=ROUNDS)
def test_any_cuts(rounds: list[tuple[int, int, NoResponse | bytes]]) -> None:
    """A stream cut anywhere and replayed from any earlier position delivers each event once, in order."""
    outcomes: list[ServiceResponse | NoResponse | bytes] = []
    have = 0
    for place, cut, end in rounds:
        replayed = range(min(place, have) + 1, 5)
        sent = frame(*replayed)[: min(cut, len(frame(*replayed)) - 1)]
        whole = [position for position in replayed if len(frame(*range(replayed[0], position + 1))) <= len(sent)]
        have = max([have, *whole])
        outcomes += [OPEN, *([sent] if sent else []), end]
    world = follow(*outcomes, OPEN, frame(*range(have + 1, 5)))
    assert positions(world) == [1, 2, 3, 4]
    assert world.asked("Last-Event-ID")[-1] == (str(have) if have else None)
