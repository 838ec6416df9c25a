"""The options of `opstream list` and `opstream count`: the filter that they make, and how rows look."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from opstream.cli.app import main
from opstream.cli.lists.selection import Selection, filter_of, order_of
from opstream.terminal.list_row import HEADING, ListedOperation, list_row
from opstream_index.filters.checks import check_indexed, parse_filter
from opstream_schemas.events import OperationError
from tests.support.client.scripted_server import ScriptedServer, json_answer

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (Selection(), ""),
        (Selection(statuses=("Failed",)), "status eq 'Failed'"),
        (Selection(statuses=("Failed", "Running")), "status in ('Failed', 'Running')"),
        (
            Selection(actions=("book:print",), since=timedelta(hours=1)),
            "kind eq 'book:print' and createdAt ge 2026-11-30T07:00:00Z",
        ),
        (Selection(labels=("team=a=b", "x=it's")), "label/team eq 'a=b' and label/x eq 'it''s'"),
        (
            Selection(statuses=("Failed",), ended_since=timedelta(hours=1)),
            "status eq 'Failed' and finishedAt ge 2026-11-30T07:00:00Z",
        ),
        (Selection(resource_ids=("42", "a'b")), "resourceId in ('42', 'a''b')"),
        (Selection(codes=("503",), callers=("ann",)), "error/code eq '503' and caller eq 'ann'"),
        (Selection(condition="attempt gt 3 or attempt eq 1"), "attempt gt 3 or attempt eq 1"),
        (
            Selection(codes=("A",), condition="attempt gt 3 or attempt eq 1"),
            "error/code eq 'A' and (attempt gt 3 or attempt eq 1)",
        ),
    ],
)
def test_options_become_a_filter(selection: Selection, text: str) -> None:
    """One that the service takes."""
    assert filter_of(selection, NOW) == text
    if text and not text.startswith("attempt"):
        check_indexed(parse_filter(text), "createdAt")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--status", "Broken"], "is no status: write NotStarted, Running"),
        (["--action", "book"], "write RESOURCE:ACTION"),
        (["--label", "team"], "write KEY=VALUE"),
        (["--since", "yesterday"], "is not a time"),
        (["--limit", "0"], "write a whole number, at least 1"),
    ],
)
def test_usage_errors(arguments: list[str], complaint: str) -> None:
    """Nothing is sent, and the message says what to write."""
    result = CliRunner().invoke(main, ["list", *arguments])
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())


def test_what_ended_is_listed_in_that_order() -> None:
    """If only its end is bounded, since the service finds it by that; everything else in the usual order."""
    hour = timedelta(hours=1)
    assert order_of(Selection(ended_since=hour)) == "finishedAt desc"
    assert order_of(Selection(ended_since=hour, since=hour)) == order_of(Selection(since=hour)) == ""
    check_indexed(parse_filter(filter_of(Selection(ended_since=hour), NOW)), "finishedAt")


def page(*ids: str, link: str = "") -> Any:
    """The answer with a page."""
    return json_answer(200, {"value": [{"id": one} for one in ids]} | ({"nextLink": link} if link else {}))


def test_pages_are_followed() -> None:
    """By the query of the link alone, also if it names another host; `--limit` ends the list."""
    link = "https://elsewhere.test/status?cursor=abc&filter=x"
    with ScriptedServer(page("a", "b", link=link), page("c")) as server:
        result = CliRunner().invoke(main, ["list", "--url", server.url, "--status", "failed"])
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["id"] for line in result.output.splitlines()] == ["a", "b", "c"]
    with ScriptedServer(page("a", "b", link=link)) as server:
        assert CliRunner().invoke(main, ["list", "--url", server.url, "--limit", "1"]).output == '{"id":"a"}\n'


def test_what_changed_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--watch` prints each operation again when it has changed, the newest last, until Ctrl-C."""
    first = json_answer(200, {"value": [{"id": "b", "status": "Running"}, {"id": "a", "status": "Running"}]})
    second = json_answer(
        200, {"value": [{"id": n, "status": s} for n, s in (("c", "Running"), ("b", "Running"), ("a", "Failed"))]}
    )
    waits = iter([None, KeyboardInterrupt])

    def sleep(_seconds: float) -> None:
        if (error := next(waits)) is not None:
            raise error

    monkeypatch.setattr(time, "sleep", sleep)
    with ScriptedServer(first, second) as server:
        result = CliRunner().invoke(main, ["list", "--url", server.url, "--watch"])
    assert result.exit_code == 130
    shown = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["id"], one["status"]) for one in shown] == [
        *(("a", "Running"), ("b", "Running")),
        *(("a", "Failed"), ("c", "Running")),
    ]


def test_a_row() -> None:
    """What failed shows why; nothing of it can move the cursor."""
    failed = ListedOperation(
        id="x",
        status="Failed",
        kind="book:print",
        resource_id="42",
        error=OperationError(code=503, message="no\x1b paper"),
        created_at=NOW,
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=90),
    )
    text = list_row(failed, has_colour=False)
    assert " ".join(text.split()) == "2026-11-30 08:00:00 Failed 2 min x book:print 42: 503: no paper"
    assert "\x1b[31m" in list_row(failed, has_colour=True)
    assert HEADING.index("what") == text.index("book:print")
    assert list_row(ListedOperation(id="y"), has_colour=False).strip() == "y"
