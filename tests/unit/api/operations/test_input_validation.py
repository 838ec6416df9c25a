"""Inputs against schemas: which are refused, and how helpful the error is."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.errors import MESSAGE_LIMIT, TARGET_LIMIT, ApiError
from opstream_api.operations.input_problems import MAX_DETAILS, format_target
from opstream_api.operations.input_validation import InputValidator, decode_input
from opstream_schemas.errors import ErrorCode
from opstream_schemas.status_monitor import ErrorObject
from opstream_schemas.text import MAX_NESTING
from tests.support.api.service import INPUT, spec

pytestmark = pytest.mark.unit

HASH_MISSING = '"hash" is a required property'


def refused(value: Any, validators: InputValidator | None = None, **schema: Any) -> ErrorObject:
    """Return the error for an input."""
    entry = msgspec.structs.replace(spec(), input_schema=schema) if schema else spec()
    with pytest.raises(ApiError) as caught:
        (validators or InputValidator()).validate(entry, value)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    return caught.value.body.error


def problems(error: ErrorObject) -> list[tuple[str, str]]:
    """Return target and message of each detail."""
    return [(detail.target, detail.message) for detail in error.details]


@pytest.mark.parametrize(
    ("body", "document", "value"),
    [
        (b"", b"{}", {}),
        (b" \n", b"{}", {}),
        (b' {"a": 1}\n', b'{"a": 1}', {"a": 1}),
        (b'{"a":1.0}', b'{"a":1.0}', {"a": 1.0}),
        (
            b'{"a":123456789012345678901234567890}',
            b'{"a":123456789012345678901234567890}',
            {"a": int("1234567890" * 3)},
        ),
        (b"[" * MAX_NESTING + b"]" * MAX_NESTING, b"[" * MAX_NESTING + b"]" * MAX_NESTING, None),
    ],
)
def test_the_input_is_recorded_as_it_was_sent(body: bytes, document: bytes, value: Any) -> None:
    """The stored bytes are those of the request; an empty body is an empty object."""
    kept, decoded = decode_input(body)
    assert kept == document
    assert value is None or decoded == value


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a":}',
        b"{'a':1}",
        b"{} {}",
        b"nonsense",
        b"NaN",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\xff"}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a":"\x01"}',
        b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1),
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b"\x00",
    ],
)
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    """The error is the contract's and short, whatever the decoder finds."""
    with pytest.raises(ApiError) as caught:
        decode_input(body)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert len(caught.value.body.error.message) < MESSAGE_LIMIT


@given(st.binary(max_size=200))
def test_no_body_breaks_the_decoder(body: bytes) -> None:
    """Any bytes are an input or an error of the contract."""
    with contextlib.suppress(ApiError):
        document, value = decode_input(body)
        assert msgspec.json.decode(document) == value


def test_a_valid_input_passes() -> None:
    """Optional members may be left out."""
    InputValidator().validate(spec(), INPUT)
    InputValidator().validate(spec(), {"title": "", "note": None})


def test_one_problem_is_the_whole_error() -> None:
    """Its target says where, its message what."""
    error = refused({"title": 3})
    assert (error.target, error.details) == ("title", ())
    assert error.message == 'the input of book:upload-start is not valid: the value is not of type "string"'


def test_several_problems_are_listed() -> None:
    """The first one is the error's own, and each has its path."""
    error = refused({"title": "x", "files": [{"path": "a", "hash": "b"}, {"path": 1, "size": 2}]})
    assert error.target == "files[1].hash"
    assert problems(error) == [
        ("files[1].hash", HASH_MISSING),
        ("files[1].path", 'the value is not of type "string"'),
        ("files[1].size", "Additional properties are not allowed ('size' was unexpected)"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, [("", 'the value is not of type "object"')]),
        (None, [("", 'the value is not of type "object"')]),
        ([], [("", 'the value is not of type "object"')]),
        ({}, [("title", '"title" is a required property')]),
        ({"title": "x", "note": 3}, [("note", "the value is not of type object or null")]),
        ({"title": "x", "note": {"path": "p"}}, [("note.hash", HASH_MISSING)]),
        ({"title": "x", "a b": 1}, [('["a b"]', "Additional properties are not allowed ('a b' was unexpected)")]),
    ],
)
def test_the_path_of_a_problem(value: Any, expected: list[tuple[str, str]]) -> None:
    """Also inside of optional objects, where the client can have meant only one branch."""
    error = refused(value)
    assert [(error.target, error.message.removeprefix("the input of book:upload-start is not valid: "))] == expected


def test_a_union_of_several_fitting_types_stays_one_problem() -> None:
    """It is unknown which branch the client meant."""
    closed = {"type": "object", "additionalProperties": False}
    branches = [
        {**closed, "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {**closed, "properties": {"b": {"type": "integer"}}, "required": ["b"]},
    ]
    assert refused({"c": 1}, oneOf=branches).message.endswith("none of the alternatives that the schema allows here")


def test_the_number_of_problems_is_bounded() -> None:
    """The response is bounded, whatever the input's size."""
    error = refused({"title": "x", "files": [{"path": 1, "hash": 1}] * 50})
    assert len(error.details) == MAX_DETAILS


def test_large_values_and_names_are_not_sent_back() -> None:
    """Neither a long value nor a long name makes the response long."""
    assert "yyy" not in refused({"title": ["y" * 10_000]}).message
    error = refused({"title": "x", "n" * 10_000: 1})
    assert len(error.message.encode()) <= MESSAGE_LIMIT
    assert len(error.target.encode()) <= TARGET_LIMIT


def test_formats_are_checked() -> None:
    """An invalid date would otherwise fail only in the handler."""
    assert refused("yesterday", type="string", format="date-time").target == ""


def test_a_new_version_of_an_action_is_validated_by_its_own_schema() -> None:
    """The compiled validator of the old version is not used."""
    validators = InputValidator()
    validators.validate(spec(), INPUT)
    newer = msgspec.structs.replace(spec(), action_version=2, input_schema={"type": "integer"})
    with pytest.raises(ApiError):
        validators.validate(newer, INPUT)
    validators.validate(newer, 3)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/$defs/none"}, {"$ref": "http://192.0.2.1/x"}])
def test_a_broken_schema_is_an_internal_error(schema: dict[str, Any]) -> None:
    """It is an internal error, not the client's, and nothing is fetched."""
    with pytest.raises(ApiError) as caught:
        InputValidator().validate(msgspec.structs.replace(spec(), input_schema=schema), {})
    assert caught.value.code is ErrorCode.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ([], ""),
        (["files", 0, "hash"], "files[0].hash"),
        ([3], "[3]"),
        (["a", "b"], "a.b"),
        (["a b", "c"], '["a b"].c'),
        (["a.b", 'c"d'], '["a.b"]["c\\"d"]'),
    ],
)
def test_how_a_target_is_written(place: list[str | int], expected: str) -> None:
    """As in most languages."""
    assert format_target(place) == expected
