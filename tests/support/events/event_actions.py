"""Actions that together record all types of events. Tests copy it as a user's module."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from opstream import ActionContext, ActionError, Child, RetryAfter, action


class Crate(msgspec.Struct, forbid_unknown_fields=True):
    """The input of all of them."""

    label: Annotated[str, msgspec.Meta(min_length=1, pattern="^[A-Z][a-z]+$")]
    size: tuple[int, int] | None = None
    packed: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    inner: list[Crate] = []


class Filled(msgspec.Struct):
    """The result of `fill`."""

    crate: Crate
    percent: float


@action("crate:fill")
async def fill(request: Crate, ctx: ActionContext) -> Filled:
    """Fill a crate, halfway first."""
    await ctx.progress(50, "half of it")
    return Filled(request, 99.5)


@action("crate:drop")
async def drop(request: Crate, ctx: ActionContext) -> None:
    """Drop a crate, which fails."""
    raise ActionError("Broken", "it fell", target="label")


@action("crate:lift", retry_after=1)
async def lift(request: Crate, ctx: ActionContext) -> None:
    """Lift a crate, with the second attempt."""
    if ctx.attempt == 1:
        raise RetryAfter(0, "too heavy for one")


@action("crate:pack", retry_after=1)
async def pack(request: Crate, ctx: ActionContext) -> None:
    """Pack a crate in steps with a list, have others fill it, and rest between two of them."""

    def seal() -> None:
        raise OSError("no tape")

    await ctx.attach(__file__, "text/x-python", name="list.py")
    await ctx.step("weigh", lambda: 7, at_most_once=True)
    await ctx.run_all([Child("crate:fill", request)])
    await ctx.sleep(0.2, "rest")
    with contextlib.suppress(OSError):
        await ctx.step("seal", seal)


@action("crate:guard", clean_up=True)
async def guard(request: Crate, ctx: ActionContext) -> Crate:
    """Guard a crate until canceled, and lock it then."""
    try:
        await asyncio.Event().wait()
    finally:
        await ctx.step("lock", lambda: None)
    return request


def write_module(folder: Path) -> str:
    """Copy this module into a folder, as a user's module; return its name."""
    source = Path(__file__)
    (folder / source.name).write_bytes(source.read_bytes())
    return source.stem
