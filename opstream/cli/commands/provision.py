"""`opstream provision`: creates the streams, buckets and consumers on a broker, or compares them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli import service_process
from opstream.cli.cluster_size import PEERS_DELAY, PEERS_TIMEOUT, known_servers, too_few_servers
from opstream.cli.options import common as common_options
from opstream.cli.options.option import option
from opstream.cli.options.value_types import Duration, Size
from opstream.terminal import logs
from opstream.terminal.console import CommandError
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_journal import Connection
    from opstream_journal.provisioning.archive import ArchiveSizing
    from opstream_journal.provisioning.provision import ProvisionReport
    from opstream_journal.provisioning.topology import Sizing


_TOO_FEW_SERVERS: Final = frozenset({10005, 10074})
"""JetStream's `err_code` for more replicas than there are servers, in a cluster and without one."""


class ProvisionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream provision`. None: unchanged, or the default where nothing exists yet."""

    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""
    replicas: int | None
    max_age: float | None
    """Seconds; 0 for ever."""
    max_bytes: int | None
    """-1 for no limit."""
    max_msg_size: int | None
    """-1 for no limit."""
    max_body: int | None
    """Bytes that the API accepts."""
    max_result: int | None
    """Bytes that a result may have."""
    modules: tuple[str, ...]
    """Modules of actions whose consumers are compared, too."""
    is_archiving: bool
    """Make an archive. An existing archive stays in any case."""
    archive_max_age: float | None
    """Seconds; 0 for ever."""
    is_update: bool
    is_sealing: bool = False
    """Let the catalog take no rollups."""


@click.command
@common_options.nats_option
@option(
    "--replicas",
    variable="REPLICAS",
    type=click.IntRange(1, 5),
    metavar="N",
    help="Copies of every stream: 3 in a cluster. A new broker gets 1 without it.",
)
@option(
    "--max-age",
    variable="MAX_AGE",
    type=Duration(unlimited=0.0),
    help="How long events are kept, e.g. 90d, or unlimited. It must exceed the longest deadline plus retention by a "
    "day. A new broker gets 30d without it.",
)
@option(
    "--max-bytes",
    variable="MAX_BYTES",
    type=Size(unlimited=-1),
    help="The most that the journal may take, e.g. 50GiB, or unlimited. A new broker gets unlimited without it.",
)
@option(
    "--max-msg-size",
    variable="MAX_MSG_SIZE",
    type=Size(unlimited=-1, most="64MiB"),
    help="The largest event, or unlimited. A new broker gets 272KiB without it.",
)
@common_options.max_body_option(None)
@common_options.max_result_option(None)
@common_options.actions_option(is_required=False)
@common_options.archive_option
@common_options.archive_max_age_option
@option(
    "--seal-catalog",
    "is_sealing",
    variable="SEAL_CATALOG",
    is_flag=True,
    help="Let the catalog of actions take no rollups, with which a runner could remove the actions of others "
    "(docs/broker-access.md). Services of opstream 0.4.0 and older then ask for 'provision --update'.",
)
@option("--update", "is_update", variable="UPDATE", is_flag=True, help="Apply the differences that are safe to apply.")
@common_options.connect_timeout_option
@common_options.log_level_option
def provision(log_level: str, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Make the streams, buckets and consumers that opstream needs on a broker. Run it as often as you like.

    What exists is compared, and changed only with --update. A limit that is not given stays as it is. The exit status
    is 0 if nothing differs in the end, otherwise 1. What a newer version has added is kept, and no difference. With
    --actions, the consumers of these actions are made and compared, too.

    \b
    Example:
      opstream provision --nats nats://n1:4222 --replicas 3 --max-age 90d --archive
    """
    logs.configure(log_level)
    service_process.allow_local_modules()
    provision_broker(ProvisionSettings(**given))


def provision_broker(settings: ProvisionSettings) -> None:
    """Make what is missing, compare the rest, and print the result.

    Raises:
        CommandError: something still differs, the options contradict each other or the broker's `max_payload`, or the
            actions can't be loaded; or as `broker_session`.
    """
    from opstream_runner import InvalidAction

    needed = _needed_message_size(settings)
    if settings.max_msg_size is not None and 0 <= settings.max_msg_size < needed:
        raise CommandError(
            f"--max-msg-size of {settings.max_msg_size} bytes is too little for --max-body or --max-result, which need "
            f"16 KiB more than they allow: use {needed} or more, or lower them"
        )
    try:
        specs = _load_specs(settings.modules)  # not in an event loop: modules are imported as a runner imports them
    except InvalidAction as error:
        raise CommandError(str(error)) from error
    report = asyncio.run(_provision(settings, specs))
    _print_report(report)


async def _provision(settings: ProvisionSettings, specs: list[ActionSpec]) -> ProvisionReport:
    from opstream.cli.admin_acts import record_act
    from opstream.cli.broker_session import broker_session
    from opstream_journal import BrokerRefused, retry_until_ready
    from opstream_journal.provisioning.archive import current_archive
    from opstream_journal.provisioning.provision import current_sizing
    from opstream_journal.provisioning.provision import provision as provision_journal
    from opstream_journal.provisioning.topology import Sizing

    async with broker_session(
        settings.servers, "provision", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        _check_max_payload(settings, connection.nc.max_payload)
        _check_replicas(settings, connection)
        # Servers of a cluster that have just been started take connections before they have agreed on a leader.
        current = await retry_until_ready(connection, lambda: current_sizing(connection), settings.connect_timeout)
        sizing = requested_sizing(settings, current or Sizing(), specs)
        archive = requested_archive(settings, await current_archive(connection))
        until = time.monotonic() + PEERS_TIMEOUT
        while True:
            try:
                report = await provision_journal(
                    connection,
                    sizing,
                    specs,
                    archive=archive,
                    is_update=settings.is_update,
                    is_sealing=settings.is_sealing,
                )
            except BrokerRefused as error:
                if error.err_code not in _TOO_FEW_SERVERS:
                    raise
                known = known_servers(connection)
                if not known or time.monotonic() >= until:
                    raise CommandError(too_few_servers(sizing.replicas, known, str(error))) from error
            else:
                await _make_secret(connection, settings.connect_timeout)
                if changes := [*report.made, *report.updated]:
                    await record_act(connection, AdminAct.PROVISIONED, detail="; ".join(changes))
                return report
            await connection.sleep(PEERS_DELAY)


async def _make_secret(connection: Connection, seconds: float) -> None:
    """Make the secret of the installation, unless there is one, so that no service needs a right to write it."""
    from opstream_journal import retry_until_ready
    from opstream_journal.stores.access_bucket import AccessBucket

    bucket = AccessBucket(connection)
    await bucket.start()
    try:
        await retry_until_ready(connection, bucket.secret, seconds)
    finally:
        await bucket.stop()


def requested_sizing(settings: ProvisionSettings, current: Sizing, specs: list[ActionSpec]) -> Sizing:
    """The sizing that the journal should have.

    A limit that is not given stays as it is: an operator chose it earlier. It is raised if the given sizes and actions
    need more.
    """
    from opstream_journal.provisioning.checks.journal_age import required_age

    chosen = {
        name: getattr(settings, name)
        for name in ("replicas", "max_age", "max_bytes", "max_msg_size")
        if getattr(settings, name) is not None
    }
    if 0 <= current.max_msg_size < _needed_message_size(settings):
        chosen.setdefault("max_msg_size", _needed_message_size(settings))
    if 0 < current.max_age < required_age(specs):
        chosen.setdefault("max_age", required_age(specs))
    return msgspec.structs.replace(current, **chosen)


def requested_archive(settings: ProvisionSettings, current: ArchiveSizing | None) -> ArchiveSizing | None:
    """The archive that there should be, because it is requested or exists; None for none.

    Raises:
        click.UsageError: an age is given for an archive that neither exists nor is requested.
    """
    from opstream_journal.provisioning.archive import ArchiveSizing

    if current is None and not settings.is_archiving:
        if settings.archive_max_age is not None:
            raise click.UsageError("--archive-max-age: the broker has no archive; add --archive to make it")
        return None
    max_age = settings.archive_max_age
    return (current or ArchiveSizing()) if max_age is None else ArchiveSizing(max_age=max_age)


def _check_max_payload(settings: ProvisionSettings, max_payload: int) -> None:
    if max(settings.max_msg_size or 0, _needed_message_size(settings)) > max_payload:
        raise CommandError(
            f"the broker takes no message above {max_payload} bytes: raise max_payload in its configuration, or lower "
            "--max-body, --max-result or --max-msg-size (the first two need 16 KiB more than they allow)"
        )


def _check_replicas(settings: ProvisionSettings, connection: Connection) -> None:
    """Check before anything is made or compared: one server without a cluster can't hold two copies."""
    replicas = settings.replicas or 1
    if replicas > 1 and known_servers(connection) == 0:
        raise CommandError(too_few_servers(replicas, 0, ""))


def _needed_message_size(settings: ProvisionSettings) -> int:
    from opstream_journal.provisioning.topology import event_room

    largest = max(settings.max_body or 0, settings.max_result or 0)
    return event_room(largest) if largest else 0


def _load_specs(modules: tuple[str, ...]) -> list[ActionSpec]:
    if not modules:
        return []
    from opstream_runner.authoring.action_modules import import_notice, load_actions

    return [action.spec for action in load_actions(modules, importing=import_notice)]


def _print_report(report: ProvisionReport) -> None:
    from opstream_journal.provisioning.provision import RECREATE_HINT
    from opstream_journal.provisioning.topology import SIZING_FIELDS

    _print_items("made", report.made)
    _print_items("put right", report.updated)
    _print_items("kept", report.kept)
    _print_items("differs", report.drift)
    if not report.drift:
        if not report.made and not report.updated:
            click.echo("nothing to do: the broker has everything")
        return
    unsafe = [difference for difference in report.drift if not difference.is_safe]
    hints = []
    if len(unsafe) < len(report.drift):
        hints.append("run it again with --update to put right what is safe")
    if any(difference.field in SIZING_FIELDS for difference in unsafe):
        hints.append("a smaller limit could drop events: leave it out to keep the one that is there")
    if any(difference.field not in SIZING_FIELDS for difference in unsafe):
        hints.append(RECREATE_HINT)
    raise CommandError(f"the broker is not as it should be: {'; '.join(hints)}")


def _print_items(what: str, items: tuple[Any, ...]) -> None:
    for item in items:
        click.echo(f"{what:<9}  {item}")
