"""What `make disaster` prints."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tests.disaster.__main__ import main
from tests.disaster.catalog import SCENARIOS
from tests.disaster.report import breaches, table, write_json
from tests.disaster.stage import RoundResult

pytestmark = pytest.mark.unit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
ROUNDS = [
    RoundResult(scenario="one", seed=1, strikes=1, accepted=10, polls=20, aways=[1.0], operator=["wait"]),
    RoundResult(
        scenario="one", seed=2, strikes=2, accepted=5, polls=7, lost=1, aways=[4.0, 3.0], breaches=["it is lost"]
    ),
    RoundResult(scenario="other", seed=3, skipped="only root may"),
]


def test_a_row_for_each_scenario() -> None:
    """Counts are sums of the rounds, seconds are the median and the worst; a skipped scenario has its reason."""
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(ROUNDS).splitlines()]
    assert [len(row) for row in rows] == [len(head)] * 2
    first = dict(zip(head, rows[0], strict=True))
    assert (first["times"], first["accepted"], first["polls"], first["lost"]) == ("3", "15", "27", "1")
    assert (first["away s"], first["what the operator did"]) == ("3.0, 4.0", "wait")
    assert (rows[1][1], rows[1][-1]) == ("skipped", "only root may")


def test_breaches_name_their_seed() -> None:
    """A breach can be repeated."""
    assert breaches(ROUNDS) == ["one, seed 2: it is lost"]


def test_json_has_all_rounds(tmp_path: Path) -> None:
    """The file can be decoded to the same rounds."""
    write_json(ROUNDS, tmp_path / "report.json")
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=list[RoundResult]) == ROUNDS


def test_the_list_has_every_scenario() -> None:
    """`--list` prints each name with what is done, in one sentence."""
    listed = CliRunner().invoke(main, ["--list"]).output.splitlines()
    assert [line.split()[0] for line in listed] == list(SCENARIOS)
    assert all(line.endswith(".") for line in listed)


def test_the_page_has_a_row_for_every_scenario() -> None:
    """docs/reliability.md reports each scenario."""
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) == {*SCENARIOS}
