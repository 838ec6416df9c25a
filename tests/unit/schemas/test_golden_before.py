"""The golden files of the previous version, byte for byte, folded by this one.

`golden_1/` has the files that differ from today's: its fold has version 1, and a request has one retention.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from opstream_schemas.events import EventData, Requested, decode_event
from opstream_schemas.operation.state import FOLD_VERSION, Operation
from tests.support.schemas.histories import History
from tests.unit.schemas.test_golden import FULL
from tests.unit.schemas.test_golden import STATES as ALL_STATES

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parent / "golden_1"
NEW = (
    "retention_failed",
    "retention_canceled",
    "client_id",
    "client_address",
    "callback",
    "own_id",
    "tenant",
    "labels",
    "retry_of",
    "authority",
    "priority",
)
"""Members of a request that this version added."""


STATES = {state: events for state, events in ALL_STATES.items() if state != "with-payloads"}
"""Those that the previous version could have."""


def requested() -> EventData:
    """The request as the previous version recorded it."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(Requested) if field.name in NEW}
    return msgspec.structs.replace(FULL[0], **defaults)


def test_an_older_event_has_the_defaults_of_new_members() -> None:
    """One retention counts for every outcome, and there is no callback."""
    payload = (FOLDER / "requested.json").read_bytes()

    event = decode_event(payload, 1)

    assert event.data == requested()
    assert event.stored == payload


@pytest.mark.parametrize("state", STATES)
def test_older_events_fold_to_the_same_state(state: str) -> None:
    """The hashes are the same too, so chains go on; only the version of the fold differs."""
    snapshot = msgspec.json.decode((FOLDER / f"operation.{state}.json").read_bytes(), type=Operation)

    operation = History(snapshot.id).append(requested(), *STATES[state]).operation

    assert operation == msgspec.structs.replace(snapshot, fold_version=FOLD_VERSION)
    assert snapshot.effective_retention == snapshot.retention == operation.minimum_retention


@pytest.mark.parametrize("state", STATES)
def test_an_older_snapshot_is_not_used(state: str) -> None:
    """The version that wrote it may have ignored the retentions of the request."""
    snapshot = msgspec.json.decode((FOLDER / f"operation.{state}.json").read_bytes(), type=Operation)

    assert snapshot.fold_version < FOLD_VERSION


def test_every_file_is_read() -> None:
    """Every file of the previous version is compared with something."""
    assert {path.name for path in FOLDER.iterdir()} == {
        "requested.json",
        *(f"operation.{state}.json" for state in STATES),
    }
