"""Disasters of clocks: those of some services are an hour off (libfaketime), and are put right again.

The broker has no library to preload into: where all services are an hour behind, it is an hour ahead of them instead.
An operator sees `ClockSkew` in `/readyz`, sets the clock, and restarts the services of that machine.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from tests.disaster.scenario import Scenario
from tests.disaster.stage import STEADY_JOBS, Stage
from tests.support.disaster.fake_clock import fake_clock, library

HOUR: Final = 3600
SLACK: Final = 60.0
"""Seconds by which the next attempt may be later than the job's own backoff."""
_NOTICED: Final = 30.0


class WrongClock(Scenario):
    """Some services are restarted on a machine whose clock is an hour off."""

    # A child process that is forked under libfaketime may hang at once, in a lock of the library.
    jobs = tuple(job for job in STEADY_JOBS if job.action != "isolated")
    parts: ClassVar[tuple[str, ...]]
    """The services."""
    offset: ClassVar[int]
    """Seconds."""

    def reason_to_skip(self) -> str:
        return "" if library() else "libfaketime is not installed (on Debian and Ubuntu: apt install libfaketime)"

    def names(self, stage: Stage) -> list[str]:
        """The processes whose clock is off."""
        return [name for name in stage.system.names if name.partition("-")[0] in self.parts]

    async def strike(self, stage: Stage) -> None:
        # A projector's clock decides when it schedules and removes deadlines; a spare one does no harm.
        stage.has_spare_timers = True
        names = self.names(stage)
        stage.system.environments |= dict.fromkeys(names, fake_clock(self.offset))
        stage.say(f"the clock of {', '.join(names)} goes {self.offset:+} s")
        await stage.system.restart(*names)
        for name in names:
            text = f"/readyz of {name} does not say that its clock is off"
            await stage.notice(lambda name=name: self._says_so(stage, name), text, _NOTICED)
        # The clock stays wrong: this waits for nothing.
        await asyncio.sleep(stage.size.seconds)

    async def recover(self, stage: Stage) -> None:
        stage.operator("set the clock that /readyz names, and restart the services of that machine")
        stage.system.environments.clear()
        await stage.system.restart(*self.names(stage))
        await self.end_what_waits(stage)

    async def end_what_waits(self, stage: Stage) -> None:
        """End what a fast clock has put an hour away: retries. The slots of rates come back by themselves."""
        waiting = stage.waiting(SLACK)
        if waiting:
            stage.operator(f"opstream cancel ID: {len(waiting)} operations whose next attempt is up to an hour away")
            await asyncio.gather(*(stage.clients.cancel(one, stage.random) for one in waiting))

    async def _says_so(self, stage: Stage, name: str) -> bool:
        _, text = await stage.system.readiness(name)
        return "ClockSkew" in text


class FastRunner(WrongClock):
    """The clock of the runners is an hour ahead of the others."""

    name = "runner-hour-ahead"
    parts = ("runner",)
    offset = HOUR


class SlowRunner(WrongClock):
    """The clock of the runners is an hour behind the others."""

    name = "runner-hour-behind"
    parts = ("runner",)
    offset = -HOUR


class FastApi(WrongClock):
    """The clock of the APIs is an hour ahead of the others."""

    name = "api-hour-ahead"
    parts = ("api",)
    offset = HOUR


class SlowApi(WrongClock):
    """The clock of the APIs is an hour behind the others."""

    name = "api-hour-behind"
    parts = ("api",)
    offset = -HOUR


class FastProjector(WrongClock):
    """The clock of the projector is an hour ahead of the others."""

    name = "projector-hour-ahead"
    parts = ("projector",)
    offset = HOUR


class SlowProjector(WrongClock):
    """The clock of the projector is an hour behind the others."""

    name = "projector-hour-behind"
    parts = ("projector",)
    offset = -HOUR


class SlowBroker(WrongClock):
    """The clocks of all services are an hour ahead of the broker's."""

    name = "broker-hour-behind"
    parts = ("api", "projector", "runner")
    offset = HOUR


class FastBroker(WrongClock):
    """The clocks of all services are an hour behind the broker's."""

    name = "broker-hour-ahead"
    parts = ("api", "projector", "runner")
    offset = -HOUR
