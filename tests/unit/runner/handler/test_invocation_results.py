"""What a handler returns: only what an event can hold and the action declares becomes a result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
import pytest

from opstream_runner import Action, ActionContext, action
from opstream_runner.handler.invocation import Raised, Returned
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Succeeded, encode_event
from opstream_schemas.text import MAX_NESTING
from tests.support.runner.invocations import (
    KINDS,
    LIMIT,
    Body,
    Input,
    asynchronous,
    run,
)
from tests.support.schemas.histories import History, request, started

pytestmark = pytest.mark.unit

both = pytest.mark.parametrize("kind", KINDS)


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class Row(msgspec.Struct, rename="camel"):
    """A part of a result."""

    the_value: Any = 0.0


@dataclass
class Pair:
    """A dataclass that no check looks into."""

    left: Any
    right: Any = None


@both
@pytest.mark.parametrize(
    ("result", "place"),
    [
        (object(), "it is of the type object"),
        ({1, object()}, "is of the type object"),
        ({object(): 1}, "it has a key of the type object, which is no name in JSON"),
        ({"rows": [Row(1.0), Row(Pair(1, {2, complex(1)}))]}, "is of the type complex"),
        ([Row(), Row(Pair(object()))], "its member `[1].theValue.left` is of the type object"),
        ("\ud800", "it has half of a surrogate pair"),
        (["fine", {"inside": "\udfff"}], "its member `[1].inside` has half of a surrogate pair"),
        ({"number": 10**5000}, "its member `number` is a number too large"),
        (_endless(), "it contains itself"),
        (_nested(MAX_NESTING + 1), "it nests deeper than 100 levels"),
        (msgspec.Raw(b"{"), "it is a msgspec.Raw that holds none"),
        (msgspec.Raw(b""), "it is a msgspec.Raw that holds none"),
        (msgspec.Raw(b"1 2"), "it is a msgspec.Raw that holds none"),
        (msgspec.Raw(b'"\xff"'), "it is not UTF-8"),
        ([1, msgspec.Raw(b"nothing")], "its member `[1]` is a msgspec.Raw that holds none"),
        ((one for one in "abc"), "it is a generator; return a list"),
        (math.nan, "it is nan, which is no number"),
        ([Row(1), Row(-math.inf)], "its member `[1].theValue` is -inf, which is no number"),
        ({"a b": {"c": [None, Pair(None, math.inf)]}}, "its member `['a b'].c[1].right` is inf"),
        ({"d": Decimal("NaN")}, "its member `d` is NaN"),
        ([Decimal("-Infinity")], "its member `[0]` is -Infinity"),
        ({math.nan: 1}, "is nan, which is no number"),
        ({1: 2, None: 3}, "has no JSON: it has the key None, which is no name in JSON: use text, or return a list"),
        ({"a": [{("b", 1): 3}]}, "its member `a[0]` has a key of the type tuple, which is no name"),
        ([{object(): 3}], "its member `[0]` has a key of the type object, which is no name"),
        ({"a": {1: {"b": object()}}}, "its member `a[1].b` is of the type object, which has no JSON"),
        ([None, msgspec.Raw(b"1"), math.nan], "its member `[2]` is nan"),
    ],
    ids=lambda one: one if isinstance(one, str) and one.isascii() else "",
)
async def test_a_result_that_no_event_could_hold(
    kind: Callable[[Body], Action[..., Any]], result: Any, place: str
) -> None:
    """It would be the same in each attempt, so the failure is final, and names the member."""
    outcome = await run(kind(lambda: result))
    assert isinstance(outcome, Raised)
    assert (outcome.error.code, outcome.is_meant) == (ErrorCode.INVALID_RESULT, True)
    assert place in outcome.error.message


@pytest.mark.parametrize(
    "result", [None, [None], {"a": None, "b": "NaN is a word"}, [msgspec.Raw(b"null")], Decimal("1.5"), "null", [0.0]]
)
async def test_a_result_without_a_number_is_one(result: Any) -> None:
    """`null` and words are looked at twice, and pass."""
    assert await run(asynchronous(lambda: result)) == Returned(msgspec.json.encode(result))


class Timed(msgspec.Struct):
    """A result with texts of a format."""

    id: UUID
    took: timedelta = timedelta()


class Narrow(msgspec.Struct):
    """A result that opens only as declared."""

    count: int = 0
    share: float = 0.0
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]*$")] = ""
    rows: list[Row] = []

    def __post_init__(self) -> None:
        if self.code == "boom":
            raise LookupError("of its own")


class Wider(Narrow):
    """A subclass with one member more."""

    more: int = 0


def changed(**members: Any) -> Narrow:
    """Return a result whose members were set after it was made."""
    result = Narrow()
    for name, value in members.items():
        setattr(result, name, value)
    return result


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "declares: Expected `object`, got `null`"),
        ({"count": 1.5}, "its member `count`: Expected `int`, got `float`"),
        (changed(count="many"), "its member `count`: Expected `int`, got `str`"),
        (changed(share=math.nan), "its member `share`: Expected `float`, got `null`"),
        (changed(code="AB"), "its member `code`: Expected `str` matching regex"),
        (changed(rows=[{"theValue": 1, "other": 2}]), "its member `rows[0]`: Object contains unknown field `other`"),
        (Wider(more=1), "declares: Object contains unknown field `more`"),
        (changed(code="boom"), "its type raises LookupError"),
    ],
)
async def test_a_result_of_another_type(result: Any, why: str) -> None:
    """What a handler returns is what the document promised, and what a typed client can decode."""

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> Narrow:
        return result  # type: ignore[no-any-return]

    outcome = await run(handler)
    assert isinstance(outcome, Raised)
    assert (outcome.error.code, outcome.is_meant) == (ErrorCode.INVALID_RESULT, True)
    assert why in outcome.error.message


async def test_a_result_whose_whole_type_is_another() -> None:
    """Without a member there is none to name."""

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> Narrow:
        return {"other": 1}  # type: ignore[return-value]

    outcome = await run(handler)
    assert isinstance(outcome, Raised)
    assert outcome.error.message == (
        "the result is not what the action declares: Object contains unknown field `other`"
    )


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"id": "7f4c9e1a54b84b439d5e1f0e4f7e2b11"}, "its member `id`: Invalid UUID: write it with its four hyphens"),
        ({"id": UUID("7f4c9e1a54b84b439d5e1f0e4f7e2b11"), "took": timedelta(seconds=-0.5)}, ""),
        ({"id": "7F4C9E1A-54B8-4B43-9D5E-1F0E4F7E2B11", "took": "PT1,5S"}, "its member `took`: Invalid ISO8601"),
    ],
)
async def test_a_result_has_the_format_that_is_announced(result: Any, why: str) -> None:
    """A UUID has its hyphens, as a client's validator expects; a duration may be negative and have a fraction."""

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> Timed:
        return result  # type: ignore[no-any-return]

    outcome = await run(handler)
    if isinstance(outcome, Raised):
        assert why
        assert why in outcome.error.message
    else:
        assert outcome == Returned(b'{"id":"7f4c9e1a-54b8-4b43-9d5e-1f0e4f7e2b11","took":"-PT0.5S"}')


