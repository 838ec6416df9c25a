"""The JSON Schemas that `@action` announces for the types of an action, and the types that it refuses."""

import enum
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import jsonschema_rs
import msgspec
import pytest
from pydantic import BaseModel

from opstream_runner import Action, ActionContext, InvalidAction, action

pytestmark = pytest.mark.unit


def taking(model: Any, result: Any = int) -> Action[..., Any]:
    """An action with this type of input, and of result."""

    def handler(request: Any, ctx: Any) -> Any:
        return None

    handler.__annotations__ = {"request": model, "ctx": ActionContext, "return": result}
    return action("book:print")(handler)


def fits(schema: dict[str, Any], document: object) -> bool:
    """Return True if the API takes a document as valid."""
    return jsonschema_rs.Draft202012Validator(schema).is_valid(document)


class Unresolved(msgspec.Struct):
    book: "Bok"  # type: ignore[name-defined]  # noqa: F821


class Left(msgspec.Struct):
    a: int


class Right(msgspec.Struct):
    b: int


@pytest.mark.parametrize("model", [complex, object, Unresolved, Left | Right, AsyncIterator[int], dict[str, complex]])
def test_a_type_without_a_schema_is_refused(model: Any) -> None:
    """A type that the API could not validate, or the runner not decode, is refused, as input and as result."""
    with pytest.raises(InvalidAction, match=r"action book:print: .* has no JSON"):
        taking(model)
    with pytest.raises(InvalidAction, match=r"action book:print: .* has no JSON"):
        taking(int, model)


class Part(msgspec.Struct):
    name: str
    parts: "list[Part]" = []


class Pair(TypedDict):
    left: Part


@dataclass
class Card:
    part: Part


class Point(NamedTuple):
    part: Part


class Everything(msgspec.Struct, rename="camel"):
    one_part: Part
    many: list[Part]
    named: dict[str, Part]
    maybe: Part | None
    pair: Pair
    card: Card
    point: Point


PART = {"name": "p", "parts": [{"name": "q"}]}
WRONG = {"name": "p", "parts": [{"name": "q", "colour": "red"}]}
EVERYTHING: dict[str, Any] = {
    "onePart": PART,
    "many": [PART],
    "named": {"any key": PART},
    "maybe": None,
    "pair": {"left": PART},
    "card": {"part": PART},
    "point": [PART],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "red"},
        {"one_part": PART},
        {"onePart": WRONG},
        {"many": [WRONG]},
        {"named": {"a": WRONG}},
        {"maybe": WRONG},
        {"pair": {"left": WRONG}},
        {"pair": {"left": PART, "right": PART}},
        {"card": {"part": PART, "more": 1}},
        {"point": [WRONG]},
    ],
)
def test_every_object_is_closed(changes: dict[str, Any]) -> None:
    """At any depth, in lists, maps, unions and recursion, a member that the type does not have is refused."""
    spec = taking(Everything, Everything).spec

    for schema in (spec.input_schema, spec.result_schema):
        assert fits(schema, EVERYTHING)
        assert not fits(schema, EVERYTHING | changes)


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


def test_a_tagged_union_is_closed_around_its_tags() -> None:
    """The tag is a member like any other, and each branch accepts only its own members."""
    schema = taking(Cat | Dog).spec.input_schema

    assert fits(schema, {"type": "cat", "lives": 9})
    assert not fits(schema, {"type": "cat", "name": "Rex"})
    assert not fits(schema, {"type": "cat", "lives": 9, "name": "Rex"})


def test_a_map_stays_a_map() -> None:
    """A `dict` has members of any name, of its value type."""
    schema = taking(dict[str, int]).spec.input_schema

    assert fits(schema, {"anything": 1})
    assert not fits(schema, {"anything": "x"})
    assert fits(taking(dict).spec.input_schema, {"anything": "x"})


def test_a_constraint_is_announced() -> None:
    """The API checks the constraints of the author's types."""
    schema = taking(Annotated[int, msgspec.Meta(ge=0)]).spec.input_schema

    assert fits(schema, 0)
    assert not fits(schema, -1)


class Template(msgspec.Struct, frozen=True):
    type: str = "object"
    properties: dict[str, int] = {}


class Form(msgspec.Struct):
    template: Template = Template()
    enum: Literal["object"] = "object"
    default: Part | None = None


def test_values_in_a_schema_are_not_schemas() -> None:
    """A default that looks like an object's schema stays as it is, and members named like keywords are still closed."""
    schema = taking(Form).spec.input_schema

    properties = schema["$defs"]["Form"]["properties"]
    assert properties["template"]["default"] == {"type": "object", "properties": {}}
    assert fits(schema, {"template": {"type": "x", "properties": {"a": 1}}, "enum": "object", "default": PART})
    assert not fits(schema, {"default": WRONG})
    assert not fits(schema, {"template": {"type": "x", "colour": "red"}})


class Model(BaseModel):
    """A model of Pydantic's."""

    name: str


class Holder(msgspec.Struct):
    """It has a member that is one."""

    model: Model


class Wide(enum.Flag):
    """Too many combinations to list."""

    A, B, C, D, E, F, G, H, X = (2**number for number in range(9))


class Huge(enum.IntEnum):
    """A value that msgspec can't look up."""

    BIG = 2**63


@dataclass
class Card:
    """It has no hash."""

    name: str


class Box(msgspec.Struct, frozen=True):
    """Its hash is that of its members, and one has none."""

    items: list[int]


@dataclass(frozen=True)
class FrozenCard:
    """A member's member has no hash."""

    box: Box


class Ring(msgspec.Struct, frozen=True):
    """Recursive, with a hash."""

    inner: "tuple[Ring, ...]" = ()


