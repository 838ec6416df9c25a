"""All types that an action may have, each with JSON that it takes, that it does not take, and at its borders.

The table in docs/actions.md is made from this list, and the tests walk it.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, Required, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct


class TypeCase(Struct, frozen=True, kw_only=True):
    """One type."""

    name: str
    """As an author writes it; unique."""
    type: Any
    json: str = ""
    """What a client sends for it; empty for a case that is only a variant of the one before it."""
    taken: list[str]
    """JSON documents that API and runner take."""
    refused: list[str]
    """JSON documents that neither takes."""
    spelled: dict[str, str] = {}
    """JSON documents that the API takes and records in another spelling, which the runner takes."""
    narrower: dict[str, str] = {}
    """JSON documents that only the API refuses, with the reason."""


class Colour(enum.Enum):
    """Text."""

    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    """Whole numbers."""

    SMALL = 1
    LARGE = 2


class Rights(enum.Flag):
    """Sums of flags."""

    READ = 1
    WRITE = 2


class Book(Struct):
    """An open struct."""

    title: str
    pages: int = 0


class Closed(Struct, forbid_unknown_fields=True, rename="camel"):
    """A closed struct with renamed members."""

    full_name: str
    note: str | msgspec.UnsetType = msgspec.UNSET
    count: int | None = None


class Tree(Struct):
    """Recursive."""

    value: int
    children: list[Tree] = []


class Cat(Struct, tag="cat"):
    """A tagged struct."""

    lives: int = 9


class Dog(Struct, tag="dog"):
    """Another one."""

    name: str
    friend: Cat | Dog | None = None


class Prices(Struct, tag="prices"):
    """With a mapping whose keys have several spellings, a pattern, and itself."""

    by_rate: dict[float, int] = {}
    note: Annotated[str, Meta(pattern="^[a-z]*$")] = ""
    then: Prices | None = None


class One(Struct, tag=1, tag_field="version"):
    """Tagged by a number."""

    x: int


class Two(Struct, tag=2, tag_field="version"):
    """Another one."""

    y: int


class Row(Struct, array_like=True):
    """A struct that is an array."""

    key: str
    value: int = 0


class ClosedRow(Struct, array_like=True, forbid_unknown_fields=True):
    """The same, without further items."""

    key: str
    value: int = 0


class Add(Struct, array_like=True, tag="add"):
    """A tagged array."""

    amount: int


class Drop(Struct, array_like=True, tag="drop"):
    """Another one."""

    name: str = ""


@dataclass
class Card:
    """A dataclass."""

    name: str
    tags: list[str] = field(default_factory=list)


class Options(TypedDict, total=False):
    """A TypedDict."""

    name: Required[str]
    size: int


class Point(NamedTuple):
    """A NamedTuple."""

    x: int
    y: int = 0


class Spot(Struct, frozen=True):
    """A struct with a hash."""

    x: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """A dataclass with a hash."""

    at: Point


Item = TypeVar("Item")


class Page(Struct, Generic[Item]):
    """Generic."""

    items: list[Item]
    next: str = ""


Isbn = NewType("Isbn", str)

FRACTION: Final = "a JSON number loses digits in most clients, so a decimal is text"
ONE_SPELLING: Final = "one plain spelling for all clients"
UNKNOWN: Final = "an unknown member is mostly a misspelled one"
UNIQUE: Final = "the document promises unique items"
HYPHENS: Final = "to other readers of the format, a UUID has hyphens"
SCRIPTS: Final = "digits and letters of other scripts are rarely meant"
LINE_END: Final = "a line feed at the end is rarely meant"
UNTAGGED: Final = "the document says that the tag is required"
NOT_FINITE: Final = "JSON has no such number"

CASES: Final[list[TypeCase]] = [
    TypeCase(
        name="`None`",
        type=None,
        json="`null`; an empty body is `{}`, so it needs `null`",
        taken=["null"],
        refused=["{}", "0", "false", '""'],
    ),
    TypeCase(
        name="`bool`",
        type=bool,
        json="`true`, `false`",
        taken=["true", "false"],
        refused=["0", "1", '"true"', "null"],
    ),
    TypeCase(
        name="`int`",
        type=int,
        json="a whole number of any size; up to 2^53 also as `1.0` or `1e2`, which is recorded as `1` or `100`",
        taken=[
            *("0", "-0", "1", "-1", "9223372036854775807", "9223372036854775808", "-9223372036854775808"),
            *("-9223372036854775809", "18446744073709551615", "18446744073709551616", "1" * 100),
        ],
        refused=[
            *("1.5", "true", '"1"', "null", "[]", "{}", "1" * 5000, "9007199254740993.0", "9007199254740992.7"),
            *("4503599627370497.4", "1.00000000000000000001", "0.99999999999999999999", "-1e-999", "1e300"),
        ],
        spelled={
            "1.0": "1",
            "1e2": "100",
            "-0.0": "0",
            "0e99999999999999999999": "0",
            "10.00e-1": "1",
            "9007199254740992.0": "9007199254740992",
            "4503599627370497.000": "4503599627370497",
        },
    ),
    TypeCase(
        name="`Annotated[int, Meta(ge=…, gt=…, le=…, lt=…, multiple_of=…)]`",
        type=Annotated[int, Meta(ge=-2, lt=10, multiple_of=2)],
        json="the same, within the limits",
        taken=["-2", "0", "8"],
        refused=["-4", "-3", "1", "10", "9", "18446744073709551616", "-18446744073709551616"],
        spelled={"2.0": "2"},
    ),
    TypeCase(
        name="large limits",
        type=Annotated[int, Meta(gt=9007199254740992, le=9223372036854775807)],
        taken=["9007199254740993", "9223372036854775807"],
        refused=["9007199254740992", "9223372036854775808", "18446744073709551616"],
    ),
    TypeCase(
        name="`float`",
        type=float,
        json="any number that a double can hold; `1` and `1.0` are the same",
        taken=["0", "-0.0", "1", "1.0", "1e2", "1.5E-3", "18446744073709551616", "1.7976931348623157e308", "5e-324"],
        refused=["1e309", "1" * 400, '"1.5"', '"NaN"', "null", "true"],
    ),
    TypeCase(
        name="`Annotated[float, Meta(ge=…, …, multiple_of=0.5)]`",
        type=Annotated[float, Meta(gt=0, le=2, multiple_of=0.5)],
        json="the same, within the limits; a `multiple_of` must be exact as a float",
        taken=["0.5", "1", "2.0", "1.5"],
        refused=["0", "0.25", "2.5", "0.30000000000000004"],
    ),
    TypeCase(
        name="`str`",
        type=str,
        json="text; half a surrogate pair is no text",
        taken=['""', '"a"', '"é"', '"\\u0000"', '"\\ud83d\\ude00"', '"2020-01-01"'],
        refused=["1", "null", "[]", '"\\ud83d"'],
    ),
    TypeCase(
        name="`Annotated[str, Meta(min_length=…, max_length=…)]`",
        type=Annotated[str, Meta(min_length=1, max_length=2)],
        json="the same; lengths count code points",
        taken=['"a"', '"ab"', '"😀😀"', '"e\u0301"'],
        refused=['""', '"abc"', '"e\u0301e"'],
    ),
    TypeCase(
        name="`Annotated[str, Meta(pattern=…)]`",
        type=Annotated[str, Meta(pattern=r"^[a-z]{2}-[0-9]+$")],
        json="the same; [which patterns](#patterns)",
        taken=['"ab-1"', '"ab-123"'],
        refused=['"ab-"', '"AB-1"', '" ab-1"', '"ab-1\\n\\n"', '"ab-1\\n"'],
    ),
    TypeCase(
        name="short classes",
        type=Annotated[str, Meta(pattern=r"\A\d\w\s\S.\Z")],
        taken=['"1a xy"', '"1_\\u0085x\\r"', '"1a\\u001cx\\u2028"'],
        refused=[
            *('"aa xy"', '"1a\\ufeffxy"', '"1a xy\\n"', '"1a x\\n"', '"1a  y"'),
            *('"\u0661a xy"', '"1é xy"'),  # Python's own `\\d` and `\\w` take them
        ],
    ),
    TypeCase(
        name="letters of both cases",
        type=Annotated[str, Meta(pattern=r"(?i)^(?P<word>sk|[x-z]+)$")],
        taken=['"sk"', '"SK"', '"xYz"', '"\u017fK"', '"S\u212a"'],
        refused=['"s"', '"a"', '"xYzs"'],
    ),
    TypeCase(
        name="a pattern that takes too many steps",
        type=dict[str, list[Annotated[str, Meta(pattern=r"^(a+)+$")] | None]],
        taken=['{"x": [null, "a"]}', '{"x": ["' + "a" * 37 + '"]}'],
        refused=['{"x": ["' + "a" * 37 + '!"]}', '{"x": [null, "b"]}'],
    ),
    TypeCase(
        name="`bytes`, `bytearray`, `memoryview`",
        type=bytes,
        json="base64 text (RFC 4648 §4, with `=`)",
        taken=['""', '"YQ=="', '"YWI="', '"+/+/"', '"YR=="'],
        refused=['"YQ"', '"YQ="', '"_-_-"', '"YQ==\\n"', '"Y Q="', '"é"', "1", "null"],
    ),
    TypeCase(
        name="`Annotated[bytes, Meta(max_length=…)]`",
        type=Annotated[bytes, Meta(min_length=1, max_length=2)],
        json="the same; lengths count bytes",
        taken=['"YQ=="', '"YWI="'],
        refused=['""', '"YWJj"', '"YWJjZA=="'],
    ),
    TypeCase(
        name="bytearray",
        type=Annotated[bytearray, Meta(min_length=2)],
        taken=['"YWI="'],
        refused=['"YQ=="', "[1, 2]"],
    ),
    TypeCase(name="memoryview", type=memoryview, taken=['"YWI="'], refused=['"YW"', "1"]),
    TypeCase(
        name="`datetime.datetime`",
        type=dt.datetime,
        json="RFC 3339, with or without an offset: `2026-11-29T08:00:00Z`",
        taken=[
            '"2026-11-29T08:00:00Z"',
            '"2026-11-29t08:00:00z"',
            '"2026-11-29 08:00:00+23:59"',
            '"2026-11-29T08:00:00"',
            '"2026-11-29T08:00:00.123456789Z"',
            '"0001-01-01T00:00:00Z"',
            '"9999-12-31T23:59:59.999999-10:00"',
            '"2024-02-29T00:00:00Z"',
        ],
        refused=[
            '"2026-02-30T00:00:00Z"',
            '"2026-02-29T00:00:00Z"',
            '"2026-11-29T24:00:00Z"',
            '"2026-06-30T23:59:60Z"',
            '"2026-11-29T08:00Z"',
            '"2026-11-29T08:00:00+24:00"',
            '"2026-11-29"',
            '"0000-01-01T00:00:00Z"',
            '"9999-12-31T23:59:59.9999999Z"',
            "1764403200",
        ],
    ),
    TypeCase(
        name="`Annotated[datetime.datetime, Meta(tz=True)]`",
        type=Annotated[dt.datetime, Meta(tz=True)],
        json="with an offset; `tz=False`: without",
        taken=['"2026-11-29T08:00:00Z"', '"2026-11-29T08:00:00.5+01:00"'],
        refused=['"2026-11-29T08:00:00"', '"2026-02-30T00:00:00Z"', '"2016-12-31T23:59:60Z"', '"x"'],
    ),
    TypeCase(
        name="a local date and time",
        type=Annotated[dt.datetime, Meta(tz=False)],
        taken=['"2026-11-29T08:00:00"'],
        refused=['"2026-11-29T08:00:00Z"', '"2026-02-30T00:00:00"'],
    ),
    TypeCase(
        name="`datetime.date`",
        type=dt.date,
        json="`2026-11-29`, a day that exists",
        taken=['"2026-11-29"', '"2024-02-29"', '"0001-01-01"', '"9999-12-31"'],
        refused=['"2026-02-30"', '"2026-02-29"', '"0000-01-01"', '"20261129"', '"2026-11-29T00:00:00"', '"2026-1-1"'],
    ),
    TypeCase(
        name="`datetime.time`",
        type=dt.time,
        json="`08:00:00`, with or without an offset; `Meta(tz=…)` as above",
        taken=['"08:00:00"', '"08:00:00Z"', '"23:59:59.9999994"', '"08:00:00.5+01:00"', '"08:59:59.9999999"'],
        refused=[
            *('"24:00:00"', '"23:59:60"', '"08:00"', '"8:00:00"', "8"),
            *('"23:59:59.9999999"', '"23:59:59.9999995Z"', '"\\u0032\\u0033:59:59.9999999"'),
        ],
    ),
    TypeCase(
        name="a time with an offset",
        type=Annotated[dt.time, Meta(tz=True)],
        taken=['"08:00:00Z"', '"08:00:00+01:00"'],
        refused=['"08:00:00"', '"24:00:00Z"', '"23:59:60Z"', '"23:59:59.9999999+01:00"'],
    ),
    TypeCase(
        name="a local time",
        type=Annotated[dt.time, Meta(tz=False)],
        taken=['"08:00:00"'],
        refused=['"08:00:00Z"', '"24:00:00"', '"23:59:59.9999999"'],
    ),
    TypeCase(
        name="`datetime.timedelta`",
        type=dt.timedelta,
        json="ISO 8601 of days, hours, minutes and seconds: `P1DT12H`, `PT0.5S`, `-PT5M`; no weeks, months or years; "
        "rounded to microseconds. The schema has a pattern for it, since `format: duration` takes neither a sign nor a "
        "fraction",
        taken=[
            *('"P1D"', '"PT0.5S"', '"P1DT12H30M5.25S"', '"-P1D"', '"+P1D"', '"p1d"', '"PT24H"', '"P999999999D"'),
            *('"PT0.0000001S"', '"P0.5D"', '"PT1.5H"', '"PT1H1S"', '"PT1H0.5M"', '"-p1dt1h"', '"P0D"', '"PT0S"'),
        ],
        refused=[
            *('"P1W"', '"P1Y"', '"P1M"', '"P"', '"PT"', '"P1DT"', '"1D"', '"P9999999999D"', "1", "1.5"),
            *('"PT.5S"', '"PT5.S"', '"P0.5DT1H"', '"PT0.5H1S"', '"P-1D"', '"PT1M1H"', '"PT0,5S"', '"P1D\\n"', '" P1D"'),
        ],
    ),
    TypeCase(
        name="`uuid.UUID`",
        type=uuid.UUID,
        json="text with its hyphens, in small or capital letters",
        taken=['"7f4c9e1a-54b8-4b43-9d5e-1f0e4f7e2b11"', '"7F4C9E1A-54B8-4B43-9D5E-1F0E4F7E2B11"'],
        narrower={'"7f4c9e1a54b84b439d5e1f0e4f7e2b11"': HYPHENS},
        refused=['"{7f4c9e1a-54b8-4b43-9d5e-1f0e4f7e2b11}"', '"7f4c9e1a"', '"urn:uuid:x"', "1"],
    ),
    TypeCase(
        name="`decimal.Decimal`",
        type=decimal.Decimal,
        json='text: `"1.50"`; ASCII digits, a sign, a point, an exponent',
        taken=['"1.50"', '"-0"', '"+1"', '"1e5"', '".5"', '"5."', '"1E-30"', '"' + "9" * 60 + '"'],
        refused=['""', '"a"', '"1,5"', '"0x1"', "true", "null", '"1 2"'],
        narrower={
            "1.5": FRACTION,
            "1": FRACTION,
            '"NaN"': NOT_FINITE,
            '"Infinity"': NOT_FINITE,
            '"sNaN"': NOT_FINITE,
            '"1_000"': ONE_SPELLING,
            '" 1 "': ONE_SPELLING,
            '"\u0661"': SCRIPTS,
            '"1\\n"': LINE_END,
        },
    ),
    TypeCase(
        name="`enum.Enum`, `StrEnum`, `IntEnum`",
        type=Colour,
        json="the value of a member; all are text, or all whole numbers",
        taken=['"red"', '"blue"'],
        refused=['"RED"', '"green"', "1", "null"],
    ),
    TypeCase(
        name="IntEnum", type=Size, taken=["1", "2"], refused=["0", "3", '"1"', "true", '"SMALL"'], spelled={"1.0": "1"}
    ),
    TypeCase(
        name="`enum.Flag`",
        type=Rights,
        json="a sum of members' values; up to eight members",
        taken=["0", "1", "2", "3"],
        refused=["4", "true", '"READ"'],
        spelled={"1.0": "1"},
        narrower={"-1": ONE_SPELLING},
    ),
    TypeCase(
        name="`Literal[…]`",
        type=(Literal["a", 1] | None),
        json="one of the values",
        taken=['"a"', "1", "null"],
        refused=['"b"', "2", "true", '""'],
        spelled={"1.0": "1"},
    ),
    TypeCase(
        name="`list[…]`, `Sequence[…]`, `Collection[…]`, `tuple[…, ...]`",
        type=list[int],
        json="an array",
        taken=["[]", "[1]", "[1, 1]"],
        refused=['["a"]', "{}", "null", "[null]"],
        spelled={"[1.0]": "[1]"},
    ),
    TypeCase(
        name="Annotated list",
        type=Annotated[list[str], Meta(min_length=1, max_length=2)],
        taken=['["a"]', '["a", "a"]'],
        refused=["[]", '["a", "b", "c"]'],
    ),
    TypeCase(name="Sequence", type=Sequence[bool], taken=["[true]"], refused=["[1]"]),
    TypeCase(name="Collection", type=Collection[bool], taken=["[true]"], refused=["[1]"]),
    TypeCase(name="tuple of any length", type=tuple[dt.date, ...], taken=["[]", '["2026-11-29"]'], refused=['["x"]']),
    TypeCase(
        name="`set[…]`, `frozenset[…]`",
        type=set[int],
        json="an array without duplicates; its items need a hash: `frozen=True`, tuples instead of lists",
        taken=["[]", "[1, 2]"],
        refused=["{}", "[[1]]"],
        spelled={"[1.0]": "[1]"},
        narrower={"[1, 1]": UNIQUE},
    ),
    TypeCase(name="frozenset", type=frozenset[dt.date], taken=['["2026-11-29"]'], refused=['["2026-02-30"]', '"x"']),
    TypeCase(name="Set", type=AbstractSet[str], taken=['["a"]'], refused=["[1]"], narrower={'["a", "a"]': UNIQUE}),
    TypeCase(
        name="sets of sets",
        type=set[frozenset[int]],
        taken=["[]", "[[]]", "[[1]]", "[[1, 2], [3]]"],
        refused=["[1]", "[[[1]]]"],
        narrower={"[[1], [1]]": UNIQUE, "[[1, 1]]": UNIQUE},
    ),
    TypeCase(
        name="sets of arrays",
        type=frozenset[tuple[int, ...] | Spot],
        taken=["[[1]]", "[[1, 2], [1]]", '[{"x": 1}]', '[{"x": 1, "tags": ["a"]}]'],
        refused=["[1]", '[{"x": "a"}]'],
        narrower={'[{"x": 1}, {"x": 1}]': UNIQUE},
    ),
    TypeCase(
        name="sets of dataclasses",
        type=set[Place],
        taken=['[{"at": [1]}, {"at": [2, 3]}]'],
        refused=['[{"at": [1, 2, 3]}]'],
        narrower={'[{"at": [1]}, {"at": [1]}]': UNIQUE, '[{"at": [1], "x": 1}]': UNKNOWN},
    ),
    TypeCase(name="a set with memoryview", type=set[memoryview], taken=['["YQ=="]'], refused=["[1]"]),
    TypeCase(name="set of anything", type=set, taken=['[1, "a", null]'], refused=["[[1]]", "[{}]", "{}"]),
    TypeCase(
        name="`tuple[…, …]`",
        type=tuple[int, str],
        json="an array of that length",
        taken=['[1, "a"]'],
        refused=["[1]", '[1, "a", 2]', '["a", 1]', "{}"],
        spelled={'[1.0, "a"]': '[1,"a"]'},
    ),
    TypeCase(name="an empty tuple", type=tuple[()], taken=["[]"], refused=["[1]", "{}"]),
    TypeCase(
        name="`NamedTuple`",
        type=Point,
        json="an array; members with a default may be missing at its end",
        taken=["[1]", "[1, 2]"],
        refused=["[]", "[1, 2, 3]", '{"x": 1}'],
        spelled={"[1.0]": "[1]"},
    ),
    TypeCase(
        name="`dict[str, …]`, `Mapping[str, …]`",
        type=dict[str, int],
        json="an object",
        taken=["{}", '{"a": 1}', '{"": 1}'],
        refused=['{"a": null}', "[]", "null"],
        spelled={'{"a": 1.0}': '{"a":1}'},
    ),
    TypeCase(name="Mapping", type=Mapping[str, str], taken=['{"a": "b"}'], refused=['{"a": 1}']),
    TypeCase(name="MutableMapping", type=MutableMapping[str, str], taken=['{"a": "b"}'], refused=['{"a": 1}']),
    TypeCase(
        name="Annotated dict",
        type=Annotated[dict[Annotated[str, Meta(pattern="^[a-z]+$", max_length=3)], int], Meta(min_length=1)],
        taken=['{"abc": 1}'],
        refused=["{}", '{"abcd": 1}', '{"A": 1}'],
    ),
    TypeCase(
        name="`dict[int, …]`; or keys of `float`, `date`, `datetime`, `time`, `timedelta`, `UUID`, `Decimal`, "
        "`bytes`, `Enum`, `Literal`",
        type=dict[int, str],
        json="an object; its names are the keys as text, whole numbers without leading zeros",
        taken=["{}", '{"1": "a"}', '{"-1": "a"}', '{"99999999999999999999": "a"}'],
        refused=[
            *('{"a": "a"}', '{"01": "a"}', '{"1.0": "a"}', '{"+1": "a"}', '{" 1": "a"}', '{"1": 1}', '{"": "a"}'),
            '{"0": "a", "-0": "b"}',
        ],
    ),
    TypeCase(
        name="limited int keys",
        type=dict[Annotated[int, Meta(ge=1, le=3)], int],
        taken=['{"1": 1}', '{"3": 1}'],
        refused=['{"0": 1}', '{"4": 1}', '{"-1": 1}'],
    ),
    TypeCase(
        name="float keys",
        type=dict[float, int],
        taken=['{"1": 1}', '{"1.5": 1}', '{"1e5": 1}', '{"-0.5E-3": 1}'],
        refused=['{"a": 1}', '{".5": 1}', '{"5.": 1}', '{" 1": 1}', '{"1_0": 1}', '{"1": 1, "2": 2, "1.0": 3}'],
        narrower={'{"nan": 1}': NOT_FINITE, '{"inf": 1}': NOT_FINITE, '{"Infinity": 1}': NOT_FINITE},
    ),
    TypeCase(name="date keys", type=dict[dt.date, int], taken=['{"2026-11-29": 1}'], refused=['{"2026-02-30": 1}']),
    TypeCase(
        name="datetime keys",
        type=dict[dt.datetime, int],
        taken=['{"2026-11-29T08:00:00Z": 1}', '{"2026-11-29T08:00:00": 1}'],
        refused=[
            *('{"2026-02-30T00:00:00Z": 1}', '{"x": 1}'),
            '{"2026-11-29T08:00:00Z": 1, "2026-11-29T09:00:00+01:00": 2}',
            '{"2026-11-29T08:00:00": 1, "2026-11-29 08:00:00.0": 2}',
        ],
    ),
    TypeCase(
        name="time keys",
        type=dict[dt.time, int],
        taken=['{"08:00:00": 1, "08:00:01": 2}'],
        refused=['{"24:00:00": 1}', '{"23:59:59.9999999": 1}', '{"08:00:00Z": 1, "09:00:00+01:00": 2}'],
    ),
    TypeCase(
        name="timedelta keys",
        type=dict[dt.timedelta, int],
        taken=['{"PT5M": 1, "PT6M": 2}'],
        refused=['{"P1W": 1}', '{"PT60S": 1, "PT1M": 2}'],
    ),
    TypeCase(
        name="UUID keys",
        type=dict[uuid.UUID, int],
        taken=['{"7F4C9E1A-54B8-4B43-9D5E-1F0E4F7E2B11": 1, "7f4c9e1a-54b8-4b43-9d5e-1f0e4f7e2b12": 2}'],
        narrower={'{"7f4c9e1a54b84b439d5e1f0e4f7e2b11": 1}': HYPHENS},
        refused=[
            '{"x": 1}',
            '{"7f4c9e1a54b84b439d5e1f0e4f7e2b11": 1, "7f4c9e1a-54b8-4b43-9d5e-1f0e4f7e2b11": 2}',
            '{"7f4c9e1a-54b8-4b43-9d5e-1f0e4f7e2b11": 1, "7F4C9E1A-54B8-4B43-9D5E-1F0E4F7E2B11": 2}',
        ],
    ),
    TypeCase(
        name="Decimal keys",
        type=dict[decimal.Decimal, int],
        taken=['{"1.5": 1}'],
        refused=['{"x": 1}', '{"1_0": 1}', '{"1": 1, "1.00": 2}', '{"0": 1, "-0": 2}'],
        narrower={'{"NaN": 1}': NOT_FINITE},
    ),
    TypeCase(
        name="bytes keys",
        type=dict[Annotated[bytes, Meta(max_length=1)], int],
        taken=['{"YQ==": 1, "Yg==": 2}'],
        refused=['{"YQ": 1}', '{"YWI=": 1}', '{"YQ==": 1, "YR==": 2}'],
    ),
    TypeCase(
        name="keys in a tagged struct, in a list, in a mapping",
        type=dict[str, list[Prices | Cat]],
        taken=['{"a": [{"type": "prices", "by_rate": {"1": 1, "1.5": 2}}, {"type": "cat"}]}'],
        refused=[
            '{"a": [{"type": "cat"}, {"type": "prices", "by_rate": {"1": 1, "1.0": 2}}]}',
            '{"a": [{"type": "prices", "note": "no note"}]}',
            '{"a": [{"type": "prices", "then": {"type": "prices", "note": "no note"}}]}',
        ],
    ),
    TypeCase(name="Enum keys", type=dict[Colour, int], taken=['{"red": 1}'], refused=['{"green": 1}', '{"RED": 1}']),
    TypeCase(name="IntEnum keys", type=dict[Size, int], taken=['{"1": 1}'], refused=['{"3": 1}', '{"01": 1}']),
    TypeCase(name="Literal keys", type=dict[Literal["a", "b"], int], taken=['{"a": 1}'], refused=['{"c": 1}']),
    TypeCase(name="int Literal keys", type=dict[Literal[1, 2], int], taken=['{"1": 1}'], refused=['{"3": 1}']),
    TypeCase(name="any keys", type=dict[Any, int], taken=['{"a": 1}'], refused=[], spelled={'{"a": 1.0}': '{"a":1}'}),
    TypeCase(
        name="`msgspec.Struct`",
        type=Book,
        json="an object; members with a default may be missing",
        taken=['{"title": "a"}', '{"title": "a", "pages": 3}', '{"pages": 3, "title": ""}'],
        refused=["{}", '{"title": 1}', '{"title": "a", "pages": null}', "[]", "null"],
        spelled={'{"title": "a", "pages": 1.0}': '{"title":"a","pages":1}'},
        narrower={'{"title": "a", "Title": "b"}': UNKNOWN},
    ),
    TypeCase(
        name="`rename=…`, `forbid_unknown_fields=True`, `msgspec.UNSET`",
        type=Closed,
        json="members by their new names; one that is UNSET may be missing",
        taken=['{"fullName": "a"}', '{"fullName": "a", "note": "b", "count": null}'],
        refused=['{"full_name": "a"}', '{"fullName": "a", "note": null}', '{"fullName": "a", "x": 1}'],
    ),
    TypeCase(
        name="a recursive struct",
        type=Tree,
        taken=['{"value": 1, "children": [{"value": 2, "children": []}]}'],
        refused=['{"value": 1, "children": [{}]}'],
        spelled={'{"value": 1, "children": [{"value": 2.0}]}': '{"value":1,"children":[{"value":2}]}'},
        narrower={'{"value": 1, "children": [{"value": 2, "x": 1}]}': UNKNOWN},
    ),
    TypeCase(
        name="`Struct | Struct`, tagged",
        type=Cat | Dog,
        json="an object with the tag",
        taken=[
            '{"type": "cat"}',
            '{"lives": 1, "type": "cat"}',
            '{"type": "dog", "name": "a"}',
            '{"type": "dog", "name": "a", "friend": {"type": "cat"}}',
        ],
        refused=[
            "{}",
            '{"type": "dog"}',
            '{"type": "cow"}',
            '{"type": 1}',
            '{"lives": 1}',
            '{"type": "dog", "name": "a", "friend": {}}',
            "null",
        ],
        narrower={'{"type": "cat", "name": "a"}': UNKNOWN},
    ),
    TypeCase(
        name="one tagged struct",
        type=Cat,
        taken=['{"type": "cat", "lives": 1}'],
        refused=['{"type": "dog"}', "[]"],
        narrower={'{"lives": 1}': UNTAGGED},
    ),
    TypeCase(
        name="numbers as tags",
        type=One | Two | None,
        taken=['{"version": 1, "x": 1}', '{"version": 2, "y": 1}', "null"],
        refused=['{"version": 1, "y": 1}', '{"version": "1", "x": 1}', '{"x": 1}'],
        spelled={'{"version": 1.0, "x": 1}': '{"version":1,"x":1}'},
    ),
    TypeCase(
        name="tagged structs beside others",
        type=Cat | Dog | int | list[Cat],
        taken=['{"type": "cat"}', "1", '[{"type": "cat"}]'],
        refused=['["cat"]', '[{"type": "dog", "name": "a"}]', '"cat"'],
        spelled={"1.0": "1"},
    ),
    TypeCase(
        name="`Struct` with `array_like=True`",
        type=Row,
        json="an array; members with a default may be missing at its end, and none may be added",
        taken=['["a"]', '["a", 1]'],
        refused=["[]", "[1]", '{"key": "a"}'],
        spelled={'["a", 1.0]': '["a",1]'},
        narrower={'["a", 1, 2]': UNKNOWN},
    ),
    TypeCase(
        name="an array or another type",
        type=Row | int | None,
        taken=['["a", 1]', "1", "null"],
        refused=["[]", '"a"'],
        spelled={"1.0": "1"},
        narrower={'["a", 1, 2]': UNKNOWN},
    ),
    TypeCase(
        name="a closed array",
        type=ClosedRow,
        taken=['["a"]', '["a", 1]'],
        refused=['["a", 1, 2]', "[]"],
    ),
    TypeCase(
        name="tagged arrays",
        type=Add | Drop,
        taken=['["add", 1]', '["drop", "a"]', '["drop"]'],
        refused=['["add", "a"]', '["add"]', '["keep", 1]', "[]", "[1]", '["drop", 1]'],
        narrower={'["drop", "a", 2]': UNKNOWN},
    ),
    TypeCase(
        name="`dataclass`, attrs class",
        type=Card,
        json="an object",
        taken=['{"name": "a"}', '{"name": "a", "tags": ["b"]}'],
        refused=["{}", '{"name": "a", "tags": [1]}', '{"name": 1}'],
        narrower={'{"name": "a", "x": 1}': UNKNOWN},
    ),
    TypeCase(
        name="`TypedDict`",
        type=Options,
        json="an object; `Required`, `NotRequired` and `total=False` count",
        taken=['{"name": "a"}', '{"name": "a", "size": 1}'],
        refused=["{}", '{"size": 1}'],
        spelled={'{"name": "a", "size": 1.0}': '{"name":"a","size":1}'},
        narrower={'{"name": "a", "x": 1}': UNKNOWN},
    ),
    TypeCase(
        name="generic types",
        type=Page[dt.date],
        json="as with the types put in",
        taken=['{"items": ["2026-11-29"]}'],
        refused=['{"items": ["2026-02-30"]}', "{}"],
    ),
    TypeCase(name="`NewType`", type=Isbn, json="as its base", taken=['"a"'], refused=["1"]),
    TypeCase(
        name="`… | None`, `… | …`",
        type=int | None,
        json="one of them; at most one each that is text, an array, an object and a whole number in JSON",
        taken=["1", "null"],
        refused=['"1"', "false"],
        spelled={"1.0": "1"},
    ),
    TypeCase(name="int or float", type=int | float, taken=["1", "1.0", "1e2"], refused=['"1"', "1e309", "null"]),
    TypeCase(
        name="date or int or list",
        type=dt.date | int | list[int] | None,
        taken=['"2026-11-29"', "1", "[1]", "null"],
        refused=['"2026-02-30"', '"1"', "{}"],
        spelled={"1.0": "1", "[1.0]": "[1]"},
    ),
    TypeCase(
        name="constraints in a union",
        type=Annotated[int, Meta(ge=0)] | Annotated[str, Meta(max_length=2)],
        taken=["0", '"ab"'],
        refused=["-1", '"abc"'],
        spelled={"0.0": "0"},
    ),
    TypeCase(
        name="Decimal or float",
        type=decimal.Decimal | float,
        taken=["1.5", '"1.5"', "1"],
        refused=['"x"', "null"],
        narrower={'"NaN"': NOT_FINITE},
    ),
    TypeCase(name="Enum or int", type=Colour | int, taken=['"red"', "1"], refused=['"x"'], spelled={"1.0": "1"}),
    TypeCase(name="bytes or int", type=bytes | int, taken=['"YQ=="', "1"], refused=['"YQ"'], spelled={"1.0": "1"}),
    TypeCase(name="struct or list", type=Book | list[Book], taken=['{"title": "a"}', "[]"], refused=["[1]", "1"]),
    TypeCase(
        name="NamedTuple or struct", type=Point | Book | None, taken=["[1]", '{"title": "a"}', "null"], refused=["[]"]
    ),
    TypeCase(
        name="`Any`, `msgspec.Raw`, plain `list`, `dict`, `tuple`",
        type=Any,
        json="any JSON, any array, any object; nothing is checked inside",
        taken=["null", "1", "1.0", '"a"', '{"a": [1.5, null]}', "[]"],
        refused=['"\\ud83d"', "1e309"],
    ),
    TypeCase(name="Raw", type=msgspec.Raw, taken=["null", '{"a": 1}'], refused=['"\\ud83d"']),
    TypeCase(name="a plain list", type=list, taken=["[]", '[1, "a"]'], refused=["{}"]),
    TypeCase(name="a plain dict", type=dict, taken=["{}", '{"a": [1]}'], refused=["[]"]),
    TypeCase(name="a plain tuple", type=tuple, taken=["[]", '[1, "a"]'], refused=["{}"]),
    TypeCase(
        name="described",
        type=Annotated[str, Meta(title="t", description="d", examples=["ab"], extra_json_schema={"x-own": 1})],
        taken=['"a"'],
        refused=["1"],
    ),
    TypeCase(
        name="a foreign format",
        type=Annotated[str, Meta(extra_json_schema={"format": "email"})],
        taken=['"a@example.com"'],
        refused=["1"],
        narrower={'"a"': "the author announces it as an email address"},
    ),
]
