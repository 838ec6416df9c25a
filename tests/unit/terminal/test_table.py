"""Rows of tables: on a terminal they fit, for a program they are one line."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream.terminal.table import fits_beside, text_below, text_beside, text_on_second_line

pytestmark = pytest.mark.unit

Form = Callable[[str, str, int | None], str]

WIDTHS = st.integers(40, 250)
TEXTS = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=300)
HEADS = st.text("ab ", max_size=38).map(lambda head: f"x{head}x")
FORMS = st.sampled_from(
    [text_beside, text_below, lambda head, text, width: text_on_second_line("first", head[:30], text, width)]
)


@given(FORMS, HEADS, TEXTS, WIDTHS)
def test_nothing_is_too_wide_and_nothing_is_lost(form: Form, head: str, text: str, width: int) -> None:
    """No line reaches the last column of the terminal, and everything but white space is there, in order."""
    shown = form(head, text, width)
    assert all(len(line) < width for line in shown.splitlines())
    wanted = form(head, text, None)
    assert "".join(shown.split()) == "".join(wanted.split())


@given(HEADS, TEXTS)
def test_without_a_terminal_a_row_is_one_line(head: str, text: str) -> None:
    """A row of any length is one line."""
    assert text_beside(head, text, None) == text_below(head, text, None) == f"{head}  {text}".rstrip()


def test_the_text_is_wrapped_in_its_column() -> None:
    """It is wrapped in its column if that is wide enough, otherwise below, indented; colours have no width."""
    coloured = click.style("done", fg="green")
    assert text_beside("a row", "and words that go on and on and on", 40) == (
        "a row  and words that go on and on and\n       on"
    )
    assert text_beside(coloured, "x" * 33, 40) == f"{coloured}  {'x' * 33}"
    assert (
        text_beside("a" * 20, "some words for the rest of it", 40) == f"{'a' * 20}\n    some words for the rest of it"
    )
    assert (fits_beside("a" * 15, 40), fits_beside("a" * 16, 40), fits_beside("a" * 99, None)) == (True, False, True)