class Same(msgspec.Struct, eq=False):
    """Its hash is its identity."""

    items: list[int]


class Own(msgspec.Struct):
    """Its author wrote the hash."""

    items: list[int]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and self.items == other.items

    def __hash__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Noted:
    """The member without a hash is none of the hash."""

    name: str
    notes: list[str] = field(compare=False, default_factory=list)


@pytest.mark.parametrize("item", [Ring, Same, Own, Noted, Any, memoryview, tuple[int, ...], int | frozenset[str]])
def test_items_of_a_set_with_a_hash(item: Any) -> None:
    """A hash need not be made from all members."""
    assert taking(set[item]).spec.input_schema["uniqueItems"] is True


def text(pattern: str) -> Any:
    """Return a type of text with a pattern."""
    return Annotated[str, msgspec.Meta(pattern=pattern)]


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        (Model, "Model is a Pydantic model, which opstream does not read: use msgspec.Struct, a dataclass"),
        (list[Model], "use msgspec.Struct, a dataclass"),
        (Holder, "use msgspec.Struct, a dataclass"),
        (complex, "is none of the supported types: use msgspec.Struct"),
        (Left | Right, "tagged"),
        (dict[tuple[int, int], int], "a mapping with keys of Tuple has no JSON: use text"),
        (dict[bool, int], "a mapping with keys of Bool"),
        (Annotated[float, msgspec.Meta(multiple_of=0.1)], "use decimal.Decimal, or an int of a smaller unit"),
        (Huge, "no JSON Schema"),
        *(
            (one, "beyond 64 bits, which is not supported: take one from -2\\*\\*63 to 2\\*\\*63 - 1, or leave it out")
            for number in (2**63, -(2**63) - 1, 2**70)
            for one in (
                Annotated[int, msgspec.Meta(ge=number)],
                list[Annotated[int, msgspec.Meta(le=number)]],
                dict[Annotated[int, msgspec.Meta(lt=number)], str],
                msgspec.defstruct("Counter", [("count", Annotated[int, msgspec.Meta(gt=number)])]),
            )
        ),
        (Wide, "use a list of an Enum"),
        (text(r"\D"), r"write \[\^0-9\]"),
        (text("(a{1000}){1000}"), "write a simpler one"),
        (Annotated[str, msgspec.Meta(extra_json_schema={"$ref": "#/$defs/none"})], "no JSON Schema"),
        (Annotated[int, msgspec.Meta(extra_json_schema={"not": 3})], "no JSON Schema"),
        (set[Left], "the items of a set need a hash; Left can't be hashed: declare it with frozen=True"),
        (frozenset[Card], "Card can't be hashed: declare it with frozen=True"),
        (set[Box], r"its member Box.items: a list can't be hashed: write tuple\[…, ...\]"),
        (set[FrozenCard], "its member FrozenCard.box: its member Box.items: a list"),
        (set[list[int]], r"write tuple\[…, ...\]"),
        (set[tuple[int, list[int]]], r"write tuple\[…, ...\]"),
        (list[set[int | set[int] | None]], r"write frozenset\[…\]"),
        (dict[str, frozenset[dict[str, int]]], "a frozen Struct"),
        (set[bytearray], "write bytes"),
        (set[msgspec.Raw], "write a list of them"),
        (
            Annotated[int, msgspec.Meta(examples=[object])],
            r"what describes it \(examples, extra_json_schema\) has no JSON",
        ),
        (Annotated[str, msgspec.Meta(extra_json_schema={"x-a": "\ud800"})], "what describes it"),
    ],
)
def test_a_refusal_says_what_to_use(model: Any, advice: str) -> None:
    """As input and as result, at the decorator and not at the first request."""
    for types in ((model,), (int, model)):
        with pytest.raises(InvalidAction, match=r"action book:print: .*" + advice):
            taking(*types)


def test_a_refused_pattern_is_the_whole_reason() -> None:
    """Nothing is said of what the author did not write."""
    with pytest.raises(InvalidAction) as caught:
        taking(text(r"\bx"))
    assert str(caught.value).startswith(
        r"action book:print: the pattern '\\bx' would not mean the same to every reader: "
    )


@dataclass
class Summed:
    """It sets a member itself."""

    parts: list[int]
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = sum(self.parts)


@attrs.define
class Drawn:
    """The same with attrs."""

    parts: list[int]
    total: int = attrs.field(init=False, default=0)


@pytest.mark.parametrize("model", [Summed, Drawn, list[Summed], dict[str, Drawn | None]])
def test_a_member_that_only_its_class_sets(model: Any) -> None:
    """A client could send it, so no input has one; in a result it is a member like the others."""
    with pytest.raises(
        InvalidAction, match=r"\.total has init=False, but a client could send it.*: make it a property"
    ):
        taking(model)
    assert "total" in str(taking(int, model).spec.result_schema)


@pytest.mark.parametrize(
    ("pattern", "announced"),
    [(r"\A[a-z]+\Z", "^[a-z]+$"), (r"^\d+$", "^[0-9]+$"), ("^[a-z]+$", "^[a-z]+$")],
)
def test_a_pattern_is_announced_in_words_of_all_engines(pattern: str, announced: str) -> None:
    """An API of 0.2.0 can compile it, too."""
    assert taking(text(pattern)).spec.input_schema["pattern"] == announced


def test_an_action_without_patterns_does_not_load_the_engine() -> None:
    """Unit tests of actions, and processes of isolated ones, stay light."""
    code = (
        "import sys, msgspec; from opstream_runner import action, ActionContext\n"
        "class In(msgspec.Struct):\n    a: int\n"
        "def f(request: In, ctx: ActionContext) -> dict[str, int]: ...\n"
        "action('a:b')(f)\n"
        "assert 'jsonschema_rs' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
