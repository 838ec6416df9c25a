"""Steps over any number of attempts that may end anywhere: each result is recorded once, and taken ever after."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from opstream_runner.errors import ActionError
from opstream_runner.steps.step_call import StepCall, StepOptions
from opstream_runner.steps.step_errors import StepInterrupted
from opstream_runner.steps.step_table import StepEvent, StepTable
from opstream_schemas.events import StepStarted, StepSucceeded
from opstream_schemas.operation.commands import RecordStep, StartAttempt
from opstream_schemas.steps.step_history import step_records
from tests.support.schemas.histories import History, request


class Killed(BaseException):
    """The process ends here."""


class Life:
    """One operation, whose runner may die before or after each event of a step is stored.

    Args:
        deaths: for each event of a step whether the process ends: `before` it is stored, `after` it, or not.
    """

    def __init__(self, deaths: list[str]) -> None:
        self.history = History().append(request())
        self.deaths = deaths
        self.calls: list[tuple[int, str, str]] = []

    def begin_attempt(self) -> StepTable:
        """Start the next attempt, which reads what there is."""
        records = step_records(self.history.events)
        number = self.history.operation.attempt + 1
        ticket = self.history.operation.live.ticket if self.history.operation.live else 1
        self.history.act(StartAttempt(runner="r", token=f"token-{number}", ticket=ticket, lease=30.0))
        return StepTable(records, self._record, attempt=number, limit=10_000, should_stop=lambda: False)

    def _record(self, event: StepEvent) -> concurrent.futures.Future[None]:
        death = self.deaths.pop(0) if self.deaths else ""
        if death == "before":
            raise Killed
        self.history.act(RecordStep(token=self.history.tokens[-1], data=event))
        if death == "after":
            raise Killed
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        done.set_result(None)
        return done

    def call(self, table: StepTable, name: str, key: str, value: int, *, once: bool, line: int) -> Any:
        """Come to a step."""

        def function(value: int) -> list[int]:
            self.calls.append((table.attempt, name, key))
            return [table.attempt, value]

        options = StepOptions(at_most_once=once)
        return StepCall(table, name, key, function, (value,), {}, options, f"here:{line}").run()


names = st.sampled_from(["a", "b", "c"])
keys = st.sampled_from(["", "1", "2"])
steps = st.tuples(names, keys, st.integers(0, 1), st.booleans())
"""Name, key, argument, and whether it must run at most once."""


@given(
    code=st.lists(st.lists(steps, max_size=6, unique_by=lambda step: step[:2]), min_size=1, max_size=6),
    deaths=st.lists(st.sampled_from(["", "", "before", "after"]), max_size=12),
)
def test_a_result_is_recorded_at_most_once(code: list[list[tuple[str, str, int, bool]]], deaths: list[str]) -> None:
    """The code may change in any way between attempts: steps come, go, and change their order and arguments."""
    life = Life(deaths)
    for program in code:
        table = life.begin_attempt()
        known = {
            (one.step, one.key, one.input_hash): one.result
            for one in (event.data for event in life.history.events)
            if isinstance(one, StepSucceeded)
        }
        returned = {}
        try:
            for line, (name, key, value, once) in enumerate(program):
                returned[name, key] = life.call(table, name, key, value, once=once, line=line)
        except (Killed, StepInterrupted):
            pass
        except ActionError as error:
            assert error.code == "StepInputChanged"  # noqa: PT017 - of a step that must run at most once
        results = [one.data for one in life.history.events if isinstance(one.data, StepSucceeded)]
        found = [(one.step, one.key, one.input_hash) for one in results]
        assert len(found) == len(set(found))
        last = {(one.step, one.key): one for one in results}
        for one in results:
            if (one.step, one.key, one.input_hash) in known:
                assert known[one.step, one.key, one.input_hash] == one.result
        for (name, key), value in returned.items():
            assert value in [
                [one.attempt, argument] for one in results if (one.step, one.key) == (name, key) for argument in (0, 1)
            ]
            assert (name, key) in last


@given(deaths=st.lists(st.sampled_from(["", "before", "after"]), max_size=9), attempts=st.integers(1, 6))
def test_what_must_run_once_never_runs_twice(deaths: list[str], attempts: int) -> None:
    """Wherever the process ends, its function is called once at most; a start without a result is never passed over."""
    life = Life(deaths)
    for _ in range(attempts):
        table = life.begin_attempt()
        datas = [one.data for one in life.history.events]
        is_begun = any(isinstance(one, StepStarted) for one in datas)
        is_known = any(isinstance(one, StepSucceeded) for one in datas)
        try:
            life.call(table, "charge", "", 1, once=True, line=1)
        except Killed:
            assert not is_begun
        except StepInterrupted:
            assert is_begun
            assert not is_known
        assert len(life.calls) <= 1
