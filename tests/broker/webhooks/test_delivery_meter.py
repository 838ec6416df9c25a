"""The gauges of webhooks on a real broker: what is due while no worker runs, and which receivers fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from opstream_journal import Connection, Journal
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas.webhook_delivery import CALLBACK_ENDPOINT, DeliveryAttempt, DeliveryOutcome, WebhookDelivery
from opstream_webhooks.delivery_meter import OTHER, DeliveryMeter
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


async def test_when_an_endpoint_was_attempted_last(link: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each configured endpoint has the end of its last attempt by outcome, and zeros from its first attempt on, with
    which an alert compares. Callbacks share one label, as do endpoints that are not configured or are too many."""
    monkeypatch.setattr("opstream_webhooks.delivery_meter.MAX_ENDPOINTS", 4)
    names = {"shop", "late", "beyond"}
    meter = DeliveryMeter(link, lambda: names)
    began = datetime(2026, 1, 1, tzinfo=UTC)

    def attempt(endpoint: str, outcome: DeliveryOutcome) -> None:
        fields = {"operation_id": "a", "action": "book:read", "event": "succeeded", "attempt": 1, "duration": 2.5}
        meter.count(DeliveryAttempt(endpoint=endpoint, outcome=outcome, at=began, **fields))  # type: ignore[arg-type]

    def shown() -> dict[tuple[str, ...], float]:
        (family,) = (one for one in meter.instruments if one.name.endswith("last_attempt_timestamp_seconds"))
        return {sample.labels: sample.value for sample in family.samples()}

    assert shown() == {}
    attempt("shop", DeliveryOutcome.RETRYING)
    end = began.timestamp() + 2.5
    assert shown() == {("shop", "delivered"): 0, ("shop", "retrying"): end, ("shop", "gave-up"): 0}
    for endpoint in (CALLBACK_ENDPOINT, "invented-1", "invented-2", "late", "beyond"):
        attempt(endpoint, DeliveryOutcome.DELIVERED)
    names.clear()
    attempt("shop", DeliveryOutcome.DELIVERED)
    assert {endpoint for endpoint, _ in shown()} == {"shop", CALLBACK_ENDPOINT, OTHER, "late"}
    assert shown()["shop", "delivered"] == shown()["shop", "retrying"] == end
