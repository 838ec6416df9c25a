"""The commands of operations: their options, and how an operation is displayed while it is followed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import opstream.cli.commands.cancel
import opstream.cli.commands.events
import opstream.cli.commands.fail
import opstream.cli.commands.retry
import opstream.cli.commands.run
import opstream.cli.commands.status
from opstream.cli.app import main
from opstream.cli.commands.cancel import CancelSettings
from opstream.cli.commands.events import EventsSettings
from opstream.cli.commands.fail import FailSettings
from opstream.cli.commands.retry import RetrySettings
from opstream.cli.commands.run import RunSettings
from opstream.cli.commands.status import StatusSettings
from opstream.cli.lists.bulk import BulkSettings
from opstream.cli.lists.selection import Selection
from opstream.terminal.event_row import event_row
from opstream.terminal.operation_display import BarDisplay, LineDisplay, make_operation_display
from opstream_schemas.events import AttemptFailed, CancelRequested, EventData, OperationError, Progressed
from opstream_schemas.operation.state import Status
from opstream_schemas.status_monitor import BlockedBy, StatusMonitor, WaitingReason

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 10, 0, 5, tzinfo=UTC)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The settings with which the commands would have run."""
    found: list[Any] = []
    monkeypatch.setattr(opstream.cli.commands.run, "submit_and_follow", found.append)
    monkeypatch.setattr(opstream.cli.commands.status, "print_status", found.append)
    monkeypatch.setattr(opstream.cli.commands.cancel, "cancel_operation", found.append)
    monkeypatch.setattr(opstream.cli.commands.retry, "retry_operation", found.append)
    monkeypatch.setattr(opstream.cli.commands.events, "print_events", found.append)
    monkeypatch.setattr(opstream.cli.commands.fail, "fail_operation", found.append)
    return found


CASES: list[tuple[list[str], list[str], dict[str, str], Any]] = [
    (
        ["run", "book/42:start"],
        [
            *("--input", '{"a": 1}', "--operation-id", "x", "--callback", "https://c.test/d", "--timeout", "5m"),
            *("--detach", "--url", "https://a.test/b/", "--label", "team=press", "--label", "run=7 of 9,x=y"),
        ],
        {
            "INPUT": '{"a": 1}',
            "OPERATION_ID": "x",
            "CALLBACK": "https://c.test/d",
            "LABEL": "team=press, run=7 of 9, x=y",
            "TIMEOUT": "5m",
            "DETACH": "1",
            "URL": "https://a.test/b",
        },
        RunSettings(
            target="book/42:start",
            action_input=b'{"a": 1}',
            operation_id="x",
            callback="https://c.test/d",
            labels={"team": "press", "run": "7 of 9", "x": "y"},
            timeout=300.0,
            is_detached=True,
            url="https://a.test/b",
        ),
    ),
    (
        ["status", "x"],
        ["--wait", "--timeout", "5", "--url", "http://a.test"],
        {"WAIT": "true", "TIMEOUT": "5", "URL": "http://a.test"},
        StatusSettings(operation_id="x", is_waiting=True, timeout=5.0, url="http://a.test"),
    ),
    (
        ["cancel", "x"],
        ["--reason", "slow", "--wait", "--timeout", "5", "--url", "http://a.test"],
        {"REASON": "slow", "WAIT": "true", "TIMEOUT": "5", "URL": "http://a.test"},
        CancelSettings(operation_id="x", reason="slow", is_waiting=True, timeout=5.0, url="http://a.test"),
    ),
    (
        ["retry", "x"],
        ["--wait", "--timeout", "5", "--url", "http://a.test"],
        {"WAIT": "true", "TIMEOUT": "5", "URL": "http://a.test"},
        RetrySettings(operation_id="x", is_waiting=True, timeout=5.0, url="http://a.test"),
    ),
    (
        ["retry"],
        ["--action", "a:b", "--filter", "attempt gt 1", "--dry-run", "--per-second", "9", "--url", "http://a.test"],
        {"ACTION": "a:b", "FILTER": "attempt gt 1", "DRY_RUN": "1", "PER_SECOND": "9", "URL": "http://a.test"},
        RetrySettings(
            operation_id="",
            is_waiting=False,
            timeout=None,
            url="http://a.test",
            bulk=BulkSettings(
                selection=Selection(statuses=("Failed",), actions=("a:b",), condition="attempt gt 1"),
                is_dry_run=True,
                per_second=9,
            ),
        ),
    ),
    (
        ["retry"],
        ["--filter", "status ne 'Running'", "--url", "http://a.test"],
        {"FILTER": "status ne 'Running'", "URL": "http://a.test"},
        RetrySettings(
            operation_id="",
            is_waiting=False,
            timeout=None,
            url="http://a.test",
            bulk=BulkSettings(selection=Selection(condition="status ne 'Running'")),
        ),
    ),
    (
        ["events", "x"],
        ["--follow", "--json", "--url", "http://a.test"],
        {"FOLLOW": "true", "JSON": "true", "URL": "http://a.test"},
        EventsSettings(operation_id="x", is_following=True, is_json=True, url="http://a.test"),
    ),
    (
        ["fail", "x"],
        ["--force", "--reason", "slow", "--nats", "nats://a.test", "--nats", "nats://b.test", "--connect-timeout", "5"],
        {"FORCE": "1", "REASON": "slow", "NATS_URL": "nats://a.test nats://b.test", "CONNECT_TIMEOUT": "5"},
        FailSettings(
            operation_id="x",
            reason="slow",
            is_forced=True,
            servers=("nats://a.test", "nats://b.test"),
            connect_timeout=5.0,
        ),
    ),
]


