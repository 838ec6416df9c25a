"""Looks at the broker every few seconds, off every hot path: does it answer, does it store, and which time has it?

What it finds becomes a condition (`conditions`). The journal's leader answers the one request that it makes: so there
is a leader, and the answer carries the leader's time. After its disk was full, the broker answers everything but
publishes, until it is restarted. So once a publish of this process had no answer, a probe follows: a message to TIMERS,
which the broker copies to the journal. If it arrives there, both streams store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from nats.errors import NoRespondersError

from opstream_journal.errors import BrokerRefused, JournalFull, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection, end_task
from opstream_journal.missing_leader import AWAY_STEP, is_clustered, look_for_servers
from opstream_journal.missing_streams import next_step_for
from opstream_journal.provisioning.login_check import LoginCheck
from opstream_schemas import subjects
from opstream_schemas.names import Kind
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM

from .conditions import Conditions
from .storage_watch import StorageWatch

logger = logging.getLogger(__name__)

INTERVAL: Final = 5.0
"""Seconds between two looks."""
RETRY_INTERVAL: Final = 0.5
"""The same after a look in vain at a single server. A cluster gets the time for an election."""
MAX_SKEW: Final = timedelta(seconds=5)
"""How much clocks may differ before it is a condition."""

AWAY: Final = "BrokerAway"
NO_LEADER: Final = "JournalHasNoLeader"
NOT_STORED: Final = "BrokerStoresNothing"
CLOCK_SKEW: Final = "ClockSkew"
STREAM_MISSING: Final = "StreamMissing"
LOGIN_DENIED: Final = "LoginNotPermitted"

_NEEDED: Final = {
    subjects.OPERATIONS_STREAM: "nothing can be requested, run or read",
    subjects.TIMERS_STREAM: "no retry and no deadline comes",
    subjects.bucket_stream(subjects.VIEW_BUCKET): "no status can be read whose events have expired",
    subjects.bucket_stream(subjects.ACTIONS_BUCKET): "an API that starts knows no action",
    subjects.bucket_stream(subjects.HOLDS_BUCKET): "no exclusive or rated action starts",
}
"""Streams that each system has, and what their loss means. Most losses show themselves in no other way until something
is written."""
_OPTIONAL: Final = {
    subjects.WEBHOOKS_STREAM: "no webhook is delivered",
    subjects.DELIVERIES_STREAM: "no delivery is recorded",
    subjects.bucket_stream(subjects.ACCESS_BUCKET): "an API with --auth that starts knows no key, and no client's id",
    subjects.ACCESS_LOG_STREAM: "no denial and no act of an administrator is recorded",
    subjects.bucket_stream(subjects.RUNNERS_BUCKET): "a status and 'opstream actions' know less about runners",
    subjects.bucket_stream(subjects.CONTROLS_BUCKET): "no action can be paused, and who paused one is not known",
    PAYLOADS_STREAM: "no input, result or file is stored or read that is too large for an event",
    subjects.ARCHIVE_STREAM: "no event is archived ('opstream provision --archive' makes it)",
}
"""Streams that a system may have: they count as missing once this process has seen them."""

_PROBED: Final = frozenset({subjects.OPERATIONS_STREAM, subjects.TIMERS_STREAM})
_PROBE_SUBJECT: Final = subjects.fired_wake_subject(Kind("opstream", "probe"), "probe", "probe")
_FAILURES: Final = 2
"""Looks in a row without an answer: one may fall into an election."""


class _Cluster(msgspec.Struct, frozen=True):
    leader: str = ""


class _Source(msgspec.Struct, frozen=True):
    name: str = ""
    seq: int = 0


class _Config(msgspec.Struct, frozen=True):
    max_bytes: int = -1


class _State(msgspec.Struct, frozen=True):
    bytes: int = 0
    last_seq: int = 0


class _Answer(msgspec.Struct, frozen=True):
    config: _Config = _Config()
    state: _State = _State()
    ts: datetime | None = None
    created: str = ""
    cluster: _Cluster | None = None
    sources: list[_Source] = []
    streams: list[str] | None = None
    total: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def clock_lead(began: datetime, ended: datetime, there: datetime) -> timedelta:
    """Return how much this machine's clock is ahead of another one's; less than zero for behind.

    The answer was made between the two times of this machine. Only what that can't explain counts.

    Args:
        began: when the request was sent.
        ended: when the answer came.
        there: the time in the answer.
    """
    return began - there if there < began else min(ended - there, timedelta(0))


class BrokerMonitor:
    """Looks at the broker of one connection.

    Args:
        connection: the connection.
        conditions: of this process.
        login: whether the login may do what the process is for; None to leave that out.
        now: the time of this process, with zone.
        interval: see `INTERVAL`.
    """

    def __init__(
        self,
        connection: Connection,
        conditions: Conditions,
        login: LoginCheck | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        interval: float = INTERVAL,
    ) -> None:
        self._connection = connection
        self._conditions = conditions
        self._login = login
        self._now = now
        self._interval = interval
        self._storage = StorageWatch(connection, conditions)
        self._failures = 0
        self._journal = _Answer()
        """The last answer about the journal that was none of an error."""
        self._is_journal_gone = False
        self._expected = dict(_NEEDED)
        """Streams that must be there, and what their loss means."""
        self._probe = 0
        """Stream sequence in TIMERS of a probe that has not arrived in the journal yet; 0 for none."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look now and then for as long as the context is open."""
        self._connection.on_disconnect(self._report_lost_connection)
        self._connection.on_reconnect(self._resolve_away)
        task = asyncio.create_task(self._look_periodically(), name="broker monitor")
        try:
            yield
        finally:
            self._connection.remove_disconnect_callback(self._report_lost_connection)
            self._connection.remove_reconnect_callback(self._resolve_away)
            await end_task(task)

    async def look(self) -> None:
        """Look once, in at most 13 s. Nothing is raised."""
        if not self._connection.is_connected:
            self._report_lost_connection()
            return
        if self._connection.explain_wrong_login():
            await self._look_at_login()
            return
        began = self._now()
        try:
            message = await rpc.call(self._connection, f"$JS.API.STREAM.INFO.{subjects.OPERATIONS_STREAM}")
            answer = _decode(message.data)
        except JournalUnavailable as error:
            await self._note_failure(str(error))
            return
        except msgspec.MsgspecError:
            return
        if answer.error is not None and answer.error.code == rpc.UNAVAILABLE:
            await self._note_failure(answer.error.description)
            return
        if answer.cluster is not None and not answer.cluster.leader:
            await self._note_failure("it says so")
            return
        self._failures = 0
        self._conditions.resolve(NO_LEADER)
        self._resolve_away()
        await self._look_at_stores(
            max((one.seq for one in answer.sources if one.name == subjects.TIMERS_STREAM), default=0)
        )
        if answer.ts is not None:
            self._compare_clocks(began, self._now(), answer.ts)
        await self._storage.look(answer.state.bytes, answer.config.max_bytes)
        await self._look_for_streams()
        self._compare_journals(answer)
        await self._look_at_login()

    async def _look_at_login(self) -> None:
        if self._login is None:
            return
        found = await self._login.look()
        if found is None:
            self._conditions.resolve(LOGIN_DENIED)
        else:
            self._conditions.report(LOGIN_DENIED, *found, is_blocking=True, level=logging.ERROR)

    async def _look_periodically(self) -> None:
        while True:
            await self.look()
            is_hurried = self._failures and not is_clustered(self._connection.nc)
            await self._connection.sleep(min(RETRY_INTERVAL, self._interval) if is_hurried else self._interval)

    async def _note_failure(self, why: str) -> None:
        self._failures += 1
        if self._failures >= _FAILURES and self._connection.is_connected:
            found = await look_for_servers(self._connection.nc)
            name, other = (AWAY, NO_LEADER) if found.is_away else (NO_LEADER, AWAY)
            self._conditions.resolve(other)
            self._conditions.report(name, f"{found.what} ({why})", found.next_step, is_blocking=True)

    def _report_lost_connection(self) -> None:
        self._failures = 0
        if not self._connection.is_close_expected:
            what = (
                "the connection to the broker is lost, so nothing can be stored or read; this process tries to connect"
            )
            self._conditions.report(AWAY, what, AWAY_STEP, is_blocking=True)

    def _resolve_away(self) -> None:
        self._conditions.resolve(AWAY)

    def _compare_journals(self, answer: _Answer) -> None:
        """Notice a journal that is another one than at the last look, or has less."""
        if answer.error is not None:
            self._is_journal_gone = self._is_journal_gone or answer.error.err_code == rpc.STREAM_NOT_FOUND
            return
        before, self._journal = self._journal, answer
        is_other = bool(before.created) and before.created != answer.created
        # A server of a cluster that is cut off answers with less until it knows that it leads no more. What clients
        # have seen then is no doubt: they would see statuses go back.
        is_less = answer.state.last_seq < before.state.last_seq and not is_clustered(self._connection.nc)
        if is_other or self._is_journal_gone or is_less:
            self._is_journal_gone = False
            self._conditions.doubt_journal()

    async def _look_at_stores(self, copied: int) -> None:
        unanswered = self._connection.unanswered
        if 0 < self._probe <= copied:
            self._probe = 0
            unanswered.clear(_PROBED)
        failed = set(unanswered.lasting())
        if not _PROBED.isdisjoint(unanswered.streams):
            if self._probe:  # since the last look at least
                failed.add(subjects.OPERATIONS_STREAM)
            try:
                self._probe = await rpc.publish(self._connection, _PROBE_SUBJECT, b"", {})
            except JournalFull:
                unanswered.clear(_PROBED)  # it answers; `StorageWatch` says the rest
            except (JournalUnavailable, BrokerRefused) as error:
                # The login of an API may not write there, and finds nothing (docs/adr/0050).
                if not isinstance(error.__cause__, NoRespondersError):
                    failed.add(subjects.TIMERS_STREAM)
        if not failed:
            self._conditions.resolve(NOT_STORED)
            return
        streams = sorted(failed | set(unanswered.streams))
        self._conditions.report(
            NOT_STORED,
            f"JetStream answers, but stores nothing in {', '.join(streams)}: the disk of the broker is or was full",
            "free space on the disk of the broker, then restart the broker: it stores nothing before",
            is_blocking=True,
        )

    async def _look_for_streams(self) -> None:
        names = await self._stream_names()
        if names is None:
            return  # it is not known, so what was reported stays
        self._expected |= {stream: why for stream, why in _OPTIONAL.items() if stream in names}
        missing = {stream: why for stream, why in self._expected.items() if stream not in names}
        if not missing:
            self._conditions.resolve(STREAM_MISSING)
            return
        lost = "; ".join(f"the broker has no stream {stream}: {why}" for stream, why in missing.items())
        self._conditions.report(
            STREAM_MISSING,
            lost,
            next_step_for(missing),
            is_blocking=subjects.OPERATIONS_STREAM in missing,
        )

    async def _stream_names(self) -> set[str] | None:
        """Return the names of all streams, in one request for each 1024; None if the broker does not say."""
        names: set[str] = set()
        while True:
            request = msgspec.json.encode({"offset": len(names)})
            try:
                answer = _decode((await rpc.call(self._connection, "$JS.API.STREAM.NAMES", request)).data)
            except (JournalUnavailable, msgspec.MsgspecError):
                return None
            if answer.error is not None:
                return None
            names.update(answer.streams or ())
            if not answer.streams or len(names) >= answer.total:
                return names

    def _compare_clocks(self, began: datetime, ended: datetime, there: datetime) -> None:
        ahead = clock_lead(began, ended, there)
        self._connection.clock_skew = ahead / timedelta(seconds=1)
        if abs(ahead) <= MAX_SKEW:
            self._conditions.resolve(CLOCK_SKEW)
            return
        seconds = abs(ahead) / timedelta(seconds=1)
        place = "ahead of" if ahead > timedelta(0) else "behind"
        self._conditions.report(
            CLOCK_SKEW,
            f"the clock of this machine is {seconds:.0f} s {place} that of the broker",
            "let both machines synchronise their clocks (NTP); docs/running.md, Clocks, says what a wrong one does",
        )
