"""Records denials and acts of administrators from a background task: no request waits for it (docs/adr/0053)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from litestar.types import HTTPScope

from opstream_api.access.principal import Principal
from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import CallerResolver
from opstream_api.http.request_log import STATUS_ROUTE, path_template
from opstream_api.http.requests import parse_headers
from opstream_journal import JournalError, NotProvisioned
from opstream_journal.access_log import AccessLog
from opstream_journal.jetstream.connection import end_task
from opstream_journal.outage_log import OutageLog
from opstream_schemas.logs.access_log import DETAIL_LIMIT, ActRecord, AdminAct, DenialReason, DenialRecord
from opstream_schemas.text import truncate_text

from .denial import DENIAL_KEY, Denial
from .denial_counts import MINUTE, CountedDenials, DenialCounts, DenialKey, DenialRow

logger = logging.getLogger(__name__)

MAX_ROWS: Final = 500
"""Rows of callers, and as many of strangers, that one process keeps until they are written."""
MAX_ACTS: Final = 1_000
"""Acts that one process keeps until they are written."""
FLUSH_TIMEOUT: Final = 3.0
"""Seconds that the last rows may take when the process stops."""

_UNMARKED: Final = {
    401: DenialReason.NO_CREDENTIALS,
    403: DenialReason.CROSS_SITE,
    421: DenialReason.UNKNOWN_HOST,
    429: DenialReason.TOO_MANY_REQUESTS,
}
"""Reasons of answers to requests without a principal."""
_OF_PRINCIPAL: Final = {**_UNMARKED, 401: DenialReason.ACCESS_ENDED, 403: DenialReason.MISSING_SCOPE}
_IPV6_PREFIX: Final = 64
"""Bits of an address that its owner can't choose: one customer has all others."""


