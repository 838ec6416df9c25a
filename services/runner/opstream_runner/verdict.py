"""Why a running handler has to stop. Caller: `attempt.py`. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Verdict(Enum):
    """A reason to stop, as the log tells it."""

    FENCED = "a later attempt or a terminal event was recorded"
    BLIND = "the journal could not be read for longer than the lease"
    CANCEL = "a client asked to cancel"
    STOP = "the runner stops"

    def outweighs(self, other: Verdict | None) -> bool:
        """Whether this one counts although `other` came first.

        Who is fenced off must be silent, whatever else holds; who is blind must not hand back what may be another's;
        and a process that stops does not wait for a handler that a client canceled.
        """
        return other is None or _WEIGHT[self] > _WEIGHT[other]


_WEIGHT: Final = {Verdict.CANCEL: 0, Verdict.STOP: 1, Verdict.BLIND: 2, Verdict.FENCED: 3}
