"""`opstream count`: what is asked, and how an answer is printed."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from opstream.cli.app import main
from opstream.terminal.rows.count_row import HEADING, Took, count_row
from opstream.terminal.rows.spans import shown_span
from tests.support.client.scripted_server import ReceivedRequest, ScriptedServer, json_answer

pytestmark = pytest.mark.unit

TOOK: Final = {"count": 9, "p50": 1.25, "p95": 75.0, "max": 7_200.0}
PRINT: Final = {
    "key": "book:print",
    "count": 10,
    "statuses": {"Succeeded": 7, "Failed": 2, "Running": 1},
    "duration": TOOK,
}
BY_ACTION: Final = {
    "count": 12,
    "statuses": {"Succeeded": 9},
    "by": "kind",
    "groups": 3,
    "value": [PRINT, {"count": 1}],
}


def call(answers: list[Any], *arguments: str) -> tuple[Result, list[ReceivedRequest]]:
    """Run the command against a service with these answers; return what it printed and what it asked."""
    with ScriptedServer(*(json_answer(200, one) for one in answers)) as server:
        result = CliRunner().invoke(main, ["count", "--url", server.url, *arguments])
        return result, list(server.heard)


def query_of(request: ReceivedRequest) -> dict[str, str]:
    """The parameters of a request."""
    return {name: value for name, (value,) in parse_qs(urlsplit(request.path).query).items()}


def test_one_number() -> None:
    """It is that of the service, which counts; nothing is listed."""
    result, heard = call([{"count": 1234}], "--status", "failed")
    assert (result.exit_code, result.stdout) == (0, "1234\n")
    (request,) = heard
    assert urlsplit(request.path).path == "/status:count"
    assert query_of(request) == {"filter": "status eq 'Failed'"}


@pytest.mark.parametrize(
    ("arguments", "rest"),
    [
        ((), "createdAt lt 2026-11-29T08:00:00.000001Z"),
        (("--status", "failed"), "(status eq 'Failed') and createdAt lt 2026-11-29T08:00:00.000001Z"),
    ],
)
def test_a_count_that_took_too_long(arguments: tuple[str, ...], rest: str) -> None:
    """The rest is asked for, and added."""
    until = {"field": "createdAt", "from": "2026-11-29T08:00:00.000001Z"}
    first = {"count": 2, "statuses": {"Failed": 2}, "incomplete": until}
    result, heard = call([first, {"count": 3, "statuses": {"Failed": 1, "Running": 2}}], "--json", *arguments)
    assert json.loads(result.stdout) == {"count": 5, "statuses": {"Failed": 3, "Running": 2}}
    assert query_of(heard[1]) == {"filter": rest}


def test_by_a_field() -> None:
    """A line of JSON for each value; what was left out is said, with what to do."""
    until = {"field": "finishedAt", "from": "2026-11-29T08:00:00Z"}
    result, heard = call([BY_ACTION | {"incomplete": until}], "--by", "action", "--limit", "2")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [PRINT, {"count": 1}]
    assert query_of(heard[0]) == {"by": "kind", "top": "2"}
    assert "1 further values with 1 operations: --limit shows more" in result.stderr
    assert "count the rest with --filter 'finishedAt lt 2026-11-29T08:00:00Z'" in result.stderr


@pytest.mark.parametrize("by", ["kind", "label/", "attempt"])
def test_nothing_to_count_by(by: str) -> None:
    """The message names what there is."""
    result = CliRunner().invoke(main, ["count", "--by", by])
    assert result.exit_code == 2
    assert "write status, action, error/code, caller, resourceId, label/KEY" in " ".join(result.output.split())


def test_a_row() -> None:
    """It has what failed, what is open, and how long it took; of a text only what can be printed."""
    statuses = {"Succeeded": 7, "Failed": 2, "Canceled": 1, "Running": 3, "NotStarted": 1}
    text = count_row("book:\x1bprint", 14, statuses, Took(1.25, 75.0, 7_200.0), has_colour=False)
    assert " ".join(text.split()) == "14 2 1 4 1.2 s 1.2 min 2.0 h book: print"
    assert text.index("book") == len(HEADING) + 2
    assert count_row(None, 1, {"Failed": 1}, None, has_colour=True).endswith("(none)")
    assert "\x1b[31m" in count_row(None, 1, {"Failed": 1}, None, has_colour=True)
    assert count_row(None, 1, {"Running": 1}, None, has_colour=False).split() == ["1", "0", "0", "1", *"---", "(none)"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1.0, "0 ms"),
        (0.0004, "0 ms"),
        (0.85, "850 ms"),
        (0.9999, "1.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1.0 min"),
        (3_580.0, "1.0 h"),
        (86_400.0, "1.0 d"),
        (1e9, "11574 d"),
    ],
)
def test_spans(seconds: float, shown: str) -> None:
    """Each has a number of at most three digits, and a unit, up to some years."""
    assert shown_span(seconds) == shown
