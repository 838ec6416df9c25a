"""Inputs against schemas: which are refused, and how helpful the error is."""

from __future__ import annotations

import contextlib
import json
import re
import time
import timeit
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.errors import MESSAGE_LIMIT, TARGET_LIMIT, ApiError
from opstream_api.inputs.input_problems import MAX_DETAILS, format_target
from opstream_api.inputs.input_validation import MAX_LONG_IN_SETS, InputValidator, decode_input
from opstream_runner.authoring.type_schema import announced_schema
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import ErrorCode
from opstream_schemas.status_monitor import ErrorObject
from opstream_schemas.text import MAX_EXTREME_NUMBERS, MAX_NESTING, check_numbers
from tests.support.api.service import INPUT, spec

pytestmark = pytest.mark.unit

BOUND = 0.5
"""Seconds of CPU: the fault took ten and more."""
HASH_MISSING = '"hash" is a required property'


def refused(value: Any, validators: InputValidator | None = None, **schema: Any) -> ErrorObject:
    """Return the error for an input."""
    entry = msgspec.structs.replace(spec(), input_schema=schema) if schema else spec()
    with pytest.raises(ApiError) as caught:
        check(entry, value, validators)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    return caught.value.body.error


def check(entry: ActionSpec, value: Any, validators: InputValidator | None = None) -> None:
    """Validate a value, as JSON."""
    (validators or InputValidator()).validate(entry, msgspec.json.encode(value), value)


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
    check(spec(), INPUT)
    check(spec(), {"title": "", "note": None})


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
    check(spec(), INPUT, validators)
    newer = msgspec.structs.replace(spec(), action_version=2, input_schema={"type": "integer"})
    with pytest.raises(ApiError):
        check(newer, INPUT, validators)
    check(newer, 3, validators)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/$defs/none"}, {"$ref": "http://192.0.2.1/x"}])
def test_a_broken_schema_is_an_internal_error(schema: dict[str, Any]) -> None:
    """It is an internal error, not the client's, and nothing is fetched."""
    with pytest.raises(ApiError) as caught:
        check(msgspec.structs.replace(spec(), input_schema=schema), {})
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


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"a":1,"a":2}', "a"),
        (b'{"a":1,"b":{"c":1,"d":[],"c":1}}', "c"),
        (b'[{"a":1},{"a":1,"a":1}]', "a"),
        (b'{"a":1,"\\u0061":1}', "a"),
        (b'{"a" :1,"a"\n: 2}', "a"),
        (b'{"a":"\\u0022:","a":""}', "a"),
        (b'{"a":"x\\u003a","":"\\u0022\\u003a","a":""}', "a"),
        ('{"é":1e5,"é":[12345678901234567890]}'.encode(), "é"),
    ],
)
def test_a_member_that_comes_twice_is_refused(body: bytes, name: str) -> None:
    """However it is spelled: readers of JSON disagree which one counts."""
    with pytest.raises(ApiError) as caught:
        decode_input(body)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.body.error.target == name
    assert "twice" in caught.value.body.error.message


@pytest.mark.parametrize(
    ("model", "body", "target", "names"),
    [
        (dict[float, int], b'{"1":1,"2":2,"1.0":3}', '["1.0"]', '"1" and "1.0"'),
        (dict[str, list[dict[bytes, int]]], b'{"a":[{},{"YQ==":1,"YR==":2}]}', 'a[1]["YR=="]', '"YQ==" and "YR=="'),
        (dict[int, int] | None, b'{"0":1,"-0":3}', '["-0"]', '"0" and "-0"'),
    ],
)
def test_two_names_of_one_key_are_refused(model: Any, body: bytes, target: str, names: str) -> None:
    """The handler would get one of them: the error names the member, and what it is the same as."""
    entry = msgspec.structs.replace(spec(), input_schema=announced_schema(model))
    with pytest.raises(ApiError) as caught:
        InputValidator().validate(entry, *decode_input(body))
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.body.error.target == target
    assert f"the names {names} are the same key: send one of them" in caught.value.body.error.message