async def test_a_result_that_only_looks_like_its_type() -> None:
    """Its JSON counts, not the Python class that made it."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> Narrow:
        return {"count": 1, "rows": [{"theValue": None}]}  # type: ignore[return-value]

    assert await run(handler) == Returned(b'{"count":1,"rows":[{"theValue":null}]}')


async def test_the_deepest_result() -> None:
    """A result may nest as deeply as the journal accepts, and then makes an event."""
    outcome = await run(asynchronous(lambda: _nested(MAX_NESTING)))
    assert isinstance(outcome, Returned)
    history = History().append(request(), started())
    assert encode_event(history.next_event(Succeeded(result=msgspec.Raw(outcome.result))))


@both
@pytest.mark.parametrize(("size", "is_allowed"), [(LIMIT, True), (LIMIT + 1, False)])
async def test_the_limit_of_a_result(kind: Callable[[Body], Action[..., Any]], size: int, *, is_allowed: bool) -> None:
    """A result may have exactly the limit's bytes of JSON; one more fails the operation, with both numbers in the
    error."""
    text = "x" * (size - 2)
    outcome = await run(kind(lambda: text))
    if is_allowed:
        assert outcome == Returned(f'"{text}"'.encode())
    else:
        assert isinstance(outcome, Raised)
        assert (outcome.error.code, outcome.is_meant) == (ErrorCode.RESULT_TOO_LARGE, True)
        assert f"{LIMIT + 1} bytes of JSON, {LIMIT} are" in outcome.error.message


class Whole(int):
    """A number of a class of its own, which says something else."""

    def __index__(self) -> int:
        return 7

    __int__ = __index__


class Real(float):
    """As numpy.float64 is."""


class Words(str):
    """A text of a class of its own."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("result", "encoded"),
    [
        (Whole(5), b"5"),
        (Real(1.5), b"1.5"),
        (Words("a"), b'"a"'),
        ({Words("a"): [Whole(1), Real(2)]}, b'{"a":[1,2.0]}'),
        ({Whole(1): None}, b'{"1":null}'),
    ],
)
async def test_a_result_of_a_subclass(result: Any, encoded: bytes) -> None:
    """A subclass of a number or a text is in JSON what its base is."""
    assert await run(asynchronous(lambda: result)) == Returned(encoded)


class Labels(msgspec.Struct):
    """A result with a set."""

    labels: set[str]
    rows: dict[str, int] = {}
    raw: Any = None


class Kept(msgspec.Struct):
    """A result with a part that is not decoded."""

    raw: msgspec.Raw


