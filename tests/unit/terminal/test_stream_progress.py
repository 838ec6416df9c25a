"""Progress of reading a stream, on a terminal and without one."""

from __future__ import annotations

import io

import pytest

from opstream.terminal.progress_bar import StreamProgress

pytestmark = pytest.mark.unit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a line every five seconds; other lines come at once."""
    clock = Clock()
    with StreamProgress("messages", is_plain=True, clock=clock) as progress:
        for second in range(13):
            clock.now = float(second)
            progress.advance(11, 10 + 4 * second, 110)
        progress.print_line("done [bold]")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "20 of 100 messages, 4/s, 0:20 left",
        "40 of 100 messages, 4/s, 0:15 left",
        "opstream: done [bold]",
    ]


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is printed replaces the bar, which is cleared at the end."""
    clock, stream = Clock(), Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    with StreamProgress(clock=clock) as progress:
        for second in range(2):
            clock.now = float(second)
            progress.advance(1, 5 * second, 10)
        progress.print_line("hm")
    bar = "[############------------]  50 %  5 of 10 messages, 5/s, 0:01 left"
    assert stream.getvalue() == f"\r\x1b[K{bar}\r\x1b[Kopstream: hm\n\r\x1b[K"


def test_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress that is turned off, or that would mix with results, is not shown."""
    clock = Clock()
    for progress in (StreamProgress(is_shown=False, is_plain=True, clock=clock), StreamProgress(clock=clock)):
        clock.now += 100
        progress.advance(1, 5, 10)
        clock.now += 100
        progress.advance(1, 6, 10)
    assert capsys.readouterr().err == ""