@given(
    st.recursive(
        st.none() | st.text('a":\\', max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a":\\', max_size=2), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([None, 2]),
    st.sampled_from([(",", ":"), (" , ", " : ")]),
    st.booleans(),
)
def test_members_that_come_once_pass(value: Any, indent: int | None, separators: tuple[str, str], escape: bool) -> None:
    """Whatever their names and values are made of."""
    text = json.dumps(value, indent=indent, separators=separators)
    if escape:
        text = re.sub(r"\\(.)", lambda found: r"\u0022" if found[1] == '"' else found[0], text)
    assert decode_input(text.encode())[1] == value


def test_a_large_body_is_searched_quickly() -> None:
    """Also one that spells its members in another way."""
    plain = msgspec.json.encode({f"name-{number}": "x" * 20 for number in range(6000)})
    spaced = plain.replace(b'":', b'" :')
    for body, bound in ((plain, 0.05), (spaced, 0.25)):
        before = time.thread_time()
        decode_input(body)
        assert time.thread_time() - before < bound


class Reading(msgspec.Struct):
    """Numbers and times."""

    count: int
    at: datetime
    by_day: dict[date, int] = {}


@pytest.mark.parametrize(
    ("value", "target", "message"),
    [
        (
            b'{"count":1e300,"at":"2026-11-29T08:00:00Z"}',
            "count",
            "Expected `integer`, got `number`: write a whole number without a fraction or an exponent",
        ),
        (b'{"count":1,"at":"2026-02-30T08:00:00Z"}', "at", "Invalid RFC3339 encoded datetime"),
        (
            b'{"count":1,"at":"2026-11-29T08:00:00Z","by_day":{"2026-02-30":1}}',
            "by_day",
            "the name of a member: Invalid RFC3339 encoded date",
        ),
    ],
)
def test_what_only_the_decoder_finds(value: bytes, target: str, message: str) -> None:
    """The error says where and what, as for a schema."""
    entry = msgspec.structs.replace(spec(), input_schema=announced_schema(Reading))
    with pytest.raises(ApiError) as caught:
        InputValidator().validate(entry, value, msgspec.json.decode(value))
    error = caught.value.body.error
    assert (error.target, error.message.partition("not valid: ")[2]) == (target, message)


@pytest.mark.parametrize(
    ("pattern", "valid", "invalid"),
    [(r"\A[a-z]+\Z", "ab", "AB"), (r"^a{,2}\Z", "aa", "b"), (r"(?>a)\Z(a){0,99999999}", "a", None)],
)
def test_a_pattern_of_an_older_runner_is_no_internal_error(pattern: str, valid: str, invalid: str | None) -> None:
    """Runners of 0.2.0 announce what only Python can compile. It is translated, or left to the runner."""
    entry = msgspec.structs.replace(spec(), input_schema={"type": "string", "pattern": pattern})
    check(entry, valid)
    if invalid is not None:
        with pytest.raises(ApiError) as caught:
            check(entry, invalid)
        assert caught.value.code is ErrorCode.INVALID_INPUT


def test_schemas_of_older_runners_are_decoded_too() -> None:
    """Their words suffice for numbers, dates, durations and structs."""
    schema = msgspec.json.schema(Reading)
    entry = msgspec.structs.replace(spec(), input_schema=schema)
    check(entry, {"count": 1, "at": "whenever", "by_day": {"x": 1}})  # they say no more than "text"
    for value in ({"count": 1e300, "at": ""}, {"count": 1, "at": "", "by_day": {"x": 1e300}}):
        with pytest.raises(ApiError):
            check(entry, value)
    duration = msgspec.structs.replace(spec(), input_schema=msgspec.json.schema(timedelta))
    check(duration, "PT0.5S")
    with pytest.raises(ApiError):
        check(duration, "P1W")


def test_numbers_are_rewritten_only_if_the_type_needs_it() -> None:
    """The rest of the input is then the same value; numbers beyond 2^53 are not written out."""
    entry = msgspec.structs.replace(spec(), input_schema=announced_schema(tuple[int | str, float, Any]))
    for body, recorded in (
        (b'[1, 1.0, {"a": 1.0}]', b'[1, 1.0, {"a": 1.0}]'),
        (b'["1.0", 1.0, [2e0]]', b'["1.0", 1.0, [2e0]]'),
        (b"[1e2, 1.5, [2e0, 1e300, -0.0]]", b"[100,1.5,[2,1e300,0]]"),
        (b"[9007199254740992.0, 1, 1]", b"[9007199254740992,1,1]"),
    ):
        document, value = InputValidator().validate(entry, *decode_input(body))
        assert (document, value) == (recorded, msgspec.json.decode(recorded))
    with pytest.raises(ApiError, match="write a whole number"):
        InputValidator().validate(entry, *decode_input(b"[9007199254740994.0, 1, 1]"))


@pytest.mark.parametrize(
    ("body", "reason", "target"),
    [
        (b'{"s":"\\ud800"}', "half of a surrogate pair", "s"),
        (b'{"a":["x",{"s":"\\ud800x"}]}', "half of a surrogate pair", "a[1].s"),
        (b'{"s":"\\udc00"}', "half of a surrogate pair", "s"),
        (b'{"a":{"\\ud800":1}}', "half of a surrogate pair", "a"),
        (b'"\\ud83d"', "half of a surrogate pair", ""),
        (b'{"a":[1,{"b c":-1e999}]}', "beyond the range of a double", 'a[1]["b c"]'),
        (b"1e999", "beyond the range of a double", ""),
        (b'{"s":"\\ud8', "truncated", ""),
        (b'{"s":', "truncated", ""),
        (b"{'s': 1}", "malformed", ""),
    ],
)
def test_a_body_that_is_no_json_says_why(body: bytes, reason: str, target: str) -> None:
    """What looks like JSON and has no value is named with its place."""
    with pytest.raises(ApiError) as refused:
        decode_input(body)
    error = refused.value.body.error
    assert (error.code, error.target) == (ErrorCode.INVALID_INPUT, target)
    assert reason in error.message


EXTREME = ("1e308", "8e299", "5E-324", "-1e-308", "2.2250738585072014e-295", "1e+0000300", f"0.{'0' * 40}1e-279")


@pytest.mark.parametrize("number", EXTREME)
@pytest.mark.parametrize("gap", [",", ' ,"e" , '])
def test_numbers_at_the_ends_of_the_range_do_not_hold_the_event_loop(number: str, gap: str) -> None:
    """A decoder takes 10 µs and more for each; the number itself is valid."""
    body = f'{{"any":[{gap.join([number] * (256_000 // len(number + gap)))}]}}'.encode()
    before = time.thread_time()
    with pytest.raises(ApiError, match="larger than 1e280 or smaller than 1e-280") as caught:
        decode_input(body)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert time.thread_time() - before < 0.1
    assert decode_input(f"[{','.join([number] * MAX_EXTREME_NUMBERS)}]".encode())[1][0] == float(number)
    with pytest.raises(ApiError):
        decode_input(f"[{','.join([number] * (MAX_EXTREME_NUMBERS + 1))}]".encode())


@pytest.mark.parametrize(
    "value",
    [
        ["5e300a1e999,1e308"] * 14_000,
        "1e308," * 42_000,
        '\\"1e308,' * 28_000,
        [1e-250, 3.1234567890123456e-262, -1e250] * 5_000,
        [1.1234567890123456e20, 1e99, 0.1] * 5_000,
        [10**300] * 800,
    ],
)
def test_other_numbers_and_texts_are_taken(value: Any) -> None:
    """Digests, lists in texts, and the small numbers of statistics look like them."""
    assert decode_input(json.dumps(value).encode())[1] == value


def test_counting_numbers_costs_little() -> None:
    """0.15 ms for most bodies of 256 KB, 2 ms for digests: they are full of what looks like an exponent."""
    for body in (
        json.dumps(["see the tree there"] * 12_000).encode(),
        json.dumps([3.1234567890123456e-10] * 10_000).encode(),
        json.dumps(list(range(40_000))).encode(),
        json.dumps(["9e107d9d372bb6826bd81d3542a419d6"] * 7_000).encode(),
    ):
        best = min(timeit.repeat(lambda body=body: check_numbers(body), number=1, repeat=20))  # type: ignore[misc]
        assert best < 0.005


@pytest.mark.parametrize("digits", [20, 30, 4_000])
def test_long_numbers_in_a_set_do_not_hold_the_event_loop(digits: int) -> None:
    """A validator compares each with each other one: 8,000 took 25 s. Elsewhere they are taken."""
    first = 10 ** (digits - 1)
    entry = msgspec.structs.replace(spec(), input_schema=announced_schema(set[int]))
    many = [first + at for at in range(MAX_LONG_IN_SETS + 1)]
    with pytest.raises(ApiError, match="at most 300 whole numbers of 20 digits or more: send fewer") as caught:
        check(entry, many)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    before = time.thread_time()
    check(entry, many[:-1] if digits < 100 else many[:5])
    assert time.thread_time() - before < BOUND
    check(msgspec.structs.replace(spec(), input_schema=announced_schema(list[int])), many)
    texts = msgspec.structs.replace(spec(), input_schema=announced_schema(set[str]))
    check(texts, [f'\\"{number}' for number in many])
