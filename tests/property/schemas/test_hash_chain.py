"""Hash chains of any histories: tampering in the middle of a stream shows, an untouched stream has no finding, and the
rest shows against a checkpoint."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from opstream_schemas.events import decode_event, encode_event
from opstream_schemas.integrity.chain_state import ChainHead, CompactHashSet
from opstream_schemas.integrity.checkpoint import Checkpoint, CheckpointBuilder, CheckpointVerifier, boundary_findings
from opstream_schemas.integrity.hash_chain import HashChainVerifier
from opstream_schemas.operation.forced_end import OperationMessage, forced_end_event, inspect_messages
from tests.support.schemas.histories import NOW, events, histories
from tests.support.schemas.junk_messages import ERROR, id_of, undecidable_messages
from tests.support.schemas.tampered_stream import Stored, checked, findings, renumbered, stream

pytestmark = pytest.mark.unit

some = settings(max_examples=settings.default.max_examples // 2)


@st.composite
def streams(draw: st.DrawFn) -> list[Stored]:
    """The events of some operations, interleaved; also events of newer versions, on their own subjects."""
    found = draw(st.lists(histories(unknown=True), min_size=1, max_size=3, unique_by=lambda one: one.id))
    return stream(found, draw(st.lists(st.integers(0, 9), max_size=12)))


def own(messages: list[Stored], index: int) -> list[int]:
    """The indexes of the messages of the same operation."""
    owner = messages[index].subject.split(".")[1]
    return [place for place, one in enumerate(messages) if one.subject.split(".")[1] == owner]


def covered(messages: list[Stored]) -> list[Checkpoint]:
    """A checkpoint that covers all messages."""
    coverer = CheckpointBuilder(1)
    for one in messages:
        coverer.add_message(one.sequence, one.subject, one.body, stored_at(one.sequence))
    return [
        Checkpoint(
            number=1,
            previous="",
            time=NOW,
            stream="OPERATIONS",
            created="long ago",
            max_age=0.0,
            begin=1,
            first=1,
            last=len(messages),
            messages=len(messages),
            findings=0,
            heads="",
            segments=coverer.finish(len(messages)),
        )
    ]


def stored_at(sequence: int) -> int:
    """Nanoseconds since 1970."""
    return (int(NOW.timestamp()) + sequence) * 1_000_000_000


def against(checkpoints: list[Checkpoint], messages: list[Stored]) -> list[str]:
    """The findings of a comparison with checkpoints."""
    begin = messages[0].sequence if messages else 1
    end = messages[-1].sequence if messages else 0
    comparison = CheckpointVerifier(checkpoints, begin=begin, end=end, age=0.0, now=NOW)
    for one in messages:
        comparison.add_message(one.sequence, one.subject, one.body, stored_at(one.sequence))
    comparison.finish()
    return [str(one) for one in (*boundary_findings(checkpoints, begin, end), *comparison.pop_findings())]


@some
@given(streams())
def test_an_untouched_stream_has_no_findings(messages: list[Stored]) -> None:
    """Any operations in any order, with events of unknown types, have no finding."""
    check = checked(messages)

    assert (check.findings, check.notes) == ([], [])
    assert check.events == len(messages)
    assert against(covered(messages), messages) == []


@some
@given(streams(), st.data())
def test_a_changed_byte_shows(messages: list[Stored], data: st.DataObject) -> None:
    """A changed byte anywhere in an event is found: by the chain if an event of the operation follows, and always by a
    checkpoint."""
    index = data.draw(st.integers(0, len(messages) - 1))
    place = data.draw(st.integers(0, len(messages[index].data) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != messages[index].data[place]))
    changed = bytearray(messages[index].data)
    changed[place] = other
    tampered = list(messages)
    tampered[index] = messages[index]._replace(data=bytes(changed))

    if own(messages, index)[-1] != index:
        assert findings(tampered)
    assert against(covered(messages), tampered)


@some
@given(streams(), st.data())
def test_an_inserted_message_shows(messages: list[Stored], data: st.DataObject) -> None:
    """A repeated event, any other event, or any bytes on an operation's subjects are found."""
    index = data.draw(st.integers(0, len(messages) - 1))
    there = messages[index]
    history_id = there.subject.split(".")[1]
    event = data.draw(events)
    payload = data.draw(
        st.sampled_from([messages[place].data for place in own(messages, index)])
        | st.binary(max_size=20)
        | st.just(encode_event(event))
        | st.just(encode_event(msgspec.structs.replace(event, operation_id=history_id)))
    )
    at = data.draw(st.integers(0, len(messages)))
    tampered = renumbered([*messages[:at], Stored(0, there.subject, payload), *messages[at:]])

    assert findings(tampered)
    assert tampered[: len(messages)] == messages or against(covered(messages), tampered)  # unless it came behind


@some
@given(streams(), st.data())
def test_a_removal_in_the_middle_shows(messages: list[Stored], data: st.DataObject) -> None:
    """A removed event that is not its operation's last is found, also in a copy without a gap."""
    index = data.draw(st.integers(0, len(messages) - 1))
    assume(own(messages, index)[-1] != index)
    tampered = [*messages[:index], *messages[index + 1 :]]

    assert findings(tampered)
    assert findings(renumbered(tampered))


