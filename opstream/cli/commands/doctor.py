"""`opstream doctor`: what is wrong around a running system, and what to do about it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

import click
import msgspec
import uvloop

from opstream.cli.options import common as common_options
from opstream.cli.options.address_types import check_base_url
from opstream.cli.options.option import option, split_list
from opstream.cli.options.stores import JETSTREAM, local_payload_store_option
from opstream.terminal import logs
from opstream.terminal.console import CommandError, coloured, line_width, printable, supports_colour
from opstream.terminal.table import text_below, text_beside
from opstream_schemas.urls import BrokerCredentials

if TYPE_CHECKING:
    from opstream.doctor.system_findings import SystemFinding

EXIT_UNREACHABLE: Final = 2
"""Exit status without a broker: nothing was examined."""
_COLOURS: Final = {"ok": "green", "note": "blue", "warning": "yellow", "critical": "red"}
_LEVEL_WIDTH: Final = 8
_NAME_WIDTH: Final = 20


class DoctorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream doctor`."""

    servers: tuple[str, ...]
    credentials: BrokerCredentials
    connect_timeout: float
    """Seconds."""
    monitoring: tuple[str, ...]
    """URLs of the servers' monitoring ports."""
    is_json: bool
    payload_store: str = JETSTREAM


def _check_monitoring(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(check_base_url(ctx, param, one) or "" for one in split_list(ctx, param, value))


@click.command
@common_options.nats_option
@option(
    "--monitoring",
    variable="MONITORING",
    multiple=True,
    metavar="URL",
    callback=_check_monitoring,
    help="The monitoring port of a server ('http' in its configuration), which says what clients can't see; repeat it "
    "for each server, e.g. --monitoring http://n1:8222.",
)
@local_payload_store_option
@option("--json", "is_json", variable="JSON", is_flag=True, help="Print the findings as one JSON object.")
@common_options.connect_timeout_option
def doctor(**given: object) -> None:
    """Look at each server, streams, consumers, timers, locks and clocks, and say what is wrong and what to do about it.
    With the --payload-store of the services, also whether this machine reaches that.

    It changes nothing, and takes a second or two; while a cluster chooses a leader, up to 20 s more. The exit status is
    0 if all is well, 1 if a finding is a warning or critical, and 2 if the broker can't be reached.

    \b
    Example:
      opstream doctor --nats nats://n1:4222 --monitoring http://n1:8222
    """
    examine(msgspec.convert(given, DoctorSettings, from_attributes=True))


def examine(settings: DoctorSettings) -> None:
    """Examine a system, and print the findings.

    Raises:
        CommandError: a finding needs action, or the broker can't be reached.
    """
    logs.configure("error")  # what goes wrong with the connection is in the findings
    findings = uvloop.run(_examine(settings))
    needed = [one for one in findings if one.needs_action]
    if settings.is_json:
        click.echo(msgspec.json.encode({"isHealthy": not needed, "findings": findings}))
    else:
        _print(findings)
    if needed:
        sys.exit(1)


async def _examine(settings: DoctorSettings) -> list[SystemFinding]:
    from opstream.doctor.examination import Examination
    from opstream.doctor.monitoring_port import MonitoringUnreachable, read_monitoring
    from opstream.doctor.system_findings import Level, SystemFinding
    from opstream_journal import JournalError, connect
    from opstream_journal.errors import BrokerTooOld
    from opstream_payloads.location import parse_store_location

    loop = asyncio.get_running_loop()
    findings: list[SystemFinding] = []
    monitored = []
    for url in settings.monitoring:
        try:
            monitored.append(await loop.run_in_executor(None, read_monitoring, url))
        except MonitoringUnreachable as error:
            step = "start that server, or name its monitoring port as its configuration has it"
            findings.append(
                SystemFinding(name="MonitoringUnreachable", level=Level.WARNING, message=str(error), next_step=step)
            )
    try:
        connection = await connect(
            settings.servers,
            "opstream-doctor",
            connect_timeout=settings.connect_timeout,
            credentials=settings.credentials,
        )
    except BrokerTooOld as error:
        step = "update nats-server, one server of the cluster after the other; nothing else was examined"
        found = SystemFinding(name="ServerTooOld", level=Level.CRITICAL, message=str(error), next_step=step)
        return [*findings, found]
    except JournalError as error:
        raise CommandError(printable(str(error)), status=EXIT_UNREACHABLE) from error
    try:
        store = parse_store_location(settings.payload_store)
        examination = Examination(connection, monitored, settings.credentials, payload_store=store)
        return [*findings, *await examination.run()]
    finally:
        await connection.close()


def _print(findings: list[SystemFinding]) -> None:
    has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
    for one in sorted(findings, key=lambda finding: not finding.needs_action):
        level = coloured(f"{one.level:<{_LEVEL_WIDTH}}", _COLOURS[one.level], has_colour=has_colour)
        head = f"{level}  {one.name:<{_NAME_WIDTH}}"
        click.echo(text_beside(head, printable(one.message), width))
        if one.next_step:
            click.echo(text_below("", f"next step: {printable(one.next_step)}", width))
