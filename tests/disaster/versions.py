"""Disasters that operators make on purpose: every process is replaced by one of another version, while clients work.

The order is that of docs/running.md: readers of events before their writers, and back in the reverse order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.releases.sources import LAST, environment_of, unpack
from tests.disaster.scenario import Scenario
from tests.disaster.stage import Stage
from tests.support.disaster.system import COMMANDS, SERVICES
from tests.support.system.services import BROKER
from tests.support.system.versions import shown_otherwise

ORDER: Final = ("projector", "runner", "runner-2", "api", "api-2", BROKER)


class Upgrade(Scenario):
    """Every process of the last release is replaced by one of this version."""

    name = "upgrade"

    def __init__(self) -> None:
        self._before = Path()

    @contextlib.contextmanager
    def ground(self, folder: Path) -> Iterator[None]:
        self._before = unpack(LAST, folder)
        yield

    def prepare(self, stage: Stage) -> None:
        stage.ignored = shown_otherwise(LAST)
        self._go_back(stage, *SERVICES, BROKER, COMMANDS)

    async def play(self, stage: Stage) -> None:
        async with stage.load():
            await stage.work()
            async with stage.struck():
                await self.strike(stage)
                await self.recover(stage)
        await stage.check()

    async def strike(self, stage: Stage) -> None:
        stage.system.environments.pop(COMMANDS)
        await stage.run("provision", "--update")
        stage.operator(f"restart as this version: {', '.join(ORDER)}")
        for name in ORDER:
            stage.system.environments.pop(name, None)
            await stage.system.restart(name)
        stage.say("everything is of this version")

    def _go_back(self, stage: Stage, *names: str) -> None:
        stage.system.environments |= dict.fromkeys(names, environment_of(self._before))


class Rollback(Upgrade):
    """Every process of the last release is replaced by one of this version, and then all go back."""

    name = "rollback"

    async def recover(self, stage: Stage) -> None:
        await stage.work()
        stage.operator(f"restart as the last release: {', '.join(reversed(ORDER))}")
        for name in reversed(ORDER):
            self._go_back(stage, name)
            await stage.system.restart(name)
        stage.say(f"everything is of version {LAST}")
