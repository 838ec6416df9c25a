"""Draws operations with arbitrary bytes among their messages."""

from __future__ import annotations

import msgspec
from hypothesis import assume
from hypothesis import strategies as st

from opstream_schemas.events import decode_event, encode_event
from opstream_schemas.operation.commands import operator_error
from opstream_schemas.operation.forced_end import OperationMessage, inspect_messages
from tests.support.schemas.histories import History, events, histories

ERROR = operator_error("a foreign message")


@st.composite
def junk(draw: st.DrawFn, history: History) -> bytes:
    """Arbitrary bytes, any event, or one of this operation's events again."""
    stranger = draw(events)
    match draw(st.sampled_from(["bytes", "other", "own", "again"])):
        case "bytes":
            return draw(st.binary(max_size=20))
        case "other":
            return encode_event(stranger)
        case "own":
            position = draw(st.integers(1, len(history.events) + 2))
            return encode_event(msgspec.structs.replace(stranger, operation_id=history.id, position=position))
    return draw(st.sampled_from(history.payloads))


@st.composite
def undecidable_messages(draw: st.DrawFn) -> list[OperationMessage]:
    """An open operation's messages with junk in between, so that no command can be decided."""
    history = draw(histories(unknown=True, ending=False))
    payloads = list(history.payloads)
    for _ in range(draw(st.integers(0, 4))):
        payloads.insert(draw(st.integers(1, len(payloads))), draw(junk(history)))
    messages = [OperationMessage(3 * number, payload) for number, payload in enumerate(payloads, start=1)]
    found = inspect_messages(history.id, messages)
    assume(found.problem is not None and found.operation is not None and not found.operation.is_terminal)
    return messages


def id_of(messages: list[OperationMessage]) -> str:
    """The operation id of the messages."""
    return decode_event(messages[0].payload, 1).operation_id
