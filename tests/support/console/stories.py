"""Operations as a reader of the console meets them: written to a real journal, event by event, at given times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from opstream_journal import Journal
from opstream_schemas.events import (
    AttemptFailed,
    EventData,
    Failed,
    OperationError,
    Progressed,
    SignalWait,
    Started,
    StepFailed,
    Succeeded,
    WaitBegun,
)
from tests.support.api.service import Api, OperationStory
from tests.support.schemas.histories import step_done, waits

TIMES_OUT: Final = OperationError(code=503, message="the printer did not answer within 2 s")


def began(attempt: int, runner: str = "runner-1") -> Started:
    """An attempt begins."""
    return Started(attempt=attempt, runner=runner, token=f"token-{attempt}", ticket=attempt, lease=30.0)


async def happened(
    api: Api, journal: Journal, *events: tuple[float, EventData], operation_id: str = ""
) -> OperationStory:
    """Submit an operation, and append events to it, each so many seconds after the request."""
    headers = {"Operation-Id": operation_id} if operation_id else {}
    response = await api.submit(headers=headers)
    assert response.status_code == 202, response.text
    story = await OperationStory.of(journal, response.json()["id"])
    for seconds, data in events:
        await story.append(data, at=story.operation.created_at + timedelta(seconds=seconds))
    return story


def stepped() -> Sequence[tuple[float, EventData]]:
    """Events of an operation with a step, a sleep, and a step that failed."""
    return (
        (0.2, began(1)),
        (0.4, step_done(step="copy", key="7")),
        (0.5, waits(until=datetime.now(UTC) + timedelta(hours=1))),
        (0.7, began(2, "runner-2")),
        (
            0.9,
            StepFailed(attempt=2, step="ship", input_hash="0" * 64, error=TIMES_OUT, seconds=0.1, tries=3),
        ),
        (1.0, Failed(error=TIMES_OUT)),
    )


def asking() -> Sequence[tuple[float, EventData]]:
    """Events of an operation that waits for an approval."""
    schema = b'{"type":"object","properties":{"approved":{"type":"boolean"}},"required":["approved"]}'
    until = datetime.now(UTC) + timedelta(hours=1)
    return (
        (0.2, began(1)),
        (0.4, WaitBegun(attempt=1, wait="approval", until=until, signal=SignalWait(schema=msgspec.Raw(schema)))),
    )


def retried() -> Sequence[tuple[float, EventData]]:
    """Events of an operation that waited for 0.2 s, failed after 0.2 s, paused for 0.2 s, and succeeded after 0.4 s."""
    return (
        (0.2, began(1)),
        (0.3, Progressed(percent=20, message="printing")),
        (0.4, AttemptFailed(attempt=1, error=TIMES_OUT, retry_at=datetime.now(UTC), counted=True)),
        (0.6, began(2, "runner-2")),
        (0.8, Progressed(percent=65.5, message="binding")),
        (1.0, Succeeded(result=msgspec.Raw(b'{"pages":312,"weight":1.50,"id":12345678901234567890}'))),
    )
