"""Sealed values, for any history: the fold works on them as on the plain ones, and only the key tells them apart."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opstream_schemas.errors import SealBroken
from opstream_schemas.event_types.erasure import Erasure
from opstream_schemas.events import EventData, Requested
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.operation_key import SEALED_PREFIX, OperationKey, is_sealed
from opstream_schemas.seals.sealed_events import open_event, seal_event
from opstream_schemas.seals.sealed_state import blank_operation, open_operation
from tests.support.schemas.histories import NOW, History, histories, json_documents, signal_histories

pytestmark = pytest.mark.unit

KEY, OTHER = (OperationKey("op-1", bytes([number] * 32)) for number in (1, 2))
DERIVED = {"confidential": True, "fold_version": 0, "last_hash": "", "uploads": ()}
"""What of the state is another one, for the same events."""


def sealed_copy(history: History) -> History:
    """The same history of a confidential operation."""
    copy, last = History(history.id, start=history.start), 0
    for event in history.events:
        data = event.data
        assert data is not None
        if isinstance(data, Requested):
            data = msgspec.structs.replace(data, confidential=True, uploads=())
        copy.append(seal_event(data, KEY), gap=event.sequence - last)
        last = event.sequence
    return copy


def shown(operation: Operation) -> Operation:
    """The state without what depends on bytes."""
    return msgspec.structs.replace(operation, **DERIVED)


@given(histories() | signal_histories())
def test_the_fold_of_what_is_sealed_opens_to_the_fold(history: History) -> None:
    """The state after sealed events, opened, is that after the plain ones, event by event; so all decisions agree."""
    assume(all(event.data is not None for event in history.events))
    copy = sealed_copy(history)
    for plain, sealed in zip(history.states, copy.states, strict=True):
        opened = open_operation(sealed, KEY)
        assert shown(opened) == shown(plain)
        assert sealed.is_current
        blank = blank_operation(sealed, Erasure(at=NOW))
        assert not any(map(is_sealed, _texts(blank)))
        assert (blank.status, blank.percent_complete) == (plain.status, plain.percent_complete)


@given(histories() | signal_histories())
def test_an_event_opens_to_what_it_was(history: History) -> None:
    """Sealed twice it stays as it is, and opened it is as before; with another key it can't be opened."""
    for event in history.events:
        data = event.data
        assert isinstance(data, EventData)
        sealed = seal_event(data, KEY)
        assert seal_event(sealed, KEY) == sealed
        assert open_event(sealed, KEY) == data
        if sealed != data:
            with pytest.raises(SealBroken):
                open_event(sealed, OTHER)


@given(st.text() | st.text().map(SEALED_PREFIX.__add__))
def test_any_text(text: str) -> None:
    """Any text comes back, also one that looks sealed; no two seals of it are the same, and none has it."""
    one, other = KEY.seal(text), KEY.seal(text)
    assert KEY.open(one) == KEY.open(other) == text
    assert (one == other) is (text == "")
    if len(text) > 3 and not text.startswith(SEALED_PREFIX):
        assert text not in one


@given(json_documents())
def test_any_document(document: bytes) -> None:
    """Any JSON comes back byte for byte, and is a JSON text meanwhile."""
    sealed = KEY.seal_json(msgspec.Raw(document))
    assert isinstance(msgspec.json.decode(sealed), str)
    assert bytes(KEY.open_json(sealed)) == document


@given(st.text(min_size=1), st.data())
def test_a_change_is_found(text: str, data: st.DataObject) -> None:
    """A sealed value of which one character was changed, or that was cut, does not open."""
    sealed = KEY.seal(text)
    at = data.draw(st.integers(len(SEALED_PREFIX), len(sealed.rstrip("=")) - 2))
    for changed in (f"{sealed[:at]}{'A' if sealed[at] != 'A' else 'B'}{sealed[at + 1 :]}", sealed[:at]):
        with pytest.raises(SealBroken):
            KEY.open(changed)


def test_hashes_are_keyed() -> None:
    """The hash of a request is the same for the same key, and says nothing without it."""
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert KEY.keyed_hash(digest) == KEY.keyed_hash(digest)
    assert len({digest, KEY.keyed_hash(digest), OTHER.keyed_hash(digest)}) == 3
    with pytest.raises(SealBroken):
        OperationKey("op-2", bytes([1] * 32)).open(KEY.seal("canary"))


def _texts(operation: Operation) -> list[str]:
    error, attempt_error = operation.error, operation.attempt_error
    found = [operation.message, operation.reason, operation.cancel.reason if operation.cancel else ""]
    return [*found, *(text for one in (error, attempt_error) if one for text in (one.message, one.target))]
