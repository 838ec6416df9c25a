"""Quick actions whose input types use all features of JSON Schema, for tools that read the API's own description.

Tests copy it into a working directory as a user's module.
"""

from __future__ import annotations

import asyncio
import enum
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from opstream import ActionContext, ActionError, action


class Binding(enum.StrEnum):
    """How a book is held together."""

    HARD = "hardcover"
    SOFT = "paperback"


class Chapter(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a book, which may have parts."""

    title: Annotated[str, Meta(min_length=1, max_length=80)]
    pages: Annotated[int, Meta(ge=1, le=5000)] = 1
    parts: Annotated[list[Chapter], Meta(max_length=3)] = []


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """All features of JSON Schema."""

    isbn: Annotated[str, Meta(pattern="^97[89][0-9]{10}$", examples=["9780000000002"])]
    binding: Binding
    format: Literal["A4", "A5", 7]
    price: Annotated[float, Meta(gt=0, lt=10_000)]
    copies: Annotated[int, Meta(ge=10, le=1000, multiple_of=10)] = 10
    due: date | None = None
    ordered: Annotated[datetime, Meta(tz=True)] | None = None
    customer: UUID | None = None
    notes: dict[str, str | int | None] = {}
    size: tuple[int, int] | None = None
    chapters: Annotated[list[Chapter], Meta(max_length=4)] = []


class Printed(msgspec.Struct):
    """The result."""

    pages: int
    order: Order


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """Only optional members."""

    urgent: bool = False
    anything: Any = None


@action("press:print", retry_after=2)
async def print_book(request: Order, ctx: ActionContext) -> Printed:
    """Print an order."""
    await ctx.progress(50, "half of it")
    return Printed(pages=sum(chapter.pages for chapter in request.chapters), order=request)


@action("press:clean")
def clean(request: Wish, ctx: ActionContext) -> None:
    """Clean the press, unless it is urgent."""
    if request.urgent:
        raise ActionError("PressInUse", "the press can't be cleaned in a hurry", target="urgent")


@action("press:dry")
async def dry(request: Wish, ctx: ActionContext) -> Wish:
    """Let the ink dry, for long enough to be canceled."""
    await asyncio.sleep(0.2)
    return request
