"""The next step for a stream that the broker does not have: one text for services and commands.

All streams but the journal are made again by `opstream provision`. For the journal that is the last resort: a backup
can only be restored while the broker has no stream of that name.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from opstream_schemas.subjects import OPERATIONS_STREAM

PROVISION_HINT: Final = "run 'opstream provision'"

LOST_JOURNAL_STEP: Final = (
    "stop the services; if there is a backup of the journal, restore it while the broker has no stream "
    f"{OPERATIONS_STREAM} (docs/running.md, When the journal was deleted); otherwise run 'opstream provision', which "
    "makes an empty one"
)
"""For a process that has used the journal before."""
NO_JOURNAL_STEP: Final = (
    f"{PROVISION_HINT}, which makes an empty one; if there was one before, restore it from a backup first "
    "(docs/running.md, When the journal was deleted)"
)
"""For a process that does not know whether there was one: most brokers without a journal are new."""

_PROVISION_STEP: Final = f"{PROVISION_HINT}, which makes what is missing; then find out what deleted it"


def missing_stream_text(stream: str) -> str:
    """Return that the broker has no such stream, with the next step."""
    step = NO_JOURNAL_STEP if stream == OPERATIONS_STREAM else PROVISION_HINT
    return f"the broker has no stream {stream}: {step}"


def next_step_for(lost: Collection[str]) -> str:
    """Return the next step for streams that a process knows the broker had."""
    return LOST_JOURNAL_STEP if OPERATIONS_STREAM in lost else _PROVISION_STEP