@pytest.mark.parametrize(
    ("declared", "result", "why"),
    [
        (set[int], [1, 1], "an item comes twice where a set is declared"),
        (list[set[int]], [[1], [2, 2]], "an item comes twice"),
        (Labels, {"labels": ["a,b", "a,b"]}, "an item comes twice"),
        (set[Any], [[], []], "its type raises TypeError"),
        (Any, {1: "a", "1": "b"}, 'an object has the member "1" twice'),
        (dict[str, Any], {"a": [{1: "a", "1": "b"}]}, 'an object has the member "1" twice'),
        (dict[str, int], {1: 1, "1": 2}, 'an object has the member "1" twice'),
        (Any, msgspec.Raw(b'{"a":1,"a":2}'), 'an object has the member "a" twice'),
        (msgspec.Raw, msgspec.Raw(b'{"a":1,"\\u0061":2}'), 'an object has the member "a" twice'),
        (Labels, Labels(set(), raw=msgspec.Raw(b'[{"a":1,"a":2}]')), 'an object has the member "a" twice'),
        (Kept, Kept(msgspec.Raw(b'[{"a":1,"a":2}]')), 'an object has the member "a" twice'),
        (Labels, Labels(set(), rows={1: 1, "1": 2}), 'an object has the member "1" twice'),  # type: ignore[dict-item]
        (dict[float, int], {"1": 1, "1.0": 2}, 'the names "1" and "1.0" are the same key'),
        (dict[str, dict[UUID, int]], {"a": {str(UUID(int=10)): 1, str(UUID(int=10)).upper(): 2}}, "are the same key"),
        (Any, [Real("nan")], "its member `[0]` is nan"),
    ],
)
async def test_a_result_with_something_twice(declared: Any, result: Any, why: str) -> None:
    """What the API refuses as an input no result has: sets have no item twice, and objects no member."""

    def handler(request: Any, ctx: Any) -> Any:
        return result

    handler.__annotations__ = {"request": Any, "ctx": ActionContext, "return": declared}
    outcome = await run(action("book:act")(handler))
    assert isinstance(outcome, Raised)
    assert (outcome.error.code, outcome.is_meant) == (ErrorCode.INVALID_RESULT, True)
    assert why in outcome.error.message


@pytest.mark.parametrize(
    ("declared", "result"),
    [
        (set[int], [1, 2]),
        (Labels, Labels({"a", "b,c"}, {"a": 1}, msgspec.Raw(b'{"a": "x:y,"}'))),
        (Labels, {"labels": [], "rows": {"x": 1}}),
        (Kept, Kept(msgspec.Raw(b'{"a": {"a": 1}}'))),
        (Any, {"a": {"a": ":"}, "b": [None, 1.0, 2**70]}),
    ],
)
async def test_a_result_with_nothing_twice(declared: Any, result: Any) -> None:
    """Colons and commas in texts, and sets in any order, are nothing that comes twice."""

    def handler(request: Any, ctx: Any) -> Any:
        return result

    handler.__annotations__ = {"request": Any, "ctx": ActionContext, "return": declared}
    assert await run(action("book:act")(handler)) == Returned(msgspec.json.encode(result))


SLOW: Final = "a" * 37 + "!"
"""A text for which Python's `re` would take hours, with the interpreter's lock held."""


class Slow(msgspec.Struct):
    """Texts of a pattern that backtracks, in all places where a text can be."""

    text: Annotated[str, msgspec.Meta(pattern=r"^(a+)+$")] = "a"
    names: dict[Annotated[str, msgspec.Meta(pattern=r"^(a+)+$")], int] = {}
    parts: tuple[int, Annotated[str, msgspec.Meta(pattern=r"^(?=a)(a|a(?!c))+$")] | None] = (1, None)
    more: list[Slow] = []


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    ("slow", "place", "why"),
    [
        (Slow(text=SLOW), "text", "Expected `str` matching regex '^(a+)+$'"),
        (Slow(more=[Slow(), Slow(text=SLOW)]), "more[1].text", "Expected `str` matching regex"),
        (Slow(names={SLOW: 1}), "names", "Expected `str` matching regex"),
        (Slow(parts=(1, SLOW)), "parts[1]", "the pattern '^(?=a)(a|a(?!c))+$' takes too many steps"),
    ],
    ids=["member", "list", "name", "look-around"],
)
async def test_a_pattern_that_backtracks(slow: Slow, place: str, why: str, *, is_async: bool) -> None:
    """What a bounded engine does not take Python's never sees: neither in a result nor in an input."""

    async def awaited(request: Any, ctx: Any) -> Any:
        return slow

    def called(request: Any, ctx: Any) -> Any:
        return slow

    def taking(given: Any, returned: Any) -> Action[..., Any]:
        handler = awaited if is_async else called
        handler.__annotations__ = {"request": given, "ctx": ActionContext, "return": returned}
        return action("book:act")(handler)

    outcome = await run(taking(Any, Slow))
    assert isinstance(outcome, Raised)
    assert (outcome.error.code, outcome.is_meant) == (ErrorCode.INVALID_RESULT, True)
    assert f"the result is not what the action declares: its member `{place}`: {why}" in outcome.error.message
    outcome = await run(taking(Slow, Any), given=msgspec.json.encode(slow))
    assert isinstance(outcome, Raised)
    assert (outcome.error.code, outcome.is_meant) == (ErrorCode.INVALID_INPUT, True)
    assert outcome.error.message.startswith(why)
    assert f"$.{place}`" in outcome.error.message
