# ruff: noqa: ASYNC109 - `timeout` is the clients' own, as in `opstream.client.aio`
"""`client.schedules`: what can be done with schedules (docs/schedules.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from opstream.client.flows import Flows
from opstream.client.io_requests import Flow
from opstream.client.models import Operation

from .flows import ScheduleFlows
from .models import MadeUpMoment, ScheduleOccurrence, ScheduleView

T = TypeVar("T")


class Drive(Protocol):
    """Runs a flow to its end."""

    def __call__(self, flow: Flow[T], /) -> T:
        """Return what the flow returns."""
        ...


class AsyncDrive(Protocol):
    """The same, awaited."""

    def __call__(self, flow: Flow[T], /) -> Awaitable[T]:
        """Return what the flow returns."""
        ...


class ScheduleCalls:
    """Calls about schedules. `timeout` is the seconds until there must be a response; None for no limit.

    Raises (each call):
        InvalidRequest: the request can't be sent.
        RequestRefused: `ScheduleNotFound`, `InvalidInput`, `Forbidden`, …; nothing was changed.
        ServiceUnavailable, UnexpectedAnswer: there was no usable response.

    Args:
        flows: of the client.
        drive: runs them.
    """

    def __init__(self, flows: Flows, drive: Drive) -> None:
        self._flows = ScheduleFlows(flows)
        self._drive = drive

    def set(self, name: str, definition: Mapping[str, Any], *, timeout: float | None = 60.0) -> ScheduleView:
        """Make a schedule, or change it; the definition is that of `PUT /schedules/{name}`."""
        return self._drive(self._flows.set(name, definition, timeout=timeout))

    def get(self, name: str, *, timeout: float | None = 60.0) -> ScheduleView:
        """The schedule as it is now."""
        return self._drive(self._flows.get(name, timeout=timeout))

    def list(self, *, timeout: float | None = 60.0) -> tuple[ScheduleView, ...]:
        """The schedules that the caller may see, by their names."""
        return self._drive(self._flows.list(timeout=timeout))

    def delete(self, name: str, *, timeout: float | None = 60.0) -> None:
        """Delete it. What it has begun goes on."""
        self._drive(self._flows.delete(name, timeout=timeout))

    def pause(self, name: str, *, timeout: float | None = 60.0) -> ScheduleView:
        """Nothing of it begins until it is resumed."""
        return self._drive(self._flows.change(name, "pause", timeout=timeout))

    def resume(self, name: str, *, timeout: float | None = 60.0) -> ScheduleView:
        """It goes on. What was due meanwhile is not made up for."""
        return self._drive(self._flows.change(name, "resume", timeout=timeout))

    def preview(self, name: str, count: int = 10, *, timeout: float | None = 60.0) -> tuple[datetime, ...]:
        """When it is due next, whether it is paused or not; 100 moments at most."""
        return self._drive(self._flows.preview(name, count, timeout=timeout))

    def history(self, name: str, *, timeout: float | None = 60.0) -> tuple[ScheduleOccurrence, ...]:
        """What became of its moments, oldest first."""
        return self._drive(self._flows.history(name, timeout=timeout))

    def trigger(self, name: str, *, timeout: float | None = 60.0) -> Operation:
        """Have an operation of it begin now. It is sent once, since each second it would be another operation."""
        return self._drive(self._flows.trigger(name, timeout=timeout))

    def backfill(
        self, name: str, begin: datetime, end: datetime, *, timeout: float | None = 60.0
    ) -> tuple[MadeUpMoment, ...]:
        """Make up for its moments of a time that has passed, both ends included; 100 at most."""
        return self._drive(self._flows.backfill(name, begin, end, timeout=timeout))


class AsyncScheduleCalls:
    """As `ScheduleCalls`, awaited."""

    def __init__(self, flows: Flows, drive: AsyncDrive) -> None:
        self._flows = ScheduleFlows(flows)
        self._drive = drive

    async def set(self, name: str, definition: Mapping[str, Any], *, timeout: float | None = 60.0) -> ScheduleView:
        """`ScheduleCalls.set`."""
        return await self._drive(self._flows.set(name, definition, timeout=timeout))

    async def get(self, name: str, *, timeout: float | None = 60.0) -> ScheduleView:
        """`ScheduleCalls.get`."""
        return await self._drive(self._flows.get(name, timeout=timeout))

    async def list(self, *, timeout: float | None = 60.0) -> tuple[ScheduleView, ...]:
        """`ScheduleCalls.list`."""
        return await self._drive(self._flows.list(timeout=timeout))

    async def delete(self, name: str, *, timeout: float | None = 60.0) -> None:
        """`ScheduleCalls.delete`."""
        await self._drive(self._flows.delete(name, timeout=timeout))

    async def pause(self, name: str, *, timeout: float | None = 60.0) -> ScheduleView:
        """`ScheduleCalls.pause`."""
        return await self._drive(self._flows.change(name, "pause", timeout=timeout))

    async def resume(self, name: str, *, timeout: float | None = 60.0) -> ScheduleView:
        """`ScheduleCalls.resume`."""
        return await self._drive(self._flows.change(name, "resume", timeout=timeout))

    async def preview(self, name: str, count: int = 10, *, timeout: float | None = 60.0) -> tuple[datetime, ...]:
        """`ScheduleCalls.preview`."""
        return await self._drive(self._flows.preview(name, count, timeout=timeout))

    async def history(self, name: str, *, timeout: float | None = 60.0) -> tuple[ScheduleOccurrence, ...]:
        """`ScheduleCalls.history`."""
        return await self._drive(self._flows.history(name, timeout=timeout))

    async def trigger(self, name: str, *, timeout: float | None = 60.0) -> Operation:
        """`ScheduleCalls.trigger`."""
        return await self._drive(self._flows.trigger(name, timeout=timeout))

    async def backfill(
        self, name: str, begin: datetime, end: datetime, *, timeout: float | None = 60.0
    ) -> tuple[MadeUpMoment, ...]:
        """`ScheduleCalls.backfill`."""
        return await self._drive(self._flows.backfill(name, begin, end, timeout=timeout))
