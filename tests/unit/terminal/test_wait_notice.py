"""The line that says what a command waits for."""

from __future__ import annotations

import threading

import pytest

from opstream.terminal.wait_notice import wait_notice

pytestmark = pytest.mark.unit


class Lines:
    """A stream that tells when it has so many lines."""

    def __init__(self, count: int) -> None:
        self.text = ""
        self.are_there = threading.Event()
        self._count = count

    def write(self, text: str) -> None:
        """Keep a text."""
        self.text += text
        if self.text.count("\n") >= self._count:
            self.are_there.set()

    def flush(self) -> None:
        """Do nothing."""


def test_lines_while_it_waits() -> None:
    """Each line has the time that is left; a foreign text can't move the cursor."""
    lines, times = Lines(2), iter([0.0, 2.0, 12.0, 22.0, *[29.5] * 1000])
    with wait_notice("a\x1bb", 30.0, stream=lines, delay=0.001, interval=0.001, clock=lambda: next(times)):  # type: ignore[arg-type]
        assert lines.are_there.wait(10)
    assert lines.text.splitlines()[:2] == [
        "opstream: waiting for a b, for 28 s more at most; Ctrl-C stops it",
        "opstream: waiting for a b, for 18 s more at most; Ctrl-C stops it",
    ]


def test_no_limit() -> None:
    """Without a limit the line says so."""
    lines = Lines(1)
    with wait_notice("it", None, stream=lines, delay=0.001):  # type: ignore[arg-type]
        assert lines.are_there.wait(10)
    assert lines.text == "opstream: waiting for it, without a limit; Ctrl-C stops it\n"


def test_a_quick_answer() -> None:
    """What is quick needs no line, and no thread stays."""
    lines = Lines(1)
    before = threading.active_count()
    with wait_notice("it", 30.0, stream=lines, delay=60.0):  # type: ignore[arg-type]
        pass
    assert (lines.text, threading.active_count()) == ("", before)
