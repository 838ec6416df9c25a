"""What the comparison with something switched on says: its arithmetic, and its words."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.harness.table import MIB
from bench.releases.comparison import PROCESSES, Turn
from bench.switches.comparison import SwitchFigures, SwitchPlan
from bench.switches.report import switch_lines

pytestmark = pytest.mark.unit

TURN = Turn(rate=1000.0, polls=2.0, alone=5.0, cpu=dict.fromkeys(PROCESSES, 0.2), rss=300 * MIB)


def verdicts(plain: list[Turn], *switched: list[Turn]) -> list[dict[str, str]]:
    """Return the last lines of each table, by their first words."""
    combinations = tuple((f"switch-{number}",) for number in range(len(switched)))
    plan = SwitchPlan(combinations=combinations, clients=64, operations=10, samples=1, turns=len(plain))
    said: list[dict[str, str]] = []
    for line in switch_lines(SwitchFigures(plan=plan, plain=plain, switched=[*switched])):
        if line.startswith("with switch-"):
            said.append({})
        elif said and ": " in line and "p50" not in line:
            name, _, text = line.strip().partition(": ")
            said[-1][name] = text
    return said


def with_rates(*rates: float) -> list[Turn]:
    """Return turns with these rates."""
    return [msgspec.structs.replace(TURN, rate=rate) for rate in rates]


@pytest.mark.parametrize(
    ("rate", "verdict"),
    [
        (1100.0, "1.100 times: HELD (it may lose 3%)"),
        (971.0, "0.971 times: HELD (it may lose 3%)"),
        (969.0, "0.969 times: NOT HELD (it may lose 3%)"),
    ],
)
def test_three_percent_may_be_lost(rate: float, verdict: str) -> None:
    """And no more."""
    (found,) = verdicts(with_rates(1000.0), with_rates(rate))
    assert found["operations a second"] == verdict


def test_turns_are_compared_with_their_neighbours() -> None:
    """A slow minute counts for both sides, and each combination is compared with the plain system."""
    plain = with_rates(1000.0, 500.0, 100.0)
    first, second = verdicts(plain, with_rates(990.0, 495.0, 99.0), with_rates(900.0, 450.0, 90.0))
    assert first["operations a second"].startswith("0.990 times: HELD")
    assert second["operations a second"].startswith("0.900 times: NOT HELD")


def test_turns_that_do_not_agree_decide_nothing() -> None:
    """Four of five have to be on the same side of what may be lost."""
    (found,) = verdicts(with_rates(*[1000.0] * 5), with_rates(1000.0, 990.0, 980.0, 950.0, 950.0))
    assert found["operations a second"].startswith("not decided (0.980 times, but only 3 of 5 turns agree)")


def test_processor_time_is_the_median_of_differences() -> None:
    """In microseconds of all processes together, with the least and the most."""
    more = [msgspec.structs.replace(TURN, cpu=TURN.cpu | {"api": 0.2 + extra}) for extra in (0.03, 0.01, 0.05)]
    (found,) = verdicts([TURN] * 3, more)
    assert found["processor time"] == "+30 µs an operation, +10 to +50"


def test_without_a_comparison_nothing_is_printed() -> None:
    """The part that was not selected has no lines."""
    assert list(switch_lines(None)) == []


def test_a_switch_that_does_not_exist_is_refused() -> None:
    """The error names those that do."""
    result = CliRunner().invoke(main, ["--only", "throughput", "--with", "auth,tls"])
    assert result.exit_code == 2
    assert "'tls' is none of auth, index, metrics, roles" in " ".join(result.output.split())
