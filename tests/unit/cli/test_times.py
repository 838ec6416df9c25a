"""Times as options accept them, and the options that select events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner

import opstream.cli.commands.audit
import opstream.cli.commands.export
import opstream.cli.commands.replay
from opstream.cli.app import main
from opstream.cli.options.value_types import EARLIEST_MOMENT, MomentType, resolve_moment
from opstream.history.event_reader import HistoryQuery
from opstream_schemas.event_filter import EventFilter, EventTypeFilter

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T15:30:00Z", datetime(2026, 11, 24, 15, 30, tzinfo=UTC)),
        ("2026-11-24t15:30:00z", datetime(2026, 11, 24, 15, 30, tzinfo=UTC)),
        ("2026-11-24 15:30:00.123456789+02:00", datetime(2026, 11, 24, 13, 30, 0, 123456, tzinfo=UTC)),
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("1.5h", NOW - timedelta(minutes=90)),
        ("3d", NOW - timedelta(days=3)),
        ("0s", NOW),
        ("99999999d", EARLIEST_MOMENT),
        ("0001-01-01", EARLIEST_MOMENT),
    ],
)
def test_times(text: str, time: datetime) -> None:
    """A date is its first moment in UTC, an age counts from now; no time is before 1970."""
    assert resolve_moment(MomentType().convert(text, None, None), NOW) == time


@pytest.mark.parametrize(
    "text",
    [
        *("", "90", "2026", "20261124", "2026-11-31", "2026-11-24T15:30:00", "2026-11-24T15:30Z", "2026-W48-2", "1w"),
        *("-1d", "yesterday", "9999-12-31T23:59:59-23:59", "2026-11-24T25:00:00Z", "9999999999d", "\u0663d"),
    ],
)
def test_invalid_times(text: str) -> None:
    """Other texts are refused with examples, also a time without a zone."""
    with pytest.raises(click.BadParameter, match=r"is not a time.*: write 2026-11-24"):
        MomentType().convert(text, None, None)


def test_no_limit() -> None:
    """Without the option there is no limit."""
    assert resolve_moment(None, NOW) is None


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings with which the commands would have run."""
    found: list[Any] = []
    for module, name in (
        (opstream.cli.commands.replay, "print_history"),
        (opstream.cli.commands.audit, "print_timeline"),
        (opstream.cli.commands.export, "write_parquet"),
    ):
        monkeypatch.setattr(module, name, found.append)
    return found


FILTERS = [
    *("--since", "2026-01-01", "--until", "2026-02-01", "--resource", "book", "--action", "book:up"),
    *("--type", "failed", "--type", "opstream.action.paused.v2", "--operation", "op-1"),
    *("--from-sequence", "7", "--from-archive"),
]
VARIABLES = {
    "SINCE": "2026-01-01",
    "UNTIL": "2026-02-01",
    "RESOURCE": "book",
    "ACTION": "book:up",
    "TYPE": "failed,opstream.action.paused.v2",
    "OPERATION": "op-1",
    "FROM_SEQUENCE": "7",
    "FROM_ARCHIVE": "true",
}
QUERY = HistoryQuery(
    event_filter=EventFilter(
        operation_id="op-1",
        resource="book",
        action="up",
        types=(EventTypeFilter("failed"), EventTypeFilter("paused", "opstream.action.paused.v2")),
    ),
    first=7,
    since=datetime(2026, 1, 1, tzinfo=UTC),
    until=datetime(2026, 2, 1, tzinfo=UTC),
    is_archive=True,
)


@pytest.mark.parametrize(
    ("command", "options", "variables"),
    [
        ("replay", ["--format", "records"], {"FORMAT": "records"}),
        ("export", ["--overwrite"], {"OVERWRITE": "true"}),
    ],
)
def test_the_query(given: list[Any], command: str, options: list[str], variables: dict[str, str]) -> None:
    """Replay and export take the same filters, from options or from the environment."""
    arguments = [command, "file.parquet"] if command == "export" else [command]
    environment = {f"OPSTREAM_{name}": value for name, value in (VARIABLES | variables).items()}
    nats = {"--nats": "nats://a:1", "--connect-timeout": "5"}
    by_option = CliRunner().invoke(
        main, [*arguments, *FILTERS, *options, *(one for pair in nats.items() for one in pair)]
    )
    environment |= {"OPSTREAM_NATS_URL": "nats://a:1", "OPSTREAM_CONNECT_TIMEOUT": "5"}
    by_variable = CliRunner().invoke(main, arguments, env=environment)
    assert (by_option.output, by_variable.output) == ("", "")
    assert given[0] == given[1]
    assert given[0].query == QUERY
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert given[2].query == HistoryQuery()


def test_follow(given: list[Any]) -> None:
    """Following is part of the query."""
    assert CliRunner().invoke(main, ["replay", "--follow", "--action", "book:*"]).exit_code == 0
    assert given[0].query == HistoryQuery(event_filter=EventFilter(resource="book"), is_following=True)


def test_audit(given: list[Any]) -> None:
    """The query has the id; where to search for it is for the archive only."""
    filters = ["--since", "2026-01-01", "--action", "book:*"]
    arguments = ["audit", "op-1", "--from-archive", *filters, "--json", "--with-data"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    (settings,) = given
    assert settings.query == HistoryQuery(
        event_filter=EventFilter(operation_id="op-1", resource="book"),
        since=datetime(2026, 1, 1, tzinfo=UTC),
        is_archive=True,
    )
    assert (settings.operation_id, settings.is_json, settings.is_whole) == ("op-1", True, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["replay", "--since", "soon"], "is not a time: write 2026-11-24"),
        (["replay", "--since", "1h", "--until", "2h"], "is not before --until"),
        (["replay", "--follow", "--until", "1h"], "--follow never ends"),
        (["replay", "--resource", "Book"], "resource name 'Book' must be"),
        (["replay", "--action", "book"], "is not an action: write RESOURCE:ACTION"),
        (["replay", "--resource", "book", "--action", "author:*"], "have nothing in common"),
        (["replay", "--type", "suceeded"], "is not a type of event"),
        (["replay", "--operation", "a.b"], "operation id 'a.b' must be"),
        (["replay", "--from-sequence", "0"], "x>=1"),
        (["replay", "--format", "xml"], "is not one of"),
        (["replay", "--nats", "http://x"], "is not a broker's URL"),
        (["audit"], "it needs the ID of an operation"),
        (["audit", "a b"], "operation id 'a b' must be"),
        (["audit", "op-1", "--since", "1h"], "are for the archive: add --from-archive"),
        (["export"], "Missing argument 'FILE.parquet'"),
        (["export", "/"], "is a directory"),
    ],
)
def test_usage_errors(given: list[Any], arguments: list[str], complaint: str) -> None:
    """Invalid options are refused with exit status 2 before a connection is made."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
    assert given == []
