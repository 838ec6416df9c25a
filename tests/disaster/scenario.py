"""What a scenario is: a disaster, and what an operator does about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from tests.disaster.stage import STEADY_JOBS, Stage
from tests.support.chaos.jobs import Job


class Scenario:
    """One disaster. The first line of its docstring says what is done; `--list` prints it."""

    name: ClassVar[str]
    """What `make disaster SCENARIO=…` calls it."""
    has_cluster: ClassVar[bool] = False
    """True for three brokers with three replicas of each stream, otherwise there is one broker."""
    jobs: ClassVar[tuple[Job, ...]] = STEADY_JOBS
    """What clients do."""
    has_webhooks: ClassVar[bool] = False
    """True to run the webhooks service."""

    @classmethod
    def summary(cls) -> str:
        """What is done, in one sentence."""
        assert cls.__doc__ is not None
        return " ".join(cls.__doc__.partition("\n\n")[0].split())

    def reason_to_skip(self) -> str:
        """Why it can't be played on this machine; empty if it can."""
        return ""

    @contextlib.contextmanager
    def ground(self, folder: Path) -> Iterator[None]:
        """Prepare the folder before the system starts in it, and clean up after it has ended."""
        yield

    def prepare(self, stage: Stage) -> None:
        """Change what the system starts with."""

    async def play(self, stage: Stage) -> None:
        """Work, have the disaster, recover, work on, and check everything."""
        async with stage.load(self.jobs):
            await stage.work()
            for _ in range(stage.size.strikes):
                async with stage.struck():
                    await self.strike(stage)
                    await self.recover(stage)
        await stage.check()

    async def strike(self, stage: Stage) -> None:
        """Do the damage, while clients work."""
        raise NotImplementedError

    async def recover(self, stage: Stage) -> None:
        """Do what docs/running.md asks of an operator; by default nothing."""


class Several(Scenario):
    """Several disasters of one system, one after the other."""

    name = "several"

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._scenarios = scenarios

    @property
    def has_cluster(self) -> bool:  # type: ignore[override]
        """As the first scenario."""
        return self._scenarios[0].has_cluster

    @property
    def jobs(self) -> tuple[Job, ...]:  # type: ignore[override]
        """Those that all scenarios have."""
        return tuple(job for job in STEADY_JOBS if all(job in one.jobs for one in self._scenarios))

    @property
    def has_webhooks(self) -> bool:  # type: ignore[override]
        """True if any scenario needs it."""
        return any(one.has_webhooks for one in self._scenarios)

    def reason_to_skip(self) -> str:
        """The first reason of any scenario."""
        return next((reason for one in self._scenarios if (reason := one.reason_to_skip())), "")

    async def play(self, stage: Stage) -> None:
        """Have one after the other under one load, and check everything at the end."""
        async with stage.load(self.jobs):
            await stage.work()
            for one in self._scenarios:
                stage.say(one.name)
                async with stage.struck():
                    await one.strike(stage)
                    await one.recover(stage)
        await stage.check()
