"""The part `drain`: a runner that starts with a long queue.

The operations have waited for more than half a minute by then, so their deadline timers are set. The broker removes a
timer when its operation ends, which is part of the measured work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from bench.harness import broker_state
from bench.harness.process_usage import BenchFailed, Usage
from bench.harness.progress import Progress
from bench.harness.system import RUNNER, SERVICES, BenchSystem
from bench.runners import queue_fill
from bench.throughput.benchmark import CHUNK
from opstream_journal import Connection
from opstream_schemas import subjects

ACTIONS: Final = "bench.harness.actions"
CONCURRENCY: Final = 32
"""The default of `opstream runner`."""

_IN_FLIGHT: Final = 64
_SAMPLE_INTERVAL: Final = 0.2
_STALL: Final = 60.0
"""Seconds without progress after which the part fails."""
_PROJECTOR_TIMEOUT: Final = 900.0


class DrainSample(NamedTuple):
    """The runner's progress at a moment."""

    at: float
    """Monotonic seconds."""
    done: int
    """Operations whose messages are acknowledged."""


class BrokerContents(msgspec.Struct, frozen=True):
    """Contents of the broker."""

    journal_messages: int
    journal_bytes: int
    view_bytes: int
    timers: int
    """Deadline timers that are set."""


class DrainFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures."""

    waiting: int
    concurrency: int
    fill_rate: float
    """Requests a second while the queue was filled."""
    seconds: float
    """From the start of the runner's process until all were done."""
    rate: float
    """Operations a second, from the last moment at which none was done."""
    first_tenth: float
    last_tenth: float
    cpu: dict[str, float]
    """Milliseconds an operation, by process, until the projector was done."""
    projector_lag: float
    """Seconds from the last operation until then."""
    rss: dict[str, dict[str, int]]
    """Bytes, by process: `before` the runner started, at the `peak`, and `after` the projector was done."""
    before: BrokerContents
    after: BrokerContents


def time_when_done(samples: Sequence[DrainSample], count: float) -> float:
    """The time at which `count` operations were done, interpolated between samples.

    Args:
        samples: ordered by time; the last has at least `count`.
        count: at least as many as in the first sample.
    """
    before = samples[0]
    for sample in samples:
        if sample.done >= count > before.done:
            return before.at + (sample.at - before.at) * (count - before.done) / (sample.done - before.done)
        if sample.done <= count:
            before = sample
    return before.at


def rate(samples: Sequence[DrainSample], first: float, last: float) -> float:
    """Operations a second between the moments at which `first` and `last` operations were done."""
    return (last - first) / (time_when_done(samples, last) - time_when_done(samples, first))


class Drain:
    """Fills a queue and drains it.

    Args:
        system: without a runner.
        waiting: number of operations.
        progress: shows progress.
    """

    def __init__(self, system: BenchSystem, waiting: int, progress: Progress) -> None:
        self._system = system
        self._waiting = waiting
        self._progress = progress
        self._peak: dict[str, int] = {}

    def run(self) -> DrainFigures:
        """Fill the queue, and drain it.

        Raises:
            BenchFailed: a process did not start, made no progress, or had a wrong result.
        """
        system, waiting = self._system, self._waiting
        # Started once before, so that its action is announced and its consumer exists.
        system.start_runner(RUNNER, concurrency=CONCURRENCY, actions=ACTIONS)
        system.stop(RUNNER)
        fill_seconds = self._fill()
        self._progress.say("the projector folds the requests, and sets their deadline timers half a minute later")
        system.wait_for_projector(_PROJECTOR_TIMEOUT)
        before, stored = system.usage(), self._stored()
        system.start_runner(RUNNER, concurrency=CONCURRENCY, actions=ACTIONS, is_awaited=False)
        began = time.monotonic()
        samples = asyncio.run(self._drain())
        system.wait_for_projector(_PROJECTOR_TIMEOUT)
        after, ended = system.usage(), self._stored()
        if ended.journal_messages - stored.journal_messages != 2 * waiting:
            raise BenchFailed(f"{waiting:,} operations should have added two events each: {stored}, {ended}")
        return DrainFigures(
            waiting=waiting,
            concurrency=CONCURRENCY,
            fill_rate=waiting / fill_seconds,
            seconds=samples[-1].at - began,
            rate=rate(samples, 0, waiting),
            first_tenth=rate(samples, 0, waiting / 10),
            last_tenth=rate(samples, waiting * 9 / 10, waiting),
            cpu={name: (after[name].cpu - _cpu(before, name)) * 1000 / waiting for name in SERVICES},
            projector_lag=time.monotonic() - samples[-1].at,
            rss={"before": _rss(before), "peak": self._peak, "after": _rss(after)},
            before=stored,
            after=ended,
        )

    def _fill(self) -> float:
        seconds = 0.0
        done = 0
        self._progress.begin("filling the queue", self._waiting)
        while done < self._waiting:
            count = min(CHUNK, self._waiting - done)
            task = queue_fill.QueueFill(nats_url=self._system.nats_url, operations=count, in_flight=_IN_FLIGHT)
            seconds += msgspec.json.decode(
                self._system.run_child("bench.runners.queue_fill", task), type=queue_fill.QueueFillResult
            ).seconds
            done += count
            self._progress.show(done)
        self._progress.end()
        return seconds

    def _stored(self) -> BrokerContents:
        return asyncio.run(_broker_contents(self._system.nats_url))

    async def _drain(self) -> list[DrainSample]:
        async with broker_state.connected(self._system.nats_url) as connection:
            samples = [await self._sample(connection)]
            if samples[0].done:
                raise BenchFailed(f"the queue should be full, but {samples[0].done:,} are done")
            self._progress.begin("draining the queue", self._waiting)
            moved = samples[0].at
            while samples[-1].done < self._waiting:
                await asyncio.sleep(_SAMPLE_INTERVAL)
                self._system.check_processes()
                samples.append(await self._sample(connection))
                if samples[-1].done > samples[-2].done:
                    moved = samples[-1].at
                elif samples[-1].at - moved > _STALL:
                    raise BenchFailed(f"no operation was done in {_STALL:g} s; {samples[-1].done:,} are")
                self._progress.show(samples[-1].done)
            self._progress.end()
            return samples

    async def _sample(self, connection: Connection) -> DrainSample:
        found = await broker_state.consumer_state(connection, subjects.runner_consumer(queue_fill.KIND))
        for name, used in self._system.usage().items():
            self._peak[name] = max(self._peak.get(name, 0), used.rss)
        return DrainSample(time.monotonic(), self._waiting - found.unfinished)


async def _broker_contents(url: str) -> BrokerContents:
    async with broker_state.connected(url) as connection:
        events = await broker_state.stream_state(connection, subjects.OPERATIONS_STREAM)
        view = await broker_state.stream_state(connection, subjects.bucket_stream(subjects.VIEW_BUCKET))
        timers = await broker_state.stream_state(connection, subjects.TIMERS_STREAM)
        return BrokerContents(events.messages, events.bytes, view.bytes, timers.messages)


def _cpu(used: dict[str, Usage], name: str) -> float:
    return used[name].cpu if name in used else 0.0


def _rss(used: dict[str, Usage]) -> dict[str, int]:
    return {name: one.rss for name, one in used.items()}