@some
@given(streams(), st.data())
def test_a_gap_shows(messages: list[Stored], data: st.DataObject) -> None:
    """A stream deletes nothing in its middle, so a missing sequence is found, of whatever message."""
    assume(len(messages) > 2)
    index = data.draw(st.integers(1, len(messages) - 2))

    assert any("missing" in one.what for one in findings([*messages[:index], *messages[index + 1 :]]))


@some
@given(streams(), st.data())
def test_another_order_shows(messages: list[Stored], data: st.DataObject) -> None:
    """Two swapped events of one operation are found."""
    one = data.draw(st.integers(0, len(messages) - 1))
    two = data.draw(st.sampled_from(own(messages, one)))
    assume(one != two)
    tampered = list(messages)
    tampered[one], tampered[two] = messages[two], messages[one]

    assert findings(renumbered(tampered))
    assert against(covered(messages), renumbered(tampered))


@some
@given(streams(), st.data())
def test_a_removal_at_the_end_shows_against_a_checkpoint(messages: list[Stored], data: st.DataObject) -> None:
    """A removed tail, or a whole operation removed in a copy, shows against a checkpoint; no chain can show it."""
    if data.draw(st.booleans()):
        tampered = messages[: data.draw(st.integers(0, len(messages) - 1))]
    else:
        gone = own(messages, data.draw(st.integers(0, len(messages) - 1)))
        tampered = renumbered(one for index, one in enumerate(messages) if index not in gone)

    assert findings(tampered) == []
    assert against(covered(messages), tampered)


@some
@given(streams(), st.data())
def test_expired_messages_are_not_findings(messages: list[Stored], data: st.DataObject) -> None:
    """Expired messages at the start are no finding, unless nothing expires, or they were removed from the middle."""
    begin = data.draw(st.integers(0, len(messages)))
    rest = messages[begin:]
    first = begin + 1

    assert findings(rest, first=first, can_expire=True) == []
    cut = [one for one in rest if decode_event(one.data, 1).position > 1]
    begun = [one for one in rest if decode_event(one.data, 1).position == 1]
    if {one.subject.split(".")[1] for one in cut} - {one.subject.split(".")[1] for one in begun}:
        assert findings(rest, first=first, can_expire=False)
        assert findings(renumbered(rest), can_expire=True)


@some
@given(undecidable_messages())
def test_a_forced_end_is_not_tampering(messages: list[OperationMessage]) -> None:
    """Messages that a forced end passed over are notes; without the end they are findings."""
    name = id_of(messages)
    found = inspect_messages(name, messages)
    end = forced_end_event(found, ERROR, "a foreign message", id="end", source="test", time=NOW)
    before = [Stored(one.sequence, f"operations.{name}.book.upload-start.progressed", one.payload) for one in messages]
    last = Stored(before[-1].sequence + 1, f"operations.{name}.book.upload-start.failed", encode_event(end))

    def check(what: list[Stored]) -> HashChainVerifier:
        check = HashChainVerifier(first=what[0].sequence, can_expire=False)
        for one in what:
            check.add_message(one.sequence, one.subject, one.data, one.body)
        check.finish()
        return check

    assert check([*before, last]).findings == []
    assert check([*before, last]).notes
    other = [*before[:-1], before[-1]._replace(data=b"{}"), last]
    if before[-1].data != b"{}":
        assert check(other).findings


@some
@given(streams(), st.data())
def test_verification_continues_after_a_checkpoint(messages: list[Stored], data: st.DataObject) -> None:
    """From the stored heads of the open operations the rest is verified as if all messages were."""
    cut = data.draw(st.integers(0, len(messages)))
    before = checked(messages[:cut])
    heads = msgspec.json.decode(msgspec.json.encode(before.open_operations), type=dict[str, ChainHead])
    rest = messages[cut:]

    def behind(what: list[Stored]) -> list[object]:
        check = HashChainVerifier(
            first=cut + 1,
            can_expire=True,
            heads=msgspec.json.decode(msgspec.json.encode(heads), type=dict[str, ChainHead]),
        )
        for one in what:
            check.add_message(one.sequence, one.subject, one.data, one.body)
        check.finish()
        return [*check.findings]

    assert behind(rest) == []
    if rest:
        index = data.draw(st.integers(0, len(rest) - 1))
        if own(rest, index)[-1] != index:
            assert behind(renumbered([*rest[:index], *rest[index + 1 :]], cut + 1))


@some
@given(st.lists(st.text(max_size=5), max_size=40), st.lists(st.text(max_size=5)))
def test_the_hash_set(texts: list[str], others: list[str]) -> None:
    """It contains exactly the added texts."""
    remembered = CompactHashSet()
    for text in texts:
        remembered.add(text)

    assert all(text in remembered for text in texts)
    assert not any(text in remembered for text in set(others) - set(texts))
    assert len(remembered) == len(set(texts))
