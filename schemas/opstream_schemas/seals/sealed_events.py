"""Which members of the events of a confidential operation are sealed, and how they are opened again.

Sealed is what clients send and actions say: input, results, progress, the messages of errors, the reasons of cancels,
signals. Readable stays what opstream works by: names, ids, times, numbers, codes. A message that opstream itself writes
may be in the place of a sealed one, as that of a deadline, which the projector records without a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar, cast

import msgspec

from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    OperationError,
    Progressed,
    RecordedEvent,
    Requested,
    Signaled,
    StepFailed,
    StepStarted,
    StepSucceeded,
    Succeeded,
    WaitBegun,
)
from opstream_schemas.steps.step_history import StepRecord

from .operation_key import OperationKey

D = TypeVar("D", bound=EventData)
ChangeText = Callable[[str], str]
_ChangeDocument = Callable[[msgspec.Raw], msgspec.Raw]
_replace: Final = msgspec.structs.replace


def seal_event(data: D, key: OperationKey) -> D:
    """Return the data of an event as the journal stores it. Sealed again, it stays as it is.

    The request hashes of a request and of a signal are the caller's to key (`OperationKey.keyed_hash`): it compares
    them before.
    """
    return cast("D", _changed(data, key.seal, key.seal_json))


def open_event(data: D, key: OperationKey) -> D:
    """Return the data of an event as it was before `seal_event`.

    Raises:
        SealBroken: a value was sealed by another key, or changed since.
    """
    return cast("D", _changed(data, key.open, key.open_json))


def opened_events(events: Iterable[RecordedEvent], key: OperationKey) -> list[RecordedEvent]:
    """Return recorded events with their data opened. Their stored bytes, and so their hashes, stay.

    Raises:
        SealBroken: as `open_event`.
    """
    return [event if event.data is None else _replace(event, data=open_event(event.data, key)) for event in events]


def open_record(record: StepRecord, key: OperationKey) -> StepRecord:
    """Return what later attempts need of a step as its action made it.

    Raises:
        SealBroken: as `open_event`.
    """
    result = key.open_json(record.result) if isinstance(record.result, msgspec.Raw) else record.result
    return _replace(record, input_hash=key.open(record.input_hash), result=result)


def _changed(data: EventData, text: ChangeText, document: _ChangeDocument) -> EventData:
    match data:
        case Requested():
            return _replace(data, input=_changed_document(data.input, document))
        case Progressed():
            return _replace(data, message=text(data.message))
        case StepStarted():
            return _replace(data, input_hash=text(data.input_hash))
        case StepSucceeded():
            return _replace(data, input_hash=text(data.input_hash), result=_changed_document(data.result, document))
        case StepFailed():
            return _replace(data, input_hash=text(data.input_hash), error=change_error(data.error, text))
        case WaitBegun() if data.refused:
            return _replace(data, refused=tuple(_replace(one, reason=text(one.reason)) for one in data.refused))
        case Signaled():
            return _replace(data, payload=document(data.payload))
        case AttemptFailed() | Failed():
            return _replace(data, error=change_error(data.error, text))
        case CancelRequested() | Canceled():
            return _replace(data, reason=text(data.reason))
        case Succeeded():
            return _replace(data, result=_changed_document(data.result, document))
        case _:
            return data


def _changed_document(
    value: msgspec.Raw | msgspec.UnsetType, document: _ChangeDocument
) -> msgspec.Raw | msgspec.UnsetType:
    """Return a document changed; one that is a payload stays so: its bytes were sealed before they were stored."""
    return document(value) if isinstance(value, msgspec.Raw) else value


def change_error(error: OperationError, text: ChangeText) -> OperationError:
    """Return an error with its texts changed. Its code stays: lists, metrics and clients go by it."""
    return _replace(error, message=text(error.message), target=text(error.target))