class AccessRecorder:
    """What one process has to write to the access log.

    Args:
        log: the stream.
        callers: know from which address a request is.
        principal_of: returns who sends the request of a scope; None for a stranger.
        now: Unix seconds.
        period: seconds between two writes.
    """

    def __init__(
        self,
        log: AccessLog,
        callers: CallerResolver,
        *,
        principal_of: Callable[[HTTPScope], Principal | None],
        now: Callable[[], float] = time.time,
        period: float = MINUTE,
    ) -> None:
        self._log = log
        self._callers = callers
        self._principal_of = principal_of
        self._now = now
        self._period = period
        self._proven = DenialCounts(MAX_ROWS)
        self._strangers = DenialCounts(MAX_ROWS)
        self._acts: deque[ActRecord] = deque()
        self._lost_acts = 0
        self._has_acts = asyncio.Event()
        self._is_missing_said = False
        self._outage = OutageLog(
            logger, "denials are kept in memory, the access log can't be written", "the access log is written again"
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="access log")

    async def stop(self) -> None:
        """Write what there is, the minute that goes on included."""
        if self._task is not None:
            await end_task(self._task)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.flush(math.inf), FLUSH_TIMEOUT)

    def note_denied(self, scope: HTTPScope, status: int) -> str:
        """Count a request that is answered with 401, 403, 404, 421 or 429; a 404 only if it was marked as a denial.

        Return the reason; empty for a request that is not denied.
        """
        denial: Denial | None = scope["state"].get(DENIAL_KEY)
        if denial is None:
            principal = self._principal_of(scope)
            reason = (_UNMARKED if principal is None else _OF_PRINCIPAL).get(status)
            if reason is None:
                return ""
            denial = Denial(reason, principal)
        method, path = scope["method"], scope["path"]
        self._count(denial, self._address(scope), method if method.isalpha() else "", path_template(method, path))
        return denial.reason

    def note_foreign(self, principal: Principal) -> None:
        """Count a request for an operation of another caller, which is answered as one for an unknown id."""
        self._count(Denial(DenialReason.FOREIGN_OPERATION, principal), "", "", STATUS_ROUTE)

    def note_forbidden_item(self, principal: Principal, act: str) -> None:
        """Count an item of a bulk operation that its caller may not do, as a request for it alone.

        Args:
            principal: the caller.
            act: `retry` or `cancel`.
        """
        self._count(Denial(DenialReason.MISSING_SCOPE, principal), "", "POST", f"{STATUS_ROUTE}:{act}")

    def note_act(
        self, act: AdminAct, principal: Principal | None, target: str, *, by: str = "", detail: str = ""
    ) -> None:
        """Record what a caller did to the operation of another one, or an operator to an action.

        Args:
            act: what.
            principal: the caller, as its credentials prove it; None without authentication.
            target: the stored id of the operation, or the action.
            by: who it was without authentication, as a trusted proxy names it.
            detail: more of it; truncated.
        """
        record = ActRecord(
            act=act,
            at=_utc(self._now()),
            by=by if principal is None else principal.subject,
            tenant="" if principal is None else principal.tenant,
            key_id="" if principal is None else principal.key_id,
            target=target,
            detail=truncate_text(detail, DETAIL_LIMIT),
        )
        if len(self._acts) < MAX_ACTS:
            self._acts.append(record)
        else:
            self._lost_acts += 1
        self._has_acts.set()

    async def flush(self, before: float) -> None:
        """Write the acts, and the denials of the minutes that ended before a time in Unix seconds.

        What can't be written is kept. Nothing is raised for it.
        """
        try:
            await self._write(before)
        except NotProvisioned as error:
            if not self._is_missing_said:
                self._is_missing_said = True
                logger.warning("denials are not recorded: %s", error)
        except JournalError as error:
            self._outage.failed(error)
        else:
            self._outage.recovered()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_acts.wait(), self._period - self._now() % self._period)
                await asyncio.sleep(0)
            self._has_acts.clear()
            await self.flush(self._now())

    async def _write(self, before: float) -> None:
        missing = await self._write_acts()
        if self._lost_acts:
            logger.error(
                "%d acts of administrators are not in the access log: it could not be written", self._lost_acts
            )
            self._lost_acts = 0
        for counts, is_proven in ((self._proven, True), (self._strangers, False)):
            taken = counts.take(before)
            try:
                while taken:
                    await self._log.write(_record(taken[0]), is_proven=is_proven)
                    del taken[0]
            finally:
                for denials in taken:
                    counts.put_back(denials)
        if missing is not None:
            raise missing

    async def _write_acts(self) -> NotProvisioned | None:
        """Write the acts. Return the error of those that this login may not write, which are kept.

        A login of an earlier release may write some acts and not others.
        """
        kept: deque[ActRecord] = deque()
        missing: NotProvisioned | None = None
        try:
            while self._acts:
                try:
                    await self._log.write(self._acts[0])
                except NotProvisioned as error:
                    missing = error
                    kept.append(self._acts[0])
                self._acts.popleft()
        finally:
            self._acts.extendleft(reversed(kept))
        return missing

    def _count(self, denial: Denial, address: str, method: str, path: str) -> None:
        row = DenialRow(self._now(), address, method, path)
        who = denial.principal
        if who is not None:
            self._proven.add(DenialKey(denial.reason, who.tenant, who.subject, who.key_id), row)
        else:
            self._strangers.add(DenialKey(denial.reason, key_id=denial.key_id, address=_network(address)), row)

    def _address(self, scope: HTTPScope) -> str:
        """Return the address from which a request is; empty if it is not known."""
        client = scope["client"]
        try:
            return self._callers.resolve(client, parse_headers(scope["headers"])).client_address
        except ApiError:  # a trusted proxy names a caller that is none
            return ""


def denial_reason(scope: HTTPScope, status: int) -> str:
    """Return why a request of a service without authentication is denied, which nothing records; as `note_denied`."""
    denial: Denial | None = scope["state"].get(DENIAL_KEY)
    return _UNMARKED.get(status, "") if denial is None else denial.reason


def _record(denials: CountedDenials) -> DenialRecord:
    key, row, is_others = denials
    return DenialRecord(
        reason=key.reason,
        count=row.count,
        first=_utc(row.first),
        last=_utc(row.last),
        tenant=key.tenant,
        caller=key.caller,
        key_id=key.key_id,
        address=key.address or row.address,
        method=row.method,
        path=row.path,
        is_others=is_others,
    )


def _network(address: str) -> str:
    """Return what strangers of one network have in common: a stranger has as many IPv6 addresses as it likes."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
