"""The progress bar, on a terminal and without one."""

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
    """It prints a line every five seconds with progress, rate and time left; none for work that is quicker."""
    clock, stream = Clock(), io.StringIO()
    bar = ProgressBar(stream, clock)
    bar.begin("events", 1_000_000)
    for now, done in ((101.0, 10_000), (105.0, 100_000), (106.0, 120_000), (110.0, 200_000)):
        clock.now = now
        bar.show(done)
    bar.end()
    bar.begin("entries", 10)
    bar.show(10)
    bar.end()
    bar.print_line("done")
    assert stream.getvalue().splitlines() == [
        "100,000 of 1,000,000 events, 20,000/s, 0:45 left",
        "200,000 of 1,000,000 events, 20,000/s, 0:40 left",
        "done",
    ]


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It redraws one line, no wider than the terminal, and clears it at the end."""
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = Clock(), Terminal()
    bar = ProgressBar(stream, clock)
    bar.begin("events", 1_000)
    clock.now += 0.1
    bar.show(10)
    clock.now += 0.9
    bar.show(500)
    bar.end()
    assert stream.getvalue() == (
        "\r\x1b[K[############------------]  50 %  500 of 1,000 events, 500/s, 0:01 left\r\x1b[K"
    )


def test_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of zero items is complete."""
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = Clock(), Terminal()
    bar = ProgressBar(stream, clock)
    bar.begin("events", 0)
    clock.now += 1
    bar.show(0)
    assert "100 %" in stream.getvalue()
