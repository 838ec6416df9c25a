"""What the version before this one wrote: its golden files, byte for byte, folded by this one.

`golden_1/` holds those that differ from today's: the fold of before had version 1, and a request had one retention.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from opstream_schemas.events import EventData, Requested, decode_event
from opstream_schemas.operation.state import FOLD_VERSION, Operation
from tests.support.schemas.histories import History
from tests.unit.schemas.test_golden import FULL, STATES

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parent / "golden_1"
NEW = ("retention_failed", "retention_canceled", "client_id", "client_address", "callback")
"""Members of a request that are younger."""


def requested() -> EventData:
    """The request as it was recorded then."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(Requested) if field.name in NEW}
    return msgspec.structs.replace(FULL[0], **defaults)


def test_an_event_of_before_has_the_defaults_of_what_is_new() -> None:
    """One retention counts for every outcome, and nobody is told of the end."""
    payload = (FOLDER / "requested.json").read_bytes()

    event = decode_event(payload, 1)

    assert event.data == requested()
    assert event.stored == payload


@pytest.mark.parametrize("state", STATES)
def test_events_of_before_give_the_state_of_before(state: str) -> None:
    """Also the hashes are the same, so that chains that were begun go on; only the version of the fold differs."""
    snapshot = msgspec.json.decode((FOLDER / f"operation.{state}.json").read_bytes(), type=Operation)

    operation = History(snapshot.id).append(requested(), *STATES[state]).operation

    assert operation == msgspec.structs.replace(snapshot, fold_version=FOLD_VERSION)
    assert snapshot.effective_retention == snapshot.retention == operation.minimum_retention


@pytest.mark.parametrize("state", STATES)
def test_a_snapshot_of_before_is_not_trusted(state: str) -> None:
    """Whoever wrote it may have passed over what the request says of its outcomes."""
    snapshot = msgspec.json.decode((FOLDER / f"operation.{state}.json").read_bytes(), type=Operation)

    assert snapshot.fold_version < FOLD_VERSION


def test_every_file_is_read() -> None:
    """No file lies about that nothing is compared with."""
    assert {path.name for path in FOLDER.iterdir()} == {
        "requested.json",
        *(f"operation.{state}.json" for state in STATES),
    }
