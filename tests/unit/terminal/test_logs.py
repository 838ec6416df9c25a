"""The format of log records."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from opstream.terminal import logs
from opstream.terminal.console import CommandError, ErrorOutput

pytestmark = pytest.mark.unit


@pytest.fixture
def root() -> logging.Logger:
    return logging.getLogger()


def test_one_line_per_record(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foreign text in a message neither moves the cursor nor begins a line that looks like a record."""
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure("info")
    logging.getLogger("test").error("sequence 7 (%s) is no event", "operations.\x1b[2J\n2026-11-24 INFO all is well")
    line = re.sub(r"^[0-9TZ:.-]+ ", "", capsys.readouterr().err)
    assert line == "ERROR   test: sequence 7 (operations. [2J 2026-11-24 INFO all is well) is no event\n"


def test_a_traceback_stays_whole(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of a traceback follow the record."""
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure("info")
    try:
        int("why")
    except ValueError:
        logging.getLogger("test").exception("it failed")
    assert capsys.readouterr().err.endswith("base 10: 'why'\n")


def test_a_traceback_moves_no_cursor(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of an exception may come from a client: each of its lines is made printable."""
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure("info")
    try:
        _raise("a\x1b[2Jb\u202ec\x9bd")
    except ValueError:
        logging.getLogger("test").exception("it failed")
    lines = capsys.readouterr().err.split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[-2] == "ValueError: a [2Jb c d"


def _raise(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def as_json(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Configures logs as JSON; after the test they are as they were."""
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    for owner, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(ErrorOutput, "write", None)
    yield lambda: logs.configure("info", logs.JSON, service="runner")
    logging.captureWarnings(capture=False)


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines that were written, all of them JSON."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines(as_json: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    """A record is one object with its fields; the service is that of the process, or of the context in a hub."""
    as_json()
    logging.getLogger("test").warning("it\nfailed", extra={"operationId": "op-1"})
    logs.name_service("api")
    try:
        logging.getLogger("test").error("here")
    finally:
        logs.name_service("")
    first, second = written(capsys)
    assert (first["message"], first["operationId"], first["service"]) == ("it\nfailed", "op-1", "runner")
    assert second["service"] == "api"


def test_all_of_stderr_is_json(as_json: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings, an error that ends a thread or the process, and the error with which a command ends are lines, too."""
    as_json()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    thread = threading.Thread(target=_raise, args=("in a thread",), name="worker")
    thread.start()
    thread.join()
    try:
        _raise("at the\nend")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    CommandError("the port is in use\nchoose another").show()
    found = written(capsys)
    assert [one["level"] for one in found] == ["warning", "error", "critical", "critical"]
    assert "ValueError: in a thread" in found[1]["traceback"]
    assert "ValueError: at the\nend" in found[2]["traceback"]
    assert found[3]["message"] == "the port is in use\nchoose another"
    assert (found[3]["logger"], found[3]["service"]) == (logs.END_LOGGER, "runner")
