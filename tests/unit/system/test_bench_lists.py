"""The benchmark of lists: it fills an index, and each example finds something in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.lists import counts
from bench.lists.pages import fill, measure
from opstream_index.counts.examples import COUNT_EXAMPLES
from opstream_index.lists.examples import EXAMPLES

pytestmark = pytest.mark.unit


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each example."""
    fill(tmp_path / "index.db", 3_000)
    measure(tmp_path / "index.db", 2)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == len(EXAMPLES)
    found = {line.split("|")[5].strip(): line.split("|")[4].strip() for line in lines}
    assert found["`status eq 'Running'`"] != "0"


def test_a_small_run_of_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each question."""
    fill(tmp_path / "index.db", 3_000)
    counts.measure(tmp_path / "index.db", 2)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == len(COUNT_EXAMPLES)
    assert lines[0].split("|")[4].strip() == "3,000"
