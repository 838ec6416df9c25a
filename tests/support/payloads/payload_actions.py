"""Actions with large documents and files: `big:echo` returns its input, `big:make` a text of so many characters,
`big:attach` adds a file, `big:step` makes a text in a step, and `big:take` reads uploads, in a handler of each sort."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from opstream_runner import ActionContext, RetryAfter, action


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A text, perhaps a long one."""

    text: str


class Size(msgspec.Struct, forbid_unknown_fields=True):
    """A number of characters."""

    size: int


class Files(msgspec.Struct, forbid_unknown_fields=True):
    """Files of this machine."""

    paths: list[str]
    media_type: str = "application/pdf"
    fails_first: bool = False


@action("big:echo")
async def echo(request: Text, _ctx: ActionContext) -> Text:
    """Return the input."""
    return request


@action("big:hash")
async def sha256(request: Text, _ctx: ActionContext) -> str:
    """Return the SHA-256 of the input's text."""
    return hashlib.sha256(request.text.encode()).hexdigest()


@action("big:make")
async def make(request: Size, _ctx: ActionContext) -> str:
    """Return a text."""
    return "x" * request.size


@action("big:attach", max_attempts=2, backoff=0.1)
async def attach(request: Files, ctx: ActionContext) -> int:
    """Add files."""
    for path in request.paths:
        await ctx.attach(path, request.media_type)
    if request.fails_first and ctx.attempt == 1:
        raise RetryAfter(0)
    return len(request.paths)


@action("big:attach-plain")
def attach_plain(request: Files, ctx: ActionContext) -> int:
    """Add files, in a thread."""
    for path in request.paths:
        ctx.attach(Path(path), request.media_type)
    return len(request.paths)


@action("big:attach-apart", isolation="process")
async def attach_apart(request: Files, ctx: ActionContext) -> int:
    """Add files, in a process."""
    for path in request.paths:
        await ctx.attach(path, request.media_type)
    return len(request.paths)


@action("big:attach-plain-apart", isolation="process")
def attach_plain_apart(request: Files, ctx: ActionContext) -> Any:
    """Add files, in a process, without a loop."""
    for path in request.paths:
        ctx.attach(path, request.media_type)
    return len(request.paths)


class Steps(msgspec.Struct, forbid_unknown_fields=True):
    """A step that makes a long text, in an action whose first attempt fails behind it."""

    size: int
    log: str
    """File that gets a line with each call of the step."""
    fails: int = 1
    """Attempts that fail."""


def make_text(request: Steps) -> str:
    """Return the text, and note that."""
    with Path(request.log).open("a") as file:
        file.write("called\n")
    return "x" * request.size


@action("big:step", max_attempts=4, backoff=0.1)
async def step(request: Steps, ctx: ActionContext) -> int:
    """Make a text once."""
    text = await ctx.step("make", make_text, request)
    if ctx.attempt <= request.fails:
        raise RetryAfter(0)
    return len(text)


@action("big:step-plain", max_attempts=4, backoff=0.1)
def step_plain(request: Steps, ctx: ActionContext) -> int:
    """Make a text once, in a thread."""
    text: str = ctx.step("make", make_text, request)  # type: ignore[assignment]
    if ctx.attempt <= request.fails:
        raise RetryAfter(0)
    return len(text)


@action("big:step-apart", max_attempts=4, backoff=0.1, isolation="process")
async def step_apart(request: Steps, ctx: ActionContext) -> int:
    """Make a text once, in a process."""
    text = await ctx.step("make", make_text, request)
    if ctx.attempt <= request.fails:
        raise RetryAfter(0)
    return len(text)


class Scans(msgspec.Struct, forbid_unknown_fields=True):
    """A folder into which uploads are written."""

    folder: str


@action("big:take")
async def take(request: Scans, ctx: ActionContext) -> dict[str, str]:
    """Return the SHA-256 of each upload."""
    for one in ctx.uploads:
        await ctx.fetch(one.name, Path(request.folder) / one.name)
    return _hashes(request, ctx)


@action("big:take-plain")
def take_plain(request: Scans, ctx: ActionContext) -> dict[str, str]:
    """Return the SHA-256 of each upload, in a thread."""
    for one in ctx.uploads:
        ctx.fetch(one.name, Path(request.folder) / one.name)
    return _hashes(request, ctx)


@action("big:take-apart", isolation="process")
async def take_apart(request: Scans, ctx: ActionContext) -> dict[str, str]:
    """Return the SHA-256 of each upload, in a process."""
    for one in ctx.uploads:
        await ctx.fetch(one.name, Path(request.folder) / one.name)
    return _hashes(request, ctx)


def _hashes(request: Scans, ctx: ActionContext) -> dict[str, str]:
    found = {one.name: Path(request.folder) / one.name for one in ctx.uploads}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
