"""Durations and sizes as options take them: what is read, and what is refused."""

from __future__ import annotations

import click
import pytest

from opstream.cli.options.value_types import Duration, Size

pytestmark = pytest.mark.unit

DAY = 86_400.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 30 * DAY),
        ("12h", DAY / 2),
        ("5m", 300),
        ("90s", 90),
        ("90", 90),
        ("1.5h", 5400),
        ("0.25", 0.25),
        ("1 d", DAY),
        ("2D", 2 * DAY),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number of days, hours, minutes or seconds; without a unit of seconds."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1s", "1w", "1h30m", "ten", "1e3", "unlimited", "\uff11s"])
def test_invalid_durations(text: str) -> None:
    """Other texts are usage errors that say how to write one."""
    with pytest.raises(click.UsageError, match="is not a duration: write 30d"):
        Duration().convert(text, None, None)


def test_a_positive_duration() -> None:
    """Zero is refused where it makes no sense."""
    with pytest.raises(click.UsageError):
        Duration(is_positive=True).convert("0s", None, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("262144", 262_144),
        ("256KiB", 262_144),
        ("256kib", 262_144),
        ("10GiB", 10 * 2**30),
        ("1.5 MiB", 3 * 2**19),
        ("1TiB", 2**40),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """A size is a number of bytes, or has a binary unit."""
    assert Size().convert(text, None, None) == size


def test_values_above_the_limits() -> None:
    """More digits than a float can hold are too many, not infinity, and the broker's own limits are named."""
    for kind in (Duration(), Duration(unlimited=0.0), Size(), Size(most="63MiB")):
        with pytest.raises(click.UsageError, match=r"is too (?:long|much): write at most"):
            kind.convert("9" * 400, None, None)
    with pytest.raises(click.UsageError, match="is too much: write at most 63MiB"):
        Size(most="63MiB").convert("64MiB", None, None)


@pytest.mark.parametrize("text", ["", "0", "-1", "256KB", "1k", "KiB", "unlimited"])
def test_invalid_sizes(text: str) -> None:
    """Other texts are usage errors, also decimal units."""
    with pytest.raises(click.UsageError, match="is not a size: write 256KiB"):
        Size().convert(text, None, None)


def test_unlimited() -> None:
    """The word has the value that the option gives it, and 0 has not."""
    assert Duration(unlimited=0.0).convert("unlimited", None, None) == 0.0
    assert Size(unlimited=-1).convert("unlimited", None, None) == -1
    with pytest.raises(click.UsageError, match="or 'unlimited'"):
        Duration(unlimited=0.0).convert("0", None, None)
