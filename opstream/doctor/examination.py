"""The examination of a system: it asks the broker, and calls the checks in the order in which causes explain effects.

Nothing is written. A part that the broker does not answer, or refuses to this user, is a finding of its own, and the
other parts go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import nats.errors
from nats.js.api import ConsumerConfig, StreamConfig

from opstream_journal import ActionCatalog, Connection, JournalError
from opstream_journal.errors import JournalUnavailable, NoLeader
from opstream_journal.missing_leader import find_outage, is_clustered
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing, archive_stream, current_archive
from opstream_journal.provisioning.config_drift import Drift, compare_consumer
from opstream_journal.provisioning.ownership import explain_foreign_consumer, explain_foreign_stream
from opstream_journal.provisioning.provision import current_sizing, stream_differences
from opstream_journal.provisioning.topology import Sizing, runner_consumers, shared_consumers, streams
from opstream_journal.runtime.broker_monitor import AWAY, NO_LEADER, clock_lead
from opstream_payloads.location import StoreLocation
from opstream_schemas import subjects
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

from . import broker_checks, work_checks
from .certificate import certificate_ends
from .clocks import service_clocks
from .monitoring_port import Monitored
from .payload_look import look_at_payload_store
from .server_checks import check_certificates, check_servers, route_ends
from .server_look import ServerLook, look_at_servers
from .system_findings import Level, SystemFinding
from .waiting_work import read_failing, read_holds, read_timers, watch_backlogs

_T = TypeVar("_T")

_STREAM: Final = subjects.OPERATIONS_STREAM
_LOGIN_STEP: Final = (
    "run it with the login of the role admin: other roles may not read all of this; if it has that, JetStream is off, "
    "and the broker's log says why"
)
_MEND_STEP: Final = "mend that first, then run it again"
_PART_STEP: Final = "run it again; if it stays so, the log of the servers names the stream or consumer without a leader"
_RETRY_DELAY: Final = 0.5
_ANSWER_TIME: Final = 2.0
"""Seconds for an answer, while there is time to ask again."""
_HEARTBEATS: Final = 3.0
"""Seconds in which a new leader hears of all copies."""

PATIENCE: Final = 10.0
"""Seconds to wait for a leader: a cluster that has lost a server chooses one within some seconds."""
WATCH: Final = 5.0
"""Seconds to look at work that is late, before it is said that no process reads it."""


class Examination:
    """One examination. Use it once.

    Args:
        connection: to the broker; it only reads.
        monitored: what the monitoring ports of the servers said.
        credentials: of the connection, for a look at the other servers.
        payload_store: where payloads are; the default is on the broker.
        patience: seconds to wait for a leader, if the cluster has none.
        watch: seconds to look at work that is late and that no process seems to read.
    """

    def __init__(
        self,
        connection: Connection,
        monitored: Sequence[Monitored] = (),
        credentials: BrokerCredentials = NO_CREDENTIALS,
        *,
        payload_store: StoreLocation = StoreLocation(),  # noqa: B008 - frozen
        patience: float = PATIENCE,
        watch: float = WATCH,
    ) -> None:
        self._connection = connection
        self._monitored = monitored
        self._credentials = credentials
        self._payload_store = payload_store
        self._patience = patience
        self._watch = watch
        self._clock = asyncio.get_running_loop().time
        self._until: float | None = None
        """Until then it waits for a leader; None while one was always there."""
        self._settled: float | None = None
        """Until then it waits for copies that seem to be behind; None while none was."""
        self._looks: list[ServerLook] = []
        self._streams: dict[str, dict[str, Any]] = {}
        self._consumers: list[tuple[str, ConsumerConfig]] = []

    async def run(self) -> list[SystemFinding]:
        """Examine everything, and return the findings. Nothing is raised that the broker causes."""
        findings: list[SystemFinding] = []
        for part, examine in (
            ("the servers", self._examine_servers),
            ("streams and consumers", self._examine_topology),
            ("copies and room", self._examine_storage),
            ("the clocks", self._examine_clocks),
            ("the work that waits", self._examine_work),
            ("the locks", self._examine_holds),
            ("the webhooks", self._examine_deliveries),
            ("the payload store", self._examine_payloads),
        ):
            try:
                findings += await self._wait_for_leader(examine)
            except JournalUnavailable as error:
                if _has_no_responders(error):
                    # Of a login that sees streams it is what the login may not read; otherwise JetStream may be off.
                    level = Level.WARNING if self._streams else Level.CRITICAL
                    findings.append(_unknown(part, str(error), _LOGIN_STEP, level))
                    continue
                findings.append(await self._explain(part, error))
                break
            except JournalError as error:
                findings.append(_unknown(part, str(error), _LOGIN_STEP, Level.WARNING))
        return findings

    async def _wait_for_leader(self, examine: Callable[[], Awaitable[list[SystemFinding]]]) -> list[SystemFinding]:
        """Examine a part, and again while the broker has no leader: the servers that are left choose one in seconds.

        All parts together wait no longer than `patience`.
        """
        while True:
            try:
                return await examine()
            except JournalUnavailable as error:
                if _has_no_responders(error) or not self._has_time():
                    raise
            if self._connection.is_connected:
                await self._connection.sleep(_RETRY_DELAY)
            else:
                await self._connection.wait_connected(_RETRY_DELAY)

    async def _ask(self, call: Awaitable[_T]) -> _T:
        """Wait for an answer, not for long while there is time to ask again: a leader that was lost never answers.

        Raises:
            NoLeader: there was none.
        """
        is_hurried = self._until is None or self._clock() < self._until
        try:
            async with asyncio.timeout(_ANSWER_TIME if is_hurried else None):
                return await call
        except TimeoutError:
            raise NoLeader(f"no answer within {_ANSWER_TIME:g} s") from None

    def _has_time(self) -> bool:
        if self._until is None:
            self._until = self._clock() + self._patience
        return self._clock() < self._until

    async def _explain(self, part: str, error: JournalUnavailable) -> SystemFinding:
        """Return what keeps the broker from an answer, once the wait for it is over."""
        found = await find_outage(self._connection.nc, error)
        if found is None:
            return _unknown(part, f"{error}; its own log may say why", _MEND_STEP, Level.CRITICAL)
        if not found.is_away and await self._has_leader():
            return _unknown(
                part, f"the journal has a leader, but {error}, for {self._patience:g} s", _PART_STEP, Level.CRITICAL
            )
        return SystemFinding(
            name=AWAY if found.is_away else NO_LEADER,
            level=Level.CRITICAL,
            message=f"{found.what} ({error}), and that for {self._patience:g} s; the rest was not looked at",
            next_step=found.next_step,
        )

    async def _has_leader(self) -> bool:
        try:
            info = await admin.stream_info(self._connection, _STREAM) or {}
        except JournalError:
            return False
        return bool((info.get("cluster") or {}).get("leader")) or not is_clustered(self._connection.nc)

    async def _examine_servers(self) -> list[SystemFinding]:
        self._looks = await look_at_servers(self._connection.nc, self._credentials)
        now = datetime.now(UTC)
        own = self._credentials.tls_cert
        ends = certificate_ends({"this machine's certificate": own} if own else {}) | route_ends(self._monitored)
        return [*check_servers(self._looks, now), *check_certificates(ends, now)]

    async def _examine_topology(self) -> list[SystemFinding]:
        connection = self._connection
        missing: list[str] = []
        drift: list[Drift] = []
        foreign: list[str] = []
        found: dict[str, dict[str, Any]] = {}
        wanted = streams(await current_sizing(connection) or Sizing())
        archive: ArchiveSizing | None = await current_archive(connection)
        if archive is not None:
            wanted.append(archive_stream(archive, replicas=wanted[0].num_replicas or 1))
        for config in wanted:
            info = await self._settled_stream(str(config.name))
            if info is None:
                missing.append(f"stream {config.name}")
                continue
            found[str(config.name)] = info
            actual = StreamConfig.from_response(deepcopy(info["config"]))  # which it changes
            if why := explain_foreign_stream(actual, config):
                foreign.append(why)
            else:
                drift += stream_differences(actual, config)
        self._streams = found
        self._consumers = shared_consumers() + [(_STREAM, config) async for config in self._runner_consumers()]
        for stream, consumer in self._consumers:
            if stream not in self._streams:
                continue
            current = await self._ask(admin.consumer_config(connection, stream, str(consumer.durable_name)))
            if current is None:
                missing.append(f"consumer {consumer.durable_name}")
            elif why := explain_foreign_consumer(current, consumer):
                foreign.append(why)
            else:
                drift += compare_consumer(current, consumer)
        return list(broker_checks.check_drift(missing, drift, foreign))

    async def _settled_stream(self, name: str) -> dict[str, Any] | None:
        """Return what the broker says of a stream, once it has a leader and that has heard of the other copies.

        Raises:
            NoLeader: it has none, and there is time to wait for one.
        """
        while True:
            info = await self._ask(admin.stream_info(self._connection, name))
            cluster = (info or {}).get("cluster")
            if not cluster:
                return info
            if not cluster.get("leader") and self._has_time():
                raise NoLeader(f"{name} has no leader")
            is_behind = any(not one.get("offline") and not one.get("current") for one in cluster.get("replicas") or ())
            if not is_behind:
                return info
            self._settled = self._settled or self._clock() + _HEARTBEATS
            if self._clock() >= self._settled:
                return info
            await self._connection.sleep(_RETRY_DELAY)

    async def _runner_consumers(self) -> AsyncIterator[ConsumerConfig]:
        """Yield the consumers of the actions in the catalog. Each action once had a runner, which made its consumer."""
        if subjects.bucket_stream(subjects.ACTIONS_BUCKET) not in self._streams:
            return
        catalog = ActionCatalog(self._connection)
        try:
            await catalog.start()
            specs = list(catalog.specs.values())
        finally:
            await catalog.stop()
        for spec in specs:
            for config in runner_consumers(spec):
                yield config

    async def _examine_storage(self) -> list[SystemFinding]:
        infos = list(self._streams.values())
        server = self._connection.nc._server_info  # noqa: SLF001 - nats-py has no public way
        versions = {one.url: str(one.varz.get("version", "")) for one in self._monitored}
        versions |= {f"{one.name or 'the server'} ({one.url})": one.version for one in self._looks}
        versions |= {
            f"the leader of {name}": str((info["config"].get("metadata") or {}).get("_nats.ver", ""))
            for name, info in self._streams.items()
        }
        versions["this connection"] = str(server.get("version", ""))
        varz = {one.url: one.varz for one in self._monitored}
        is_cluster = is_clustered(self._connection.nc)
        found = [
            *broker_checks.check_versions({where: one for where, one in versions.items() if one}),
            *broker_checks.check_syncing(varz),
            *broker_checks.check_replicas(infos, is_clustered=is_cluster, looks=self._looks),
        ]
        if _STREAM in self._streams:
            account = await admin.account_info(self._connection)
            found += broker_checks.check_room(self._streams[_STREAM], account, varz)
            found += broker_checks.check_subjects(infos)
        return found

    async def _examine_clocks(self) -> list[SystemFinding]:
        if _STREAM not in self._streams:
            return []
        began = datetime.now(UTC)
        info = await admin.stream_info(self._connection, _STREAM)
        if info is None:
            return []
        skews = {"this machine": clock_lead(began, datetime.now(UTC), datetime.fromisoformat(info["ts"]))}
        for one in self._monitored:
            # The server's clock as this machine sees it; both against the broker's that leads the journal.
            skews[one.url] = skews["this machine"] - one.clock_lead
        skews |= await service_clocks(self._connection, int(info["state"]["last_seq"]))
        return list(broker_checks.check_clocks(skews))

    async def _examine_work(self) -> list[SystemFinding]:
        if _STREAM not in self._streams:
            return []
        there = [(stream, config) for stream, config in self._consumers if stream in self._streams]
        backlogs = await watch_backlogs(self._connection, there, self._watch)
        uncopied, overdue = (
            await read_timers(self._connection) if subjects.TIMERS_STREAM in self._streams else (None, None)
        )
        return [
            *work_checks.check_services(backlogs),
            *work_checks.check_runners(backlogs),
            *work_checks.check_timers(backlogs, uncopied, overdue),
        ]

    async def _examine_holds(self) -> list[SystemFinding]:
        if not {_STREAM, subjects.bucket_stream(subjects.HOLDS_BUCKET)} <= self._streams.keys():
            return []
        stale, count = await read_holds(self._connection)
        return list(work_checks.check_holds(stale, count))

    async def _examine_deliveries(self) -> list[SystemFinding]:
        if subjects.WEBHOOKS_STREAM not in self._streams:
            return []
        return list(work_checks.check_deliveries(await read_failing(self._connection)))

    async def _examine_payloads(self) -> list[SystemFinding]:
        return await look_at_payload_store(self._payload_store, self._connection)


def _has_no_responders(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, nats.errors.NoRespondersError):
            return True
        cause = cause.__cause__
    return False


def _unknown(part: str, why: str, step: str, level: Level) -> SystemFinding:
    return SystemFinding(name="NotExamined", level=level, message=f"{part} can't be looked at: {why}", next_step=step)
