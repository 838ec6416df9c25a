"""Actions for clients of azure-core: they succeed, fail, or wait until they are released or canceled. A user's module.

A gate is a named pipe: reading it waits until the test has written to it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from opstream import ActionContext, ActionError, action

PACE: Final = 1
"""The actions' `Retry-After`, in seconds."""


class Words(msgspec.Struct, forbid_unknown_fields=True):
    """The text to return."""

    text: str


class Gate(msgspec.Struct, forbid_unknown_fields=True):
    """The gate to wait for."""

    path: str
    """A named pipe."""


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """How to fail."""

    code: int | str
    message: str


@action("azure:say", retry_after=PACE)
async def say(request: Words, ctx: ActionContext) -> Words:
    """Return the input."""
    return request


@action("azure:pass", retry_after=PACE)
def pass_gate(request: Gate, ctx: ActionContext) -> Words:
    """Return the text that is written to a gate."""
    return Words(Path(request.path).read_text(encoding="utf-8"))


@action("azure:fail", retry_after=PACE)
async def fail(request: Fault, ctx: ActionContext) -> Words:
    """Fail with the given error."""
    raise ActionError(request.code, request.message)


@action("azure:wait", retry_after=PACE)
async def wait(request: Words, ctx: ActionContext) -> Words:
    """Wait until canceled."""
    await asyncio.Event().wait()
    return request


def write_module(folder: Path) -> str:
    """Copy this module into a folder, as a user's module; return its name."""
    source = Path(__file__)
    (folder / source.name).write_bytes(source.read_bytes())
    return source.stem
