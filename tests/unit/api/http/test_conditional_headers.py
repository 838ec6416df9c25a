"""The headers of reads."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.errors import ApiError
from opstream_api.http.conditional_headers import (
    MAX_WAIT,
    etag_matches,
    last_event_position,
    wait_seconds,
    wants_stream,
)
from opstream_api.http.requests import parse_headers
from opstream_schemas.errors import ErrorCode

pytestmark = pytest.mark.unit

TAG = '"abc"'


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([], None),
        (["wait=10"], 10),
        (["respond-async, wait=10"], 10),
        (["respond-async,wait=10;x=y, other"], 10),
        (["WAIT = 10"], 10),
        (['wait="10"'], 10),
        (["respond-async", "wait=7"], 7),
        (["wait=3, wait=9"], 3),
        (["wait=0"], 0),
        ([f"wait={MAX_WAIT + 1}"], MAX_WAIT),
        (["wait=999999999"], MAX_WAIT),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=soon"], None),
        (["wait"], None),
        (['foo="a, wait=2", wait=3'], 3),
        (['foo="a, wait=2"'], None),
        (["await=5"], None),
        (["wait=9999999999999999999999"], MAX_WAIT),
        (['wait="9999999999999999999999"'], MAX_WAIT),
        (['wait="1'], None),
        (['wait=1"'], None),
        (["wait=١٢"], None),
    ],
)
def test_wait(values: list[str], seconds: int | None) -> None:
    """RFC 7240: the first preference counts, an unknown one is ignored. The wait is never longer than the limit."""
    assert wait_seconds(parse_headers((b"prefer", value.encode()) for value in values)) == seconds


@given(st.binary(max_size=80))
def test_prefer_never_fails(value: bytes) -> None:
    """Any header gives a number of seconds within the limit."""
    assert 0 <= (wait_seconds(parse_headers([(b"prefer", value)])) or 0) <= MAX_WAIT


@pytest.mark.parametrize(
    ("values", "is_match"),
    [
        ([], False),
        ([TAG], True),
        ([f"W/{TAG}"], True),
        ([f'"x", {TAG}'], True),
        (['"x"', TAG], True),
        (['"x,y",' + TAG], True),
        (["*"], True),
        (['"abcd"'], False),
        (["abc"], False),
        (['"x"'], False),
        ([""], False),
    ],
)
def test_if_none_match(values: list[str], is_match: bool) -> None:
    """RFC 9110: a list with weak comparison; `*` matches everything."""
    assert etag_matches(parse_headers((b"if-none-match", value.encode()) for value in values), TAG) is is_match


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream, */*;q=0.1", True),
        ("text/event-stream;q=0.5", True),
        ("application/json;q=0.1, text/event-stream;charset=utf-8;q=0.5", True),
        ("application/json, text/event-stream", True),
        ("application/json, text/event-stream;q=0.5", False),
        ("application/*, text/event-stream;q=0.5", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=abc", False),
        ("text/event-stream;q=", False),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        ("text/html", False),
        (";;;,,q=", False),
    ],
)
def test_accept(accept: str, is_stream: bool) -> None:
    """Only a client that asks for events, and does not prefer JSON, gets a stream."""
    assert wants_stream(parse_headers([(b"accept", accept.encode())])) is is_stream


@pytest.mark.parametrize(("value", "position"), [(None, 0), ("", 0), ("0", 0), ("12", 12)])
def test_last_event_id(value: str | None, position: int) -> None:
    """The position of the last event that the client has. A browser sends an empty one before the first event."""
    given_headers = parse_headers([(b"last-event-id", value.encode())] if value is not None else [])
    assert last_event_position(given_headers) == position


@pytest.mark.parametrize("values", [["-1"], ["1.0"], ["x"], ["1" * 16], ["1", "2"], ["\u0661"]])
def test_an_invalid_last_event_id_is_refused(values: list[str]) -> None:
    """An id that no stream of the service has sent is refused."""
    with pytest.raises(ApiError) as caught:
        last_event_position(parse_headers((b"last-event-id", value.encode()) for value in values))
    assert caught.value.code is ErrorCode.INVALID_HEADER
    assert caught.value.body.error.target == "Last-Event-ID"


@pytest.mark.parametrize(
    "value", ["," * 32_000, "a;" * 16_000, '"' * 32_000, "text/event-stream;q=0.1," * 1_300, " " * 32_000]
)
def test_a_long_header_costs_little(value: str) -> None:
    """The whole head may be one of these headers."""
    before = time.thread_time()
    wants_stream({b"accept": [value]})
    wait_seconds({b"prefer": [value]})
    etag_matches({b"if-none-match": [value]}, '"a"')
    assert time.thread_time() - before < 0.05
