"""What a stolen key can do to operations of actions whose events it may not write: block them, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import pytest
from nats.errors import NoRespondersError

from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.bulk.kinds import BULK_KINDS
from opstream_schemas.errors import FoldRefused
from opstream_schemas.events import EventData, Failed, Succeeded, encode_event
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import fold, fold_for_reader
from tests.support.broker.roles import RoleBroker
from tests.support.journal.journals import KIND, begin, extend, following, opened
from tests.support.schemas.histories import FAILURE, started

pytestmark = pytest.mark.broker

FILMS = Kind("film", "cut")


SUCCESS: Final = Succeeded(result=msgspec.Raw(b"{}"))
FORGERIES: Final[list[tuple[str, Kind, str, EventData]]] = [
    ("runner", FILMS, "succeeded", SUCCESS),
    *(("api", kind, "succeeded", SUCCESS) for kind in BULK_KINDS),
    *(("api", kind, "failed", Failed(error=FAILURE)) for kind in BULK_KINDS),
    ("api", KIND, "canceled", SUCCESS),
    ("projector", KIND, "failed", SUCCESS),
]
"""The key, the action and the event under which it writes, and the event that it writes there."""


async def test_an_outcome_counts_only_where_it_may_be_written(tmp_path: Path) -> None:
    """A key can't write an outcome where it counts. Where it can, under another action or another event, with a right
    chain and the id of the operation, all who read refuse it: the operation does not end by it."""
    with RoleBroker(tmp_path, [ActionAccess(FILMS)]) as broker:
        operator = await broker.connect("admin")
        await provision(operator, Sizing())
        journal = await opened(operator)
        for number, (login, kind, name, forgery) in enumerate(FORGERIES):
            thief = await broker.connect(login)
            operation = await extend(journal, await begin(journal, f"op-{number}"), started())
            forged = encode_event(following(operation, forgery))
            with pytest.raises(NoRespondersError):
                await thief.nc.request(subjects.event_subject(operation.id, KIND, forgery.name), forged, timeout=5)
            await thief.nc.request(subjects.event_subject(operation.id, kind, name), forged, timeout=5)
            events = await journal.events(operation.id)
            assert [one.stored for one in events[2:]] == [forged]
            for fold_it in (fold, fold_for_reader):
                with pytest.raises(FoldRefused, match="is not a subject of book:upload-start"):
                    fold_it(None, events)
            await thief.close()
        await operator.close()
