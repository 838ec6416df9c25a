"""The report of a chaos run: figures, and breaches with the histories of their operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from opstream_schemas.events import Started
from tests.support.chaos.actions import Mark
from tests.support.chaos.checks import end_of, find_breaches, overlaps, read_marks
from tests.support.chaos.clients import Clients
from tests.support.chaos.state import FinalState
from tests.support.system.invariants import Stored, decoded


class ChaosReport(msgspec.Struct):
    """The report of one run."""

    figures: list[str]
    """Lines."""
    breaches: list[str]
    """Lines; empty if there are none."""
    histories: list[str]
    """Histories of the operations with breaches."""
    operations: int
    crashes: Counter[str]
    """How often each crash point was reached."""

    def text(self) -> str:
        """The whole report as text."""
        lines = [*self.figures, f"breaches: {len(self.breaches)}", *self.breaches, *self.histories]
        return "\n".join(lines)


def make_report(
    folder: Path,
    *,
    seed: int,
    left: FinalState,
    clients: Clients,
    complaints: list[str],
    disturbances: Counter[str],
    crashes: Counter[str],
) -> ChaosReport:
    """Check a run, and report it."""
    marks = read_marks(folder)
    found = find_breaches(left, clients.told, marks)
    named = {breach.partition(":")[0] for breach in found + clients.problems}
    histories = left.evidence.histories()
    broken = [line for one in sorted(named & histories.keys()) for line in _history_lines(one, histories[one], marks)]
    return ChaosReport(
        figures=list(_figures(seed, left, clients, marks, disturbances, crashes)),
        breaches=found + clients.problems + complaints,
        histories=broken,
        operations=len(left.operations),
        crashes=crashes,
    )


def _figures(
    seed: int, left: FinalState, clients: Clients, marks: list[Mark], disturbances: Counter[str], crashes: Counter[str]
) -> Iterator[str]:
    accepted = [one for one, told in clients.told.items() if told.is_accepted]
    repeats = sum(clients.told[one].sent - 1 for one in accepted)
    started = sum(
        isinstance(event.data, Started) for history in left.evidence.histories().values() for event in decoded(history)
    )
    begun = sum(mark.what == "begin" for mark in marks)
    lost = set(accepted) - left.operations.keys()
    yield f"seed: {seed}"
    yield f"disturbances: {sum(disturbances.values())}: {_counted(disturbances)}"
    yield f"crash points reached: {sum(crashes.values())}: {_counted(crashes)}"
    yield f"operations: {len(left.operations)}, accepted: {len(accepted)}: {_counted(_kinds(left))}"
    yield f"ends: {_counted(Counter(map(end_of, left.operations.values())))}"
    yield f"events: {len(left.evidence.messages)}"
    yield f"attempts: {started}, executed: {begun}, beyond the first: {started - len(_started_operations(left))}"
    yield f"answers to submits: {_counted(Counter({str(code): n for code, n in clients.answers.items()}))}"
    yield f"repeated submits that made no second operation: {repeats}"
    yield f"overlapping calls for one resource by attempts that had lost their lease: {len(overlaps(left, marks))}"
    yield f"lost: {len(lost)}; open: {len(left.open)}"


def _kinds(left: FinalState) -> Counter[str]:
    return Counter(operation.action for operation in left.operations.values())


def _started_operations(left: FinalState) -> list[str]:
    return [one for one, operation in left.operations.items() if operation.attempt]


def _counted(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counted.most_common()) or "none"


def _history_lines(operation_id: str, history: list[Stored], marks: list[Mark]) -> Iterator[str]:
    yield f"history of {operation_id}:"
    for event in decoded(history):
        yield f"  {event.sequence} {event.time.isoformat()} {event.source} {event.type} {event.data}"
    for mark in marks:
        if mark.operation == operation_id:
            yield f"  mark: {mark}"