@pytest.mark.parametrize(("command", "options", "variables", "settings"), CASES, ids=[case[0][0] for case in CASES])
def test_variables_are_read_as_options(
    given: list[Any], command: list[str], options: list[str], variables: dict[str, str], settings: Any
) -> None:
    """Each option has a variable `OPSTREAM_…`, read exactly as the option is."""
    environment = {f"OPSTREAM_{name}": value for name, value in variables.items()}
    by_option = CliRunner().invoke(main, [*command, *options])
    by_variable = CliRunner().invoke(main, command, env=environment)
    assert (by_option.exit_code, by_option.output) == (0, "")
    assert (by_variable.exit_code, by_variable.output) == (0, "")
    assert given == [settings, settings]


def test_defaults(given: list[Any]) -> None:
    """The defaults are the service of `opstream up`, no input and no timeout; nothing is followed unless requested."""
    for command in (["run", "book:reindex"], ["status", "x"], ["cancel", "x"], ["events", "x"]):
        assert CliRunner().invoke(main, command).exit_code == 0
    url = "http://127.0.0.1:8080"
    assert given == [
        RunSettings(
            target="book:reindex", action_input=b"{}", operation_id=None, timeout=None, is_detached=False, url=url
        ),
        StatusSettings(operation_id="x", is_waiting=False, timeout=None, url=url),
        CancelSettings(operation_id="x", reason="", is_waiting=False, timeout=None, url=url),
        EventsSettings(operation_id="x", is_following=False, is_json=False, url=url),
    ]


