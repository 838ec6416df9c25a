"""Actions for documents: with tagged unions, generics, recursion, shared types, and types of the same name."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec

from opstream import ActionContext, action
from opstream_runner.authoring.action import Action
from opstream_schemas.action_spec import ActionSpec

from . import other_types

T = TypeVar("T")


class Request(msgspec.Struct):
    """Another type than `other_types.Request`, with its name."""

    how: str = ""


class Cat(msgspec.Struct, tag="cat"):
    """A part of a tagged union."""

    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    """Another part, which refers to the union again."""

    name: str
    friends: list[Cat | Dog] = []


class Visit(msgspec.Struct):
    """A tagged union inside, and a member whose name is a keyword of JSON Schema."""

    pet: Cat | Dog
    default: Cat
    examples: dict[str, Dog] = {}


class Tree(msgspec.Struct):
    """A type that refers to itself."""

    name: str
    branches: list[Tree] = []
    parent: Tree | None = None


class Page(msgspec.Struct, Generic[T]):
    """A generic type."""

    items: list[T]
    after: Page[T] | None = None


class Colour(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Size(TypedDict, total=False):
    """A typed dict."""

    width: int
    depth: int


class Point(NamedTuple):
    """A named tuple."""

    x: float
    y: float = 0.0


@dataclasses.dataclass
class Label:
    """A dataclass."""

    text: Annotated[str, msgspec.Meta(title="Text", max_length=80)]
    other: Annotated[str, msgspec.Meta(title="Text", max_length=90)] = ""


class Status(msgspec.Struct):
    """A type with the name of one of the contract's own."""

    word: Literal["on", "off"]


class Everything(msgspec.Struct):
    """What else types can say."""

    colour: Colour
    size: Size
    point: Point
    label: Label
    status: Status
    day: date
    at: datetime
    lasts: timedelta
    key: uuid.UUID
    price: Decimal
    raw: bytes
    counts: Annotated[dict[str, int], msgspec.Meta(title="Counts")]
    more: Annotated[dict[str, int], msgspec.Meta(title="Counts", description="others")]
    pages: Page[Page[int]]
    pair: tuple[int, str] = (1, "")
    either: int | str | None = None
    any: Any = None


_TYPES: Final[dict[str, tuple[Any, Any]]] = {
    "tagged": (Visit, Dog),
    "union": (Cat | Dog, Cat | Dog | None),
    "shared": (Request, Visit),
    "nothing": (Request, None),
    "other": (other_types.Request, Status),
    "both": (tuple[Request, other_types.Request], list[other_types.Request]),
    "tree": (Tree, Tree),
    "generic": (Page[int], Page[Visit]),
    "plain": (int, str),
    "map": (dict[str, Request], list[Tree]),
    "everything": (Everything, Everything),
}


def typed_specs(*names: str) -> list[ActionSpec]:
    """Return the actions of these names, all of them without a name."""
    return [_action(name).spec for name in names or _TYPES]


def _action(name: str) -> Action[Any, Any]:
    def handler(request: Any, ctx: ActionContext) -> Any:
        """Do something with types."""

    handler.__annotations__.update(zip(("request", "return"), _TYPES[name], strict=True))
    handler.__annotations__["ctx"] = ActionContext
    return action(f"typed:{name}")(handler)
