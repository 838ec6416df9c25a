"""How far a walk is, without a terminal."""

from __future__ import annotations

import pytest

from opstream.progress import Progress

pytestmark = pytest.mark.unit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line after each ten seconds; what is told comes at once."""
    clock = Clock()
    with Progress("messages", is_plain=True, clock=clock) as progress:
        for second in range(25):
            clock.now = float(second)
            progress.advance(11, 10 + 4 * second, 110)
        progress.tell("done [bold]")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "opstream: 44 of 100 messages",
        "opstream: 88 of 100 messages",
        "opstream: done [bold]",
    ]


def test_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress that is not wanted, or where it would mix with results, is not shown."""
    clock = Clock()
    for progress in (Progress(is_shown=False, is_plain=True, clock=clock), Progress(clock=clock)):
        clock.now += 100
        progress.advance(1, 5, 10)
    assert capsys.readouterr().err == ""
