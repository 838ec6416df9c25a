"""What each caller has used of the stream SCHEDULES, so that none of them takes the room of the others.

The stream forgets no name: a deleted schedule leaves what was decided about it. So names count, whether or not there is
a schedule of them, and so do the bytes of the decisions that are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from opstream_api.access.principal import Owner
from opstream_api.errors import ApiError
from opstream_journal.provisioning.topology import SCHEDULE_HISTORY
from opstream_schemas.errors import ErrorCode

MAX_OF_CALLER: Final = 100
"""Schedules of a caller."""
MAX_OF_TENANT: Final = 500
"""Schedules of a tenant; without authentication, of all callers."""
MAX_NAMES_OF_CALLER: Final = 200
"""Names that a caller used last, those of deleted schedules included."""
MAX_NAMES_OF_TENANT: Final = 1_000
MAX_BYTES_OF_CALLER: Final = 32 * 1024 * 1024
"""Of the decisions that are kept of these names."""
MAX_BYTES_OF_TENANT: Final = 128 * 1024 * 1024


class _UsageLimits(NamedTuple):
    whose: str
    schedules: int
    names: int
    bytes: int


_OF_CALLER: Final = _UsageLimits("you have", MAX_OF_CALLER, MAX_NAMES_OF_CALLER, MAX_BYTES_OF_CALLER)
_OF_TENANT: Final = _UsageLimits("your tenant has", MAX_OF_TENANT, MAX_NAMES_OF_TENANT, MAX_BYTES_OF_TENANT)
_OF_ALL: Final = _UsageLimits("all callers together have", MAX_OF_TENANT, MAX_NAMES_OF_TENANT, MAX_BYTES_OF_TENANT)


class _KeptDecisions:
    """What the stream keeps of the decisions about one name."""

    __slots__ = ("bytes", "is_there", "owner", "sequence", "sizes")

    def __init__(self) -> None:
        self.owner = Owner("", "")
        self.is_there = False
        self.sequence = 0
        self.sizes: deque[int] = deque()
        self.bytes = 0

    def add(self, size: int) -> None:
        if len(self.sizes) == SCHEDULE_HISTORY:
            self.bytes -= self.sizes.popleft()
        self.sizes.append(size)
        self.bytes += size


class ScheduleUsage:
    """What is used, by the keys of schedules."""

    def __init__(self) -> None:
        self._kept: dict[str, _KeptDecisions] = {}

    def note(self, key: str, owner: Owner, sequence: int, size: int, *, is_there: bool) -> None:
        """Count a decision that the stream has; one that was counted changes nothing.

        Args:
            key: of the schedule.
            owner: to whom it belongs since.
            sequence: of the decision in the stream.
            size: its bytes.
            is_there: False if it was deleted.
        """
        kept = self._kept.setdefault(key, _KeptDecisions())
        if sequence <= kept.sequence:
            return
        kept.owner, kept.sequence, kept.is_there = owner, sequence, is_there
        kept.add(size)

    def check(self, key: str, owner: Owner, size: int, *, is_new: bool, has_access: bool) -> None:
        """Check that a caller may have a schedule set.

        Args:
            key: of the schedule.
            owner: the caller.
            size: bytes of the decision.
            is_new: True if there is no such schedule now.
            has_access: False without authentication, where callers are no more than names that they say.

        Raises:
            ApiError: `TooManySchedules`: it has too many schedules, names or bytes.
        """
        if not has_access:
            self._check(_OF_ALL, key, size, is_new=is_new, counts=lambda _: True)
            return
        self._check(_OF_CALLER, key, size, is_new=is_new, counts=lambda kept: kept.owner == owner)
        self._check(_OF_TENANT, key, size, is_new=is_new, counts=lambda kept: kept.owner.tenant == owner.tenant)

    def _check(
        self, limits: _UsageLimits, key: str, size: int, *, is_new: bool, counts: Callable[[_KeptDecisions], bool]
    ) -> None:
        used = {name: kept for name, kept in self._kept.items() if counts(kept)}
        if is_new and sum(kept.is_there for kept in used.values()) >= limits.schedules:
            raise _refused(f"{limits.whose} {limits.schedules} schedules: delete one first")
        if key not in used and len(used) >= limits.names:
            message = f"{limits.whose} used {limits.names} names, which are never forgotten: use one of them again"
            raise _refused(message)
        known = self._kept.get(key)
        freed = known.sizes[0] if known is not None and len(known.sizes) == SCHEDULE_HISTORY else 0
        if size > freed and sum(kept.bytes for kept in used.values()) + size - freed > limits.bytes:
            message = f"{limits.whose} changed schedules so often that what is kept of it has {limits.bytes} bytes"
            raise _refused(f"{message}: change those that were changed most often, or have the input name a larger one")


def _refused(message: str) -> ApiError:
    return ApiError(ErrorCode.TOO_MANY_SCHEDULES, message)
