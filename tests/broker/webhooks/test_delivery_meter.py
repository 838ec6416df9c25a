"""The gauges of webhooks on a real broker: what is due while no worker runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from opstream_journal import Connection, Journal
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas.webhook_delivery import WebhookDelivery
from opstream_webhooks.delivery_meter import DeliveryMeter
from tests.support.system.wait import eventually
from tests.support.webhooks.service import ended

pytestmark = pytest.mark.broker


async def test_what_is_due(link: Connection, journal: Journal) -> None:
    """Outcomes lag until they are deliveries; a delivery that is due gets older, one for later does not count."""
    meter = DeliveryMeter(link)
    await meter.start()

    async def shown() -> dict[str, float]:
        await meter.read()
        return {one.name: sample.value for one in meter.gauges for sample in one.samples()}

    assert set((await shown()).values()) == {0}
    operation = await ended(journal, "a")
    assert (await shown())["opstream_webhooks_lag_events"] == 1

    fields: dict[str, Any] = {"operation_id": "a", "action": str(operation.kind), "event": "succeeded"}
    now, store = datetime.now(UTC), DeliveryStore(link)
    for endpoint, at in (("now", now), ("later", now + timedelta(hours=1))):
        delivery = WebhookDelivery(endpoint=endpoint, sequence=operation.stream_sequence, begun=now, **fields)
        await store.schedule(delivery, at)

    async def is_due() -> bool:
        found = await shown()
        return found["opstream_webhooks_due"] == 1 and found["opstream_webhooks_oldest_due_seconds"] > 0

    await eventually(is_due)
