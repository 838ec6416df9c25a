"""Records of attempts to deliver, as the webhooks service writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from opstream_journal import Connection
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas.webhook_delivery import DeliveryAttempt, DeliveryOutcome


async def attempted(
    link: Connection, operation_id: str, outcome: DeliveryOutcome = DeliveryOutcome.GAVE_UP, **changes: Any
) -> DeliveryAttempt:
    """Record an attempt to deliver the failure of `book:upload-start`; `changes` are members of the record."""
    members: dict[str, Any] = {
        "operation_id": operation_id,
        "action": "book:upload-start",
        "event": "failed",
        "endpoint": "billing",
        "url": "https://billing.example.com/hooks",
        "attempt": 1,
        "at": datetime.now(UTC),
        "duration": 0.2,
        "outcome": outcome,
        "status": 204 if outcome is DeliveryOutcome.DELIVERED else 503,
    }
    attempt = DeliveryAttempt(**{**members, **changes})
    await DeliveryStore(link).record(attempt)
    return attempt
