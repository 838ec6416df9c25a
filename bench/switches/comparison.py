"""The part `throughput` with `--with`: the same operations with nothing switched on, and with what is named.

All systems run all the time and are loaded in turns, so what else the machine does slows all of them alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.releases.comparison import Side, Turn

from .switched_system import SwitchedSystem


class SwitchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure."""

    combinations: tuple[tuple[str, ...], ...]
    """What is switched on, each in a system of its own."""
    clients: int
    operations: int
    """In each turn."""
    samples: int
    """Operations that are timed one at a time, in each turn."""
    turns: int


class SwitchFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of all systems; those with the same index came one after the other."""

    plan: SwitchPlan
    plain: list[Turn]
    """With nothing switched on."""
    switched: list[list[Turn]]
    """By the index of the plan's combination."""


def compare_switches(plan: SwitchPlan, *, say: Callable[[str], None]) -> SwitchFigures:
    """Load a plain system and one for each combination in turns.

    Raises:
        BenchFailed: a process did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    combinations = [(), *plan.combinations]
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name, ExitStack() as stack:
        sides = []
        for number, switches in enumerate(combinations):
            say(f"starting broker, api, runner, projector and webhooks with {names_of(switches)}")
            folder = Path(name, str(number))
            folder.mkdir()
            sides.append(Side(stack.enter_context(SwitchedSystem(folder, switches)), plan.clients))
        for side in sides:
            side.warm_up(plan.operations)
        found: list[list[Turn]] = [[] for _ in sides]
        for number in range(plan.turns):
            order = [*range(len(sides))]
            for index in order if number % 2 == 0 else order[::-1]:  # none always runs on the same one's wake
                found[index].append(sides[index].turn(plan.operations, plan.samples))
            rates = (f"{names_of(one)} {turns[-1].rate:,.0f}/s" for one, turns in zip(combinations, found, strict=True))
            say(f"turn {number + 1} of {plan.turns}: {'; '.join(rates)}")
        return SwitchFigures(plan=plan, plain=found[0], switched=found[1:])


def names_of(switches: Sequence[str]) -> str:
    """Return the names of what is switched on, for a sentence."""
    return " + ".join(switches) or "nothing"
