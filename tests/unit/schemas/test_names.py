"""The grammar of names: what it accepts, and that it refuses everything else."""

from collections.abc import Callable

import pytest

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import (
    ALWAYS_RESERVED,
    RESERVED_RESOURCES,
    Kind,
    check_name,
    check_operation_id,
    check_resource_id,
)

pytestmark = pytest.mark.unit

# None of these may reach a subject, a key or a path, whatever else a grammar allows.
HOSTILE = [
    "",
    "a.b",
    "a b",
    "a\n",
    "\na",
    "a/b",
    "a\x00",
    "*",
    ">",
    "$JS",
    "a%2Eb",
    "é",
    "٣",  # a digit, but not an ASCII one
    "\uff41",  # a fullwidth a
    "a\u202eb",  # right-to-left override
    "\ud800",  # a lone surrogate
]


@pytest.mark.parametrize("value", ["a", "0", "-", "_", "A-z_9", "x" * 64, "0197f1c2-7b1e-7000-8000-000000000000"])
def test_an_operation_id_is_returned_as_it_is(value: str) -> None:
    """Letters, digits, `_` and `-`, up to 64 of them, are an operation id."""
    assert value == check_operation_id(value)


@pytest.mark.parametrize("value", [*HOSTILE, "x" * 65, "x" * 10_000])
def test_an_invalid_operation_id_is_refused(value: str) -> None:
    """Only `[A-Za-z0-9_-]{1,64}` is an operation id."""
    with pytest.raises(InvalidName, match="operation id"):
        check_operation_id(value)


@pytest.mark.parametrize("value", ["a", "0", "-", "upload-start", "x" * 40])
def test_a_name_is_returned_as_it_is(value: str) -> None:
    """Small letters, digits and `-`, up to 40 of them, name a resource or an action."""
    assert value == check_name(value, "action")


@pytest.mark.parametrize("value", [*HOSTILE, "x" * 41, "Book", "upload_start", "a:b"])
def test_an_invalid_name_is_refused(value: str) -> None:
    """Only `[a-z0-9-]{1,40}` is a name; the message says a name of what."""
    with pytest.raises(InvalidName, match="action name"):
        check_name(value, "action")


@pytest.mark.parametrize(
    "value",
    [
        "42",
        "a b",
        "a:b",
        "%2F",
        "...",
        ".a",
        "*",
        ">",
        "a.b",
        "книга",
        "本",
        "é",
        "😀" * 256,
        "x" * 256,
        "a\xa0b",
        "👩\u200d💻",
    ],
)
def test_a_resource_id_is_any_printable_text(value: str) -> None:
    """A resource's own id is in no subject, so it may have characters that names may not."""
    assert value == check_resource_id(value)


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "/", "a/b", "x" * 257, "a\n", "\t", "a\x00b", "\x7f", "\x85", "a\u202eb", "\ufeff", "\ud800"],
)
def test_an_invalid_resource_id_is_refused(value: str) -> None:
    """Path steps, separators, control and format characters, broken text and other lengths are not allowed."""
    with pytest.raises(InvalidName, match="resource id"):
        check_resource_id(value)


@pytest.mark.parametrize("char", ["\u200b", "\u202e", "\ufeff", "\u2028", "\x07"])
def test_a_refused_character_is_named(char: str) -> None:
    """Also one that shows nothing, which is no control character."""
    with pytest.raises(InvalidName, match=r"no control or format character \(such as U\+200B\)"):
        check_resource_id(f"a{char}b")


def test_a_kind_is_parsed_and_written_back() -> None:
    """`book:upload-start` is the resource book and the action upload-start, and is written so."""
    text = "book:upload-start"

    kind = Kind.parse(text)

    assert Kind("book", "upload-start") == kind
    assert text == str(kind)


@pytest.mark.parametrize(
    "text", ["", "book", ":", "book:", ":up", "a:b:c", "a::b", "Book:up", "book:Up", "book:up\n", "book :up", "a.b:c"]
)
def test_an_invalid_kind_is_refused(text: str) -> None:
    """A kind has exactly one colon between two names."""
    with pytest.raises(InvalidName):
        Kind.parse(text)
    with pytest.raises(InvalidName):
        Kind.parse_routable(text)


@pytest.mark.parametrize("resource", sorted(RESERVED_RESOURCES))
def test_a_reserved_resource_is_not_routable(resource: str) -> None:
    """No action gets a path that opstream keeps; the error names all of these and what to do."""
    with pytest.raises(InvalidName, match="reserved") as error:
        Kind.parse_routable(f"{resource}:cancel")

    assert repr(resource) in str(error.value)
    assert str(error.value).endswith("choose another name")
    assert all(word in str(error.value) for word in (*RESERVED_RESOURCES, ".well-known"))


@pytest.mark.parametrize("resource", sorted(ALWAYS_RESERVED))
def test_a_resource_that_was_always_reserved_is_refused(resource: str) -> None:
    """Stored data can't have a resource that no version has ever offered."""
    with pytest.raises(InvalidName, match="reserved"):
        Kind.parse(f"{resource}:cancel")


@pytest.mark.parametrize("resource", sorted(RESERVED_RESOURCES - ALWAYS_RESERVED))
def test_stored_data_may_name_a_resource_that_was_reserved_later(resource: str) -> None:
    """Reserving a word leaves the records of its actions readable."""
    assert Kind.parse(f"{resource}:cancel") == Kind(resource, "cancel")


@pytest.mark.parametrize("parse", [Kind.parse, Kind.parse_routable])
@pytest.mark.parametrize("resource", [".well-known", "well.known", ".well-known/agents", "%2ewell-known"])
def test_well_known_is_outside_the_grammar(parse: Callable[[str], Kind], resource: str) -> None:
    """No resource has a dot, a slash or an escape in its name, so no action is below `/.well-known/`."""
    with pytest.raises(InvalidName, match="a-z, 0-9 and '-'"):
        parse(f"{resource}:cancel")


def test_the_reserved_resources_are_those_of_the_contract() -> None:
    """docs/contract.md lists what opstream serves itself, now or later."""
    documents = {"openapi.json", "asyncapi.json", "docs"}
    health = {"healthz", "readyz", "metrics"}
    rooms = {"status", "operations", "schedules", "runners", "console", "mcp"}
    assert documents | health | rooms == RESERVED_RESOURCES


def test_kinds_sort_by_resource_then_action() -> None:
    """Catalogs and consumers are listed in this order."""
    kinds = [Kind("book", "z"), Kind("a", "b"), Kind("book", "a")]

    assert [Kind("a", "b"), Kind("book", "a"), Kind("book", "z")] == sorted(kinds)


def test_an_error_shows_a_part_of_the_value() -> None:
    """A client's megabyte is in no error message."""
    with pytest.raises(InvalidName) as refusal:
        check_operation_id("x" * 1_000_000)

    assert "'xxx" in str(refusal.value)
    assert len(str(refusal.value)) < 250
