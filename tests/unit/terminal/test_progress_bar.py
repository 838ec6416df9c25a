"""Progress over many things, on a terminal and without one."""

from __future__ import annotations

import io

import pytest

from opstream.terminal.progress_bar import ProgressBar

pytestmark = pytest.mark.unit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal() -> None:
    """A line every five seconds with what is done, how fast, and what is left; nothing for work that is quicker."""
    clock, stream = Clock(), io.StringIO()
    tally = ProgressBar(stream, clock)
    tally.begin("events", 1_000_000)
    for now, done in ((101.0, 10_000), (105.0, 100_000), (106.0, 120_000), (110.0, 200_000)):
        clock.now = now
        tally.show(done)
    tally.end()
    tally.begin("entries", 10)
    tally.show(10)
    tally.end()
    tally.print_line("done")
    assert stream.getvalue().splitlines() == [
        "100,000 of 1,000,000 events, 20,000/s, 0:45 left",
        "200,000 of 1,000,000 events, 20,000/s, 0:40 left",
        "done",
    ]


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that is drawn over, no wider than the terminal, and gone at the end."""
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = Clock(), Terminal()
    tally = ProgressBar(stream, clock)
    tally.begin("events", 1_000)
    clock.now += 0.1
    tally.show(10)
    clock.now += 0.9
    tally.show(500)
    tally.end()
    assert stream.getvalue() == (
        "\r\x1b[K[############------------]  50 %  500 of 1,000 events, 500/s, 0:01 left\r\x1b[K"
    )


def test_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty journal is all done."""
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = Clock(), Terminal()
    tally = ProgressBar(stream, clock)
    tally.begin("events", 0)
    clock.now += 1
    tally.show(0)
    assert "100 %" in stream.getvalue()
