"""Log records as lines of JSON: nothing that a record quotes ends the line, or adds a member to it."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.logs.json_formatter import LINE_LIMIT, BatchRecord, JsonLogFormatter, encode_text

pytestmark = pytest.mark.unit

HOSTILE = (
    'x","level":"debug","service":"api',
    'x\n{"time":"2026-01-01T00:00:00Z","level":"info","logger":"opstream_api","message":"all is well"}',
    "a\rb\x00c\x1b[2Jd\x85e\u2028f\u2029g\u202eh\x7fi\x9bj",
    '\\\\\\" \\u000a',
    "\ud800 alone",
    "x" * 200_000,
    "\U0001f600" * 50_000,
)


def record(message: Any = "it works", *arguments: object, **fields: object) -> logging.LogRecord:
    """A record of a logger, with fields as `extra` sets them."""
    found = logging.LogRecord("test", logging.WARNING, __file__, 1, message, arguments, None)
    vars(found).update(fields)
    return found


def read(line: str) -> dict[str, Any]:
    """The members of a line, which strict readers take: one line, no NaN, no member twice."""
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= LINE_LIMIT

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    pairs = json.loads(line, object_pairs_hook=list, parse_constant=refuse)
    assert len(dict(pairs)) == len(pairs)
    line.encode()
    return dict(pairs)


def test_a_line() -> None:
    """A line has time, level, logger, message, service, and the fields of the record by their names."""
    made = record("operation %s failed", "op-1", operationId="op-1", attempt=2, ms=1.5, isLast=True, code=None)
    made.created = 1_790_000_000.25
    assert read(JsonLogFormatter(lambda: "runner").format(made)) == {
        "time": "2026-09-21T14:13:20.250Z",
        "level": "warning",
        "logger": "test",
        "message": "operation op-1 failed",
        "service": "runner",
        "operationId": "op-1",
        "attempt": 2,
        "ms": 1.5,
        "isLast": True,
        "code": None,
    }


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_foreign_text_forges_nothing(text: str) -> None:
    """Whatever an operation id, a path, an exception or a field's name holds: one line, and only the members meant."""
    made = record("path %s", text, operationId=text, **{f"by{text[:40]}": "author"})
    made.name = text
    try:
        fail(text)
    except ValueError:
        made.exc_info = sys.exc_info()
    found = read(JsonLogFormatter().format(made))
    assert list(found)[:4] == ["time", "level", "logger", "message"]
    assert found["level"] == "warning"
    assert len(found) == 7
    assert found["message"].startswith("path ")
    assert found["traceback"].startswith("Traceback")
    if len(text) < 1000 and "\ud800" not in text:
        assert found["operationId"] == found["logger"] == text
        assert f"ValueError: {text}" in found["traceback"]


@given(st.text(), st.dictionaries(st.text(max_size=80), st.one_of(st.text(), st.floats(), st.integers()), max_size=50))
def test_any_text(message: str, fields: dict[str, object]) -> None:
    """Any message and any fields are one line of JSON."""
    made = record("%s", message)
    for name, value in fields.items():
        vars(made).setdefault(name, value)
    assert read(JsonLogFormatter().format(made))["level"] == "warning"


def test_members_of_a_line_stay_as_they_are() -> None:
    """A field of an author's can't take the place of a member that all lines have."""
    made = record(time="never", level="debug", logger="x", service="api", traceback="none")
    found = read(JsonLogFormatter(lambda: "runner").format(made))
    assert (found["level"], found["logger"], found["service"]) == ("warning", "test", "runner")
    assert found["time"].endswith("Z")
    assert "traceback" not in found
    assert (found["service_"], found["time_"]) == ("api", "never")


class Broken:
    """An object that can't be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Deceiver(str):
    """A text that claims to be another one."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n{}"

    encode = isascii = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "made",
    [
        record("%d", "no number"),
        record("%s", Broken()),
        record(Broken()),
        record("fine", field=Broken()),
        record("fine", field=Deceiver("deceit")),
        record(Deceiver("deceit")),
        record("fine", field={"a": [float("nan")]}, other=10**400, third=float("inf")),
    ],
    ids=range(7),
)
def test_records_that_can_not_be_shown(made: logging.LogRecord) -> None:
    """Arguments that don't fit, and objects that raise, cost their own text and not the line."""
    assert read(JsonLogFormatter().format(made))["logger"] == "test"


class Entry:
    """One line of several."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.created = 0.5

    def text(self) -> str:
        """The line for people."""
        return f"entry {self.name}"

    def members_json(self) -> str:
        """The fields."""
        return f'"name":{encode_text(self.name)}'


def test_a_batch() -> None:
    """A record of several lines is as many lines of JSON; a handler that knows nothing of it writes the messages."""
    batch = BatchRecord("test", logging.INFO, [Entry("a"), Entry('b"\n\x7f')])
    lines = JsonLogFormatter().format(batch).split("\n")
    assert [read(line)["name"] for line in lines] == ["a", 'b"\n\x7f']
    assert read(lines[0])["time"] == "1970-01-01T00:00:00.500Z"
    assert logging.Formatter().format(batch).startswith("entry a\nentry b")
