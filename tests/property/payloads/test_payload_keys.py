"""Names of payloads: what is written is read again, and nothing else has their form."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.errors import InvalidName
from opstream_schemas.payloads.object_subjects import (
    chunks_nuid,
    chunks_subject,
    metadata_subject,
    parse_chunks_subject,
)
from opstream_schemas.payloads.payload_ref import (
    PayloadRef,
    parse_payload_key,
    parse_payload_uri,
    payload_key,
    payload_uri,
)

pytestmark = pytest.mark.unit

IDS = st.from_regex("[A-Za-z0-9_-]{1,64}", fullmatch=True)
UUIDS = st.uuids().map(str)


@given(IDS, UUIDS, st.dates(date(1970, 1, 1), date(9999, 12, 31)), st.from_regex("[0-9a-f]{8}", fullmatch=True))
def test_a_name_is_read_as_it_was_written(operation_id: str, unique: str, day: date, attempt: str) -> None:
    """The key, the URI and the subject of chunks each give the same payload again."""
    key = payload_key(operation_id, unique)
    assert parse_payload_key(str(key)) == key
    assert parse_payload_uri(payload_uri(key)) == key
    found = parse_chunks_subject(chunks_subject(chunks_nuid(key, day, attempt)))
    assert (found.key, found.day) == (key, day)


@given(IDS, IDS, UUIDS, UUIDS)
def test_two_payloads_have_two_names(one: str, other: str, first: str, second: str) -> None:
    """No two keys have one name, in whatever form."""
    keys = {payload_key(one, first), payload_key(other, first), payload_key(one, second), payload_key(other, second)}
    assert len({str(key) for key in keys}) == len(keys)
    assert len({metadata_subject(key) for key in keys}) == len(keys)


@given(st.text())
def test_anything_else_is_refused(text: str) -> None:
    """A text is a key, or refused: never a path, a wildcard or a subject of something else."""
    for parse in (parse_payload_key, parse_payload_uri, parse_chunks_subject):
        try:
            parse(text)
        except InvalidName:
            continue
        pytest.fail(f"{text!r} was taken")


@pytest.mark.parametrize(
    "text",
    [
        "op-1/../../etc",
        f"../{'1' * 32}",
        f"a/b/{'1' * 32}",
        f"op.1/{'1' * 32}",
        f"*/{'1' * 32}",
        f"/{'1' * 32}",
        f"op-1/{'A' * 32}",
        f"op-1/{'1' * 31}",
        f"op-1/{'1' * 32}\n",
    ],
)
def test_what_looks_like_one(text: str) -> None:
    """Near misses of a key are refused."""
    with pytest.raises(InvalidName):
        parse_payload_key(text)


@pytest.mark.parametrize(
    "wrong", [{"size": -1}, {"size": 1.5}, {"sha256": "x" * 64}, {"sha256": "a" * 63}, {"sha256": "A" * 64}]
)
def test_a_claim_check_has_its_form(wrong: dict[str, object]) -> None:
    """A size is a number of bytes, and a hash has 64 lower-case digits."""
    right = {"uri": "payload:op-1/" + "1" * 32, "size": 1, "sha256": "a" * 64}
    assert msgspec.json.decode(msgspec.json.encode(right), type=PayloadRef).size == 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(right | wrong), type=PayloadRef)
