"""The actions of bulk operations: no runner announces them, so they are in no catalog. The API runs them."""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_schemas.action_spec import ActionSpec, Policy
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.bulk.records import BulkInput, BulkResult
from opstream_schemas.names import Kind

LEASE: Final = 10.0
"""Seconds after which another process goes on with the bulk operation of one that was killed."""
MAX_ATTEMPTS: Final = 100
"""Each restart of a process in the middle of a bulk operation takes one."""
MAX_RUNNING: Final = 10_000
"""Bulk operations of one kind that have begun or wait for others of their caller, over all processes. Further ones wait
for these, of whichever caller, so it is far more than callers need."""

_SUMMARIES: Final = {BulkAct.RETRY: "Do operations again", BulkAct.CANCEL: "Cancel operations"}


def _spec(act: BulkAct) -> ActionSpec:
    return ActionSpec(
        resource=act.kind.resource,
        action=act.kind.action,
        summary=_SUMMARIES[act],
        action_version=1,
        input_schema=msgspec.json.schema(BulkInput),
        result_schema=msgspec.json.schema(BulkResult),
        policy=Policy(lease=LEASE, max_attempts=MAX_ATTEMPTS, max_concurrency=MAX_RUNNING),
    )


BULK_SPECS: Final[dict[Kind, ActionSpec]] = {act.kind: _spec(act) for act in BulkAct}
"""By kind."""
