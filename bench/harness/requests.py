"""A request as the API records it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from opstream_schemas.action_spec import DAY_SECONDS
from opstream_schemas.events import Requested
from opstream_schemas.names import Kind

RESOURCE_ID: Final = "42"


def make_request(kind: Kind, body: bytes, now: datetime) -> Requested:
    """The data of a `requested` event, with the policy that an action has by default."""
    return Requested(
        resource=kind.resource,
        resource_id=RESOURCE_ID,
        action=kind.action,
        action_version=1,
        input=msgspec.Raw(body),
        request_hash="0" * 64,
        deadline=now + timedelta(seconds=DAY_SECONDS),
        retention=DAY_SECONDS,
    )
