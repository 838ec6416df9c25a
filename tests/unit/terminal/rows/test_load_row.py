"""The rows of `opstream top`, and the screen that shows them."""

from __future__ import annotations

import io

import pytest

from opstream.terminal.rows.load_row import HEADING, LiveScreen, LoadRow, heading, load_row

pytestmark = pytest.mark.unit

BUSY = LoadRow("book:print", 12, 64, 2, 5, 64.0, 120, 118, 3, "5 for Retry")


def test_a_row() -> None:
    """Slots, what waits, and what happened within the minute; what fails is red."""
    assert (
        " ".join(load_row(BUSY, has_colour=False, width=None).split())
        == "book:print 12/64 5 1.1 min 120 118 3 5 for Retry"
    )
    assert load_row(BUSY, has_colour=False, width=None).index("5 for") == len(HEADING) + 2
    assert load_row(BUSY, has_colour=True, width=None).count("\x1b[31m") == 1
    idle = BUSY._replace(waits=0, failed=0, runners=0, what="")
    assert load_row(idle, has_colour=True, width=None).split() == ["book:print", "-", "0", "-", "120", "118", "0"]


def test_what_waits_for_nobody_is_red() -> None:
    """Operations of an action without a runner."""
    stuck = BUSY._replace(runners=0, failed=0)
    assert "\x1b[31m      5" in load_row(stuck, has_colour=True, width=None)


def test_a_narrow_terminal() -> None:
    """The last column has a line of its own; a text can't move the cursor."""
    first, second = load_row(BUSY._replace(what="a\x1b[2Jb"), has_colour=False, width=90).splitlines()
    assert (second, heading(90), heading(200)) == ("    a [2Jb", HEADING, f"{HEADING}  what")
    assert len(first) < 90


def test_a_screen() -> None:
    """It is drawn from the top, each line to its end; what has no room is counted; afterwards all is as before."""
    stream = io.StringIO()
    with LiveScreen(stream) as screen:
        screen.draw(["one", "two\nthree", "four"], height=3)
        screen.draw(["one"], height=3)
    shown = stream.getvalue()
    assert shown.startswith("\x1b[?1049h\x1b[?25l\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n… 2 more lines")
    assert shown.endswith("\x1b[Hone\x1b[K\x1b[J\x1b[?25h\x1b[?1049l")
