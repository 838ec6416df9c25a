"""The examination of a system: it asks the broker, and calls the checks in the order in which causes explain effects.

Nothing is written. A part that the broker does not answer, or refuses to this user, is a finding of its own, and the
other parts go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Final

import nats.errors
from nats.js.api import ConsumerConfig, StreamConfig

from opstream_journal import ActionCatalog, Connection, JournalError
from opstream_journal.errors import JournalUnavailable
from opstream_journal.missing_leader import explain_unavailable, is_clustered
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing, archive_stream, current_archive
from opstream_journal.provisioning.config_drift import Drift, compare_consumer
from opstream_journal.provisioning.ownership import explain_foreign_consumer, explain_foreign_stream
from opstream_journal.provisioning.provision import current_sizing, stream_differences
from opstream_journal.provisioning.topology import Sizing, runner_consumer, shared_consumers, streams
from opstream_journal.runtime.broker_monitor import clock_lead
from opstream_schemas import subjects

from . import broker_checks, work_checks
from .certificate import certificate_ends
from .clocks import service_clocks
from .monitoring_port import Monitored
from .system_findings import Level, SystemFinding
from .waiting_work import read_backlog, read_holds, read_timers

_STREAM: Final = subjects.OPERATIONS_STREAM
_LOGIN_STEP: Final = (
    "run it with the login of the role admin: other roles may not read all of this; if it has that, JetStream is off, "
    "and the broker's log says why"
)


class Examination:
    """One examination. Use it once.

    Args:
        connection: to the broker; it only reads.
        monitored: what the monitoring ports of the servers said.
        certificates: files with certificates of this machine, by whose they are.
    """

    def __init__(
        self, connection: Connection, monitored: Sequence[Monitored] = (), certificates: Mapping[str, str] | None = None
    ) -> None:
        self.findings: list[SystemFinding] = []
        self._connection = connection
        self._monitored = monitored
        self._certificates = certificates or {}
        self._streams: dict[str, dict[str, Any]] = {}
        self._versions: dict[str, str] = {}
        self._consumers: list[tuple[str, ConsumerConfig]] = shared_consumers()

    async def run(self) -> list[SystemFinding]:
        """Examine everything, and return the findings. Nothing is raised that the broker causes."""
        for part, examine in (
            ("streams and consumers", self._examine_topology),
            ("the servers", self._examine_servers),
            ("the clocks", self._examine_clocks),
            ("the work that waits", self._examine_work),
            ("the locks", self._examine_holds),
        ):
            try:
                await examine()
            except JournalUnavailable as error:
                if isinstance(error.__cause__, nats.errors.NoRespondersError):
                    # Of a login that sees streams it is what the login may not read; otherwise JetStream may be off.
                    level = Level.WARNING if self._streams else Level.CRITICAL
                    self._add(_unknown(part, str(error), _LOGIN_STEP, level))
                    continue
                why = await explain_unavailable(self._connection.nc, error)
                self._add(_unknown(part, why, "mend that first, then run it again", Level.CRITICAL))
                break
            except JournalError as error:
                self._add(_unknown(part, str(error), _LOGIN_STEP, Level.WARNING))
        return self.findings

    def _add(self, *found: SystemFinding) -> None:
        self.findings.extend(found)

    async def _examine_topology(self) -> None:
        connection = self._connection
        missing: list[str] = []
        drift: list[Drift] = []
        foreign: list[str] = []
        wanted = streams(await current_sizing(connection) or Sizing())
        archive: ArchiveSizing | None = await current_archive(connection)
        if archive is not None:
            wanted.append(archive_stream(archive, replicas=wanted[0].num_replicas or 1))
        for config in wanted:
            info = await admin.stream_info(connection, str(config.name))
            if info is None:
                missing.append(f"stream {config.name}")
                continue
            self._streams[str(config.name)] = info
            actual = StreamConfig.from_response(deepcopy(info["config"]))  # which it changes
            self._versions[f"the leader of {config.name}"] = admin.server_version(actual)
            if why := explain_foreign_stream(actual, config):
                foreign.append(why)
            else:
                drift += stream_differences(actual, config)
        self._consumers += [(_STREAM, config) async for config in self._runner_consumers()]
        for stream, consumer in self._consumers:
            if stream not in self._streams:
                continue
            current = await admin.consumer_config(connection, stream, str(consumer.durable_name))
            if current is None:
                missing.append(f"consumer {consumer.durable_name}")
            elif why := explain_foreign_consumer(current, consumer):
                foreign.append(why)
            else:
                drift += compare_consumer(current, consumer)
        self._add(*broker_checks.check_drift(missing, drift, foreign))

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
            yield runner_consumer(spec)

    async def _examine_servers(self) -> None:
        infos = list(self._streams.values())
        versions = {one.url: str(one.varz.get("version", "")) for one in self._monitored}
        server = self._connection.nc._server_info  # noqa: SLF001 - nats-py has no public way
        versions |= {**self._versions, "this connection": str(server.get("version", ""))}
        self._add(*broker_checks.check_versions({where: one for where, one in versions.items() if one}))
        varz = {one.url: one.varz for one in self._monitored}
        self._add(*broker_checks.check_syncing(varz))
        self._add(*broker_checks.check_replicas(infos, is_clustered=is_clustered(self._connection.nc)))
        if _STREAM in self._streams:
            account = await admin.account_info(self._connection)
            self._add(*broker_checks.check_room(self._streams[_STREAM], account, varz))
            self._add(*broker_checks.check_subjects(infos))
        ends = certificate_ends(self._connection.nc, self._certificates)
        self._add(*broker_checks.check_certificates(ends, datetime.now(UTC)))

    async def _examine_clocks(self) -> None:
        if _STREAM not in self._streams:
            return
        began = datetime.now(UTC)
        info = await admin.stream_info(self._connection, _STREAM)
        if info is None:
            return
        skews = {"this machine": clock_lead(began, datetime.now(UTC), datetime.fromisoformat(info["ts"]))}
        for one in self._monitored:
            # The server's clock as this machine sees it; both against the broker's that leads the journal.
            skews[one.url] = skews["this machine"] - one.clock_lead
        skews |= await service_clocks(self._connection, int(info["state"]["last_seq"]))
        self._add(*broker_checks.check_clocks(skews))

    async def _examine_work(self) -> None:
        if _STREAM not in self._streams:
            return
        backlogs = [
            backlog
            for stream, config in self._consumers
            if stream in self._streams and (backlog := await read_backlog(self._connection, stream, config)) is not None
        ]
        uncopied, overdue = (
            await read_timers(self._connection) if subjects.TIMERS_STREAM in self._streams else (None, None)
        )
        self._add(*work_checks.check_services(backlogs))
        self._add(*work_checks.check_runners(backlogs))
        self._add(*work_checks.check_timers(backlogs, uncopied, overdue))

    async def _examine_holds(self) -> None:
        if {_STREAM, subjects.bucket_stream(subjects.HOLDS_BUCKET)} <= self._streams.keys():
            stale, count = await read_holds(self._connection)
            self._add(*work_checks.check_holds(stale, count))


def _unknown(part: str, why: str, step: str, level: Level) -> SystemFinding:
    return SystemFinding(name="NotExamined", level=level, message=f"{part} can't be looked at: {why}", next_step=step)
