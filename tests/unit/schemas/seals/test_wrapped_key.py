"""Key-encryption keys and wrapped keys: what is taken, and what an error says."""

from __future__ import annotations

import base64

import msgspec
import pytest

from opstream_schemas.errors import InvalidEvent, InvalidKek, SealBroken, UnknownKek
from opstream_schemas.events import decode_event
from opstream_schemas.seals.operation_key import OperationKey
from opstream_schemas.seals.wrapped_key import (
    KeyEntry,
    decode_entry,
    encode_entry,
    parse_keks,
    unwrap_key,
    wrap_key,
)
from tests.support.schemas.histories import History, request

pytestmark = pytest.mark.unit

FIRST, SECOND = (base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))
SECRET = bytes(range(32))


def test_the_first_key_is_the_present_one() -> None:
    """Keys are one a line, in their order; comments, empty lines and repetitions are passed over."""
    keks = parse_keks(f"# of 2026\n\n{SECOND}  # present\n{FIRST}\n{SECOND}\n")
    assert [one.secret[0] for one in keks] == [2, 1]
    assert len({one.id for one in keks}) == 2
    assert SECOND not in repr(keks)


@pytest.mark.parametrize("text", ["", "# nothing\n", "c2hvcnQ=", "no base64!", f"{FIRST}x", f"{FIRST}\nshort"])
def test_what_is_no_key_is_refused(text: str) -> None:
    """The message says what to write, and shows nothing of the file."""
    with pytest.raises(InvalidKek, match="opstream keys new") as refused:
        parse_keks(text)
    assert not any(word in str(refused.value) for word in (FIRST, "c2hvcnQ=", "base64!"))


def test_a_key_opens_for_its_operation_only() -> None:
    """A wrapped key opens with the KEK that has wrapped it, for the operation that it was wrapped for, unchanged."""
    first, second = parse_keks(f"{FIRST}\n{SECOND}")
    entry = decode_entry("a", encode_entry(wrap_key(second, "a", SECRET)))
    assert unwrap_key((first, second), "a", entry) == SECRET
    with pytest.raises(UnknownKek, match=second.id):
        unwrap_key((first,), "a", entry)
    changed = msgspec.structs.replace(entry, wrapped=bytes([*entry.wrapped[:-1], entry.wrapped[-1] ^ 1]))
    for operation_id, one in (("b", entry), ("a", changed), ("a", KeyEntry(kek=second.id, wrapped=b"x"))):
        with pytest.raises(SealBroken):
            unwrap_key((second,), operation_id, one)
    assert SECRET.hex() not in repr(OperationKey("a", SECRET))


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"kek":"a"}', b'{"wrapped":"AA==","erased":{"at":"x"}}'])
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    """A value that is neither a key nor a record is an error, not a missing key."""
    with pytest.raises(SealBroken):
        decode_entry("a", data)


def test_the_type_says_whether_it_is_sealed() -> None:
    """A request whose type and content disagree is no event: an old process could take it for what it is not."""
    for data, wrong in ((request(), "v5"), (request(confidential=True), "v1")):
        (payload,) = History().append(data).payloads
        lie = payload.replace(data.wire_type.encode(), f"opstream.action.requested.{wrong}".encode())
        with pytest.raises(InvalidEvent, match="confidential"):
            decode_event(lie, 1)
