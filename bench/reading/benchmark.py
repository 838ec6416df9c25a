"""Runs the parts about reading: a status, many clients that wait, many that follow; and large inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bench.harness.system import BenchSystem
from bench.reading.status_reads import StatusReadFigures, StatusReadResult, StatusReads
from bench.reading.streams import StreamFigures, Streams
from bench.reading.validation import InputFigures, Validation, ValidationResult
from bench.reading.waits import WaitFigures, Waits

STATUS: Final = "status"
WAIT: Final = "wait"
STREAM: Final = "stream"
VALIDATION: Final = "validation"
PARTS: Final = (STATUS, WAIT, STREAM, VALIDATION)

WAITERS: Final = 1_000
READERS: Final = 500

_GET_CLIENTS: Final = 32
_GET_SECONDS: Final = 3.0
_QUIET: Final = 10.0
_SPREAD: Final = 1.5
_EVENTS: Final = 100
_PAUSE: Final = 0.1
_IDLERS: Final = 10
_FLOOD: Final = 2_000
_TEXT: Final = 100
_LONG_TEXT: Final = 4_000
_POSTS: Final = 150

_Result = TypeVar("_Result", bound=msgspec.Struct)


class ReadingFigures(msgspec.Struct, kw_only=True):
    """The figures; empty for parts that were not selected."""

    gets: list[StatusReadFigures] = []
    waits: list[WaitFigures] = []
    streams: list[StreamFigures] = []
    inputs: list[InputFigures] = []


def measure_readings(parts: Collection[str], say: Callable[[str], None]) -> ReadingFigures:
    """Measure the selected parts.

    Raises:
        BenchFailed: a process did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name:
        say("starting broker, api, runner and projector")
        with BenchSystem(Path(name)) as system:
            system.start_broker()
            system.start_services(concurrency=WAITERS + 1, actions="bench.reading.held_actions")
            bench = _ReadingBench(system, say)
            for part in PARTS:
                if part in parts:
                    bench.measure(part)
            return bench.found


class _ReadingBench:
    def __init__(self, system: BenchSystem, say: Callable[[str], None]) -> None:
        self.found = ReadingFigures()
        self._system = system
        self._say = say

    def measure(self, part: str) -> None:
        measures = {STATUS: self._gets, WAIT: self._waits, STREAM: self._streams, VALIDATION: self._validate}
        measures[part]()

    def _gets(self) -> None:
        system = self._system
        task = StatusReads(port=system.port, pids=system.pids, clients=_GET_CLIENTS, seconds=_GET_SECONDS)
        self.found.gets = self._run("bench.reading.status_reads", task, StatusReadResult).kinds
        for kind in self.found.gets:
            self._say(f"status of an operation, {kind.name}: {kind.rate:,.0f}/s, alone p50 {kind.alone.p50:.2f} ms")

    def _waits(self) -> None:
        for operations in (WAITERS, 1):
            self._wait(operations)

    def _wait(self, operations: int) -> None:
        system = self._system
        system.restart_api()
        task = Waits(
            port=system.port,
            pids=system.pids,
            nats_url=system.nats_url,
            clients=WAITERS,
            operations=operations,
            quiet=_QUIET,
            spread=_SPREAD,
        )
        self._say(f"{WAITERS:,} clients will wait, {operations:,} operations")
        found = self._run("bench.reading.waits", task, WaitFigures)
        self.found.waits.append(found)
        self._say(f"all got their response: p50 {found.late.p50:.1f} ms, p99 {found.late.p99:.1f} ms after the end")

    def _streams(self) -> None:
        self._stream(readers=READERS, idlers=0, events=_EVENTS, pause=_PAUSE, text=_TEXT)
        self._stream(readers=READERS, idlers=0, events=_EVENTS, pause=0.0, text=_TEXT)
        self._stream(readers=1, idlers=_IDLERS, events=_FLOOD, pause=0.0, text=_LONG_TEXT)

    def _stream(self, *, readers: int, idlers: int, events: int, pause: float, text: int) -> None:
        system = self._system
        system.restart_api()
        task = Streams(
            port=system.port,
            pids=system.pids,
            nats_url=system.nats_url,
            readers=readers,
            idlers=idlers,
            events=events,
            pause=pause,
            text=text,
        )
        found = self._run("bench.reading.streams", task, StreamFigures)
        self.found.streams.append(found)
        self._say(
            f"{events:,} events, {readers} readers and {idlers} who read nothing: "
            f"p50 {found.late.p50:.1f} ms, p99 {found.late.p99:.1f} ms late, {found.rate:,.0f} received/s"
        )

    def _validate(self) -> None:
        task = Validation(port=self._system.port, samples=_POSTS)
        self.found.inputs = self._run("bench.reading.validation", task, ValidationResult).inputs
        for one in self.found.inputs:
            self._say(f"an input of {one.size:,} bytes: {one.steps['all']:,.0f} us, its POST p50 {one.post.p50:.2f} ms")

    def _run(self, module: str, task: msgspec.Struct, result: type[_Result]) -> _Result:
        found = msgspec.json.decode(self._system.run_child(module, task), type=result)
        self._system.check_processes()
        return found