def test_where_the_input_comes_from(given: list[Any], tmp_path: Path) -> None:
    """JSON on the command line, in a file or from standard input; always the same bytes."""
    text = '{"a":  "ü"}\n'
    (tmp_path / "input.json").write_text(text, encoding="utf-8")
    for value in (text, f"@{tmp_path / 'input.json'}", "-", "@-"):
        result = CliRunner().invoke(main, ["run", "book:reindex", "--input", value], input=text)
        assert result.exit_code == 0, result.output
    assert [settings.action_input for settings in given] == [text.encode()] * 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "Missing argument 'TARGET'"),
        (["run", "a:b", "--input", "{"], "it is not JSON"),
        (["run", "a:b", "--input", ""], "it is empty: write a value"),
        (["run", "a:b", "--input", "@nowhere.json"], "nowhere.json can't be read (No such file or directory)"),
        (["run", "a:b", "--input", "@"], "can't be read"),
        (["run", "a:b", "--input", f"@{__file__}"], "test_client_commands.py is not JSON"),
        (["run", "a:b", "--input", "-"], "it is not JSON"),
        (["run", "a:b", "--url", "a.test"], "is not a base URL"),
        (["run", "a:b", "--timeout", "0"], "is not a duration"),
        (["status"], "Missing argument 'ID'"),
        (["retry"], "name the ID of an operation, or options that select some"),
        (["retry", "--dry-run"], "name the ID of an operation, or options that select some"),
        (["cancel", "x", "--status", "Running"], "name either an ID, or options that select operations"),
        (["retry", "x", "--dry-run"], "name either an ID, or options that select operations"),
        (["retry", "--status", "Failed", "--per-second", "0"], "is not in the range"),
        (["status", "x", "--follow"], "No such option"),
    ],
)
def test_usage_errors(given: list[Any], arguments: list[str], complaint: str) -> None:
    """Invalid options are refused with exit status 2 before a request is sent."""
    result = CliRunner().invoke(main, arguments, input="nonsense")
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
    assert given == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "book"], "'book' is no target: it names no action"),
        (["run", "book:start", "--operation-id", "a b"], "operation id 'a b' must be"),
        (["status", "a/b"], "operation id 'a/b' must be"),
        (["status", "a/b", "--wait"], "operation id 'a/b' must be"),
        (["cancel", "a:cancel"], "operation id 'a:cancel' must be"),
        (["events", ""], "operation id '' must be"),
        (["events", "..", "--follow"], "operation id '..' must be"),
    ],
)
def test_invalid_targets_and_ids(arguments: list[str], complaint: str) -> None:
    """Targets and ids that can't exist are refused with exit status 2, and no request is sent."""
    result = CliRunner().invoke(main, [*arguments, "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 2
    assert complaint in result.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def monitor(status: Status = Status.RUNNING, **members: Any) -> StatusMonitor:
    return StatusMonitor(id="x", status=status, **members)


def test_a_display_for_each_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bar where a line can be redrawn, otherwise lines."""
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_operation_display(Terminal(), Clock(), lambda: NOW), BarDisplay)
    assert isinstance(make_operation_display(io.StringIO(), Clock(), lambda: NOW), LineDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_operation_display(Terminal(), Clock(), lambda: NOW), LineDisplay)


def test_lines() -> None:
    """There is one for each change, with the time, the status, the progress and the action's message."""
    stream = io.StringIO()
    with LineDisplay(stream, Clock(), lambda: NOW) as lines:
        lines.show(monitor(Status.NOT_STARTED))
        lines.show(monitor(Status.NOT_STARTED, queue_position=3))
        for reason in (*WaitingReason, "Moon"):
            lines.show(monitor(Status.NOT_STARTED, waiting_for=reason))
        lines.show(monitor(waiting_for=WaitingReason.START_TIME, start_at=NOW))
        lines.show(monitor(percent_complete=7.4, message="one\ntwo\x1b[2J"))
        lines.show(monitor(percent_complete=8, message="old", cancel_requested=True))
        lines.show(monitor(percent_complete=100, attempt=2, retry_at=NOW.replace(minute=1), message="old"))
        lines.show(monitor(Status.SUCCEEDED, percent_complete=40, message="old"))
    assert stream.getvalue().splitlines() == [
        "2026-11-24T10:00:05Z  NotStarted",
        "2026-11-24T10:00:05Z  NotStarted         number 3 in the queue for its resource",
        "2026-11-24T10:00:05Z  NotStarted         no runner takes operations of this action now",
        "2026-11-24T10:00:05Z  NotStarted         all runners of this action are busy",
        "2026-11-24T10:00:05Z  NotStarted         this action runs as many times at once as it may",
        "2026-11-24T10:00:05Z  NotStarted         this action starts no more often than its rate allows",
        "2026-11-24T10:00:05Z  NotStarted         another operation has its resource",
        "2026-11-24T10:00:05Z  NotStarted         its start time has not come",
        "2026-11-24T10:00:05Z  NotStarted         the last attempt failed, and the next one has not begun",
        "2026-11-24T10:00:05Z  NotStarted         no runner has the version of this action that it was requested for",
        "2026-11-24T10:00:05Z  NotStarted         an operator has paused this action",
        "2026-11-24T10:00:05Z  NotStarted         its action waits for a time",
        "2026-11-24T10:00:05Z  NotStarted         it waits for its children",
        "2026-11-24T10:00:05Z  NotStarted         it waits for a signal",
        "2026-11-24T10:00:05Z  NotStarted         it waits for: Moon",
        "2026-11-24T10:00:05Z  Running            it does not start before 2026-11-24T10:00:05Z",
        "2026-11-24T10:00:05Z  Running       7 %  one two [2J",
        "2026-11-24T10:00:05Z  Running       8 %  canceled by a client, and has not stopped yet",
        "2026-11-24T10:00:05Z  Running     100 %  attempt 2 failed, the next one starts at 10:01:05Z",
        "2026-11-24T10:00:05Z  Succeeded",
    ]


def test_lines_about_what_is_known_more_exactly() -> None:
    """Who has the resource, when the rate lets it start, and why an operator has paused the action."""
    stream = io.StringIO()
    with LineDisplay(stream, Clock(), lambda: NOW) as lines:
        owned = BlockedBy(reason="Resource", position=3, operation_id="other")
        lines.show(monitor(Status.NOT_STARTED, queue_position=3, waiting_for="Resource", blocked_by=owned))
        rated = BlockedBy(reason="Rate", until=NOW)
        lines.show(monitor(Status.NOT_STARTED, waiting_for="Rate", blocked_by=rated))
        paused = BlockedBy(reason="Paused", message="moving the\nstorage")
        lines.show(monitor(Status.NOT_STARTED, waiting_for="Paused", blocked_by=paused))
    resource, rate, pause = stream.getvalue().splitlines()
    assert resource.endswith("number 3 in the queue for its resource, which operation other has")
    assert rate.endswith("no more often than its rate allows: it may start at 2026-11-24T10:00:05Z")
    assert pause.endswith("an operator has paused this action: moving the storage")


def test_an_outage_is_not_a_line_per_try() -> None:
    """The same problem is printed again after half a minute, another one at once."""
    stream, clock = io.StringIO(), Clock()
    lines = LineDisplay(stream, clock, lambda: NOW)
    for clock.now, what in ((0.0, "gone"), (0.2, "gone"), (1.0, "busy"), (29.0, "gone"), (31.0, "gone")):
        lines.show_retry(what, 0.25)
    assert [line.partition("Z  ")[2] for line in stream.getvalue().splitlines()] == [
        "gone; trying again in 0.2 s",
        "busy; trying again in 0.2 s",
        "gone; trying again in 0.2 s",
    ]


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is redrawn, problems stay above it, and the end is one line, or nothing if the operation has not ended."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream, clock = Terminal(), Clock()
    with BarDisplay(stream, clock, tick=3600) as bar:
        bar.show(monitor())
        clock.now = 65.0
        bar.show(monitor(percent_complete=150.0, message="far\ttoo far" * 20))
        bar.show_retry("gone", 1.0)
        bar.show(monitor(Status.CANCELED))
    first, second, trouble, again, last = stream.getvalue().split("\r\x1b[K")[1:]
    assert first == "Running  0:00"
    assert second.startswith("Running  [########################] 150 %  1:05  far too far")
    assert len(second) == 79
    assert (trouble, again, last) == ("gone; trying again in 1.0 s\n", second, "Canceled after 1:05\n")
    interrupted = Terminal()
    with BarDisplay(interrupted, clock, tick=3600) as bar:
        bar.show(monitor(percent_complete=0.0))
    assert interrupted.getvalue() == f"\r\x1b[KRunning  [{'-' * 24}]   0 %  0:00\r\x1b[K"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (Progressed(percent=39.6, message="a\x1b[31mb"), "40 % a [31mb"),
        (
            AttemptFailed(attempt=1, error=OperationError(code=503, message="busy"), retry_at=NOW, counted=True),
            "503: busy",
        ),
        (CancelRequested(by="ann", reason="r" * 100), "r" * 89 + "…"),
        (None, ""),
    ],
)
def test_a_row_of_a_history(data: EventData | None, what: str) -> None:
    """It has position, time, name and description, in one line that no message can break."""
    shown = event_row(3, NOW, "some-event", data, has_colour=False)
    assert shown == f"       3  10:00:05.000  some-event        {what}".rstrip()


@pytest.mark.parametrize(
    ("year", "shown"),
    [(2026, "22:00:00.000"), (1, "12:00:00.000")],
)
def test_times_of_a_history(year: int, shown: str) -> None:
    """They are in UTC; a foreign time that UTC can't represent is unchanged."""
    time = datetime(year, 1, 1, 12, tzinfo=timezone(timedelta(hours=14)))
    assert event_row(1, time, "started", None, has_colour=False) == f"       1  {shown}  started"
