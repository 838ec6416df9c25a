"""What the API may ask of other roles: to deliver again, to handle again. It can do neither itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opstream_journal import Connection
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores import dead_letters
from opstream_journal.stores.dead_letters import DeadLetter
from opstream_journal.stores.webhook_deliveries import DeliveryRecords, DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.names import Kind
from opstream_schemas.webhook_delivery import RedeliveryOutcome
from opstream_webhooks.redelivery import RedeliveryDesk
from tests.support.broker.roles import RoleBroker
from tests.support.projector.projection import running
from tests.support.system.wait import eventually
from tests.support.webhooks.attempts import attempted

pytestmark = pytest.mark.broker

KIND = Kind("book", "upload-start")


async def waiting(operator: Connection) -> int:
    """Deliveries that wait in the queue."""
    info = await operator.nc.jetstream().stream_info(subjects.WEBHOOKS_STREAM)
    return int(info.state.messages)


async def test_the_api_asks_and_may_not_do_it_itself(tmp_path: Path) -> None:
    """Its request reaches the webhooks service, and that of a retry the subscriber, each in another account; it reads
    what both put aside. With its own key it neither writes to the queue of deliveries nor empties it, nor answers in
    the place of the others."""
    with RoleBroker(tmp_path, [ActionAccess(KIND)], durables=["mailer"]) as broker:
        operator = await broker.connect("admin")
        await provision(operator, Sizing())
        await dead_letters.ensure_stream(operator)
        api, webhooks, mailer = [await broker.connect(name) for name in ("api", "webhooks", "subscriber-mailer")]
        await operator.nc.request(subjects.event_subject("op1", KIND, "failed"), b"{}", timeout=5)
        await attempted(webhooks, "op1")
        await dead_letters.add(
            mailer,
            DeadLetter(
                durable="mailer", sequence=1, subject="a", reason="HandlerFailed", detail="", deliveries=1, data=b"{}"
            ),
        )
        records = DeliveryRecords(api)
        await records.start()
        ((attempt,), _) = await records.undelivered(1, 10)
        assert attempt.operation_id == "op1"
        assert await dead_letters.keys(api) == [("mailer", 1)]
        letter = await dead_letters.find(api, "mailer", 1)
        assert letter is not None
        assert letter.reason == "HandlerFailed"

        assert await records.ask_again("op1", "billing") is None
        assert await dead_letters.ask_retry(api, "mailer", 1, timeout=5) is None
        desk = RedeliveryDesk(webhooks, DeliveryStore(webhooks), now=lambda: datetime.now(UTC))

        async def answer(request: object) -> None:
            await request.respond(b"done")  # type: ignore[attr-defined]

        await mailer.nc.subscribe(subjects.dead_letter_retry_subject("mailer"), cb=answer)
        async with running(desk):

            async def is_sent() -> bool:  # the broker knows of the subscription a moment later
                found = await records.ask_again("op1", "billing")
                return found is not None and found.outcome == RedeliveryOutcome.SENT

            await eventually(is_sent)
            assert await dead_letters.ask_retry(api, "mailer", 1, timeout=5) == "done"
            before = await waiting(operator)
            assert before == 1
            for subject in ("webhooks.due.billing.op9", "webhooks.later.billing.op9"):
                for headers in ({}, {"Nats-Rollup": "all"}):
                    await api.nc.publish(subject, b"{}", headers=headers)
            taken: list[bytes] = []

            async def take(request: object) -> None:
                taken.append(b"taken")

            await api.nc.subscribe(subjects.REDELIVER_SUBJECT, cb=take)
            await api.nc.subscribe(subjects.dead_letter_retry_subject("mailer"), cb=take)
            await api.nc.flush()
            assert await dead_letters.ask_retry(operator, "mailer", 1, timeout=5) == "done"
            await asyncio.gather(api.nc.flush(), operator.nc.flush())
            assert taken == []
            assert await waiting(operator) == before
        for connection in (api, webhooks, mailer, operator):
            await connection.close()
