"""The format of log records."""

from __future__ import annotations

import logging
import re

import pytest

from opstream.terminal import logs

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
