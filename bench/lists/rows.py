"""Operations of a shop of books, by the month: some kinds are frequent, few fail, next to none are open."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from opstream_index.operation_row import OperationRow, instant_of, place_of

END: Final = datetime(2026, 11, 30, 8, tzinfo=UTC)
"""When the newest operation was requested."""
SPAN: Final = 30 * 86_400_000_000
"""Microseconds from the oldest to the newest."""
KINDS: Final = (
    "book:print", "book:scan", "book:upload-start", "shelf:sort", "shelf:count", "reader:notify", "reader:invite",
    "loan:extend", "loan:remind", "fine:collect", "report:make", "backup:make",
)  # fmt: skip
CODES: Final = ("Timeout", "503", "500", "NoPaper", "Forbidden")
TEXTS: Final = (
    "the printer did not answer within 30 s",
    "connection to reader-mail:25 was reset by peer",
    "page {} can't be read: checksum differs",
    "no paper in tray {}",
    "disk full: /var/lib/scans needs {} bytes more",
)
_OPEN: Final = 700
"""Operations that have not ended, the newest."""


def operations(count: int, seed: int = 7) -> Iterator[OperationRow]:
    """Yield rows, oldest first, the same for the same seed."""
    draw = random.Random(seed)
    begin = instant_of(END) - SPAN
    kinds = draw.choices(KINDS, [1 / (rank + 1) for rank in range(len(KINDS))], k=count)
    for number, kind in enumerate(kinds):
        created = begin + SPAN * (number + 1) // count
        took = int(draw.expovariate(1 / 4_000_000)) + 20_000
        resource, _, action = kind.partition(":")
        status, code, message = _end(draw, is_open=number >= count - _OPEN)
        ended = None if status in {"Running", "NotStarted"} else created + took
        labels = {"team": draw.choice(("press", "stacks", "desk", "web"))} if draw.random() < 0.5 else {}
        if draw.random() < 0.05:
            labels["order"] = f"o-{number // 3}"
        own_id = f"{draw.getrandbits(128):032x}"
        yield OperationRow(
            place=place_of(created, own_id),
            id=own_id,
            own_id=own_id,
            tenant="",
            caller=f"service-{draw.randrange(40)}" if draw.random() < 0.9 else "",
            resource=resource,
            action=action,
            resource_id=str(draw.randrange(count // 20 + 1)) if draw.random() < 0.8 else "",
            status=status,
            code=code,
            message=message,
            created_at=created,
            start_at=None,
            started_at=None if status == "NotStarted" else created + 10_000,
            finished_at=ended,
            updated_at=ended or created,
            attempt=0 if status == "NotStarted" else 1 + (draw.random() < 0.02) * draw.randrange(5),
            version=1,
            labels=json.dumps(labels, sort_keys=True) if labels else None,
            retry_of=None,
            parent=None,
            position=3 * number + 3,
            expires_at=created + 365 * 86_400_000_000,
        )


def _end(draw: random.Random, *, is_open: bool) -> tuple[str, str | None, str | None]:
    """Return status, code and message."""
    chance = draw.random()
    if is_open:
        return ("Running", None, "half done") if chance < 0.3 else ("NotStarted", None, None)
    if chance < 0.04:
        code = draw.choice(CODES)
        text = draw.choices(TEXTS, (100, 100, 100, 100, 1))[0]
        return "Failed", code, text.format(draw.randrange(10_000))
    return ("Canceled", None, None) if chance < 0.043 else ("Succeeded", None, None)
