"""Creates what opstream needs on the broker, and compares what is there.

`provision` is for operators (and `opstream up`). Every service calls `check_provisioned` at its start. A runner calls
`ensure_runner_consumer` for its own actions. Every difference is reported. Safe ones are applied on request, the others
are reported with the next step.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import uuid4

import msgspec
from nats.errors import NoRespondersError
from nats.js.api import ConsumerConfig, StreamConfig

from opstream_journal.errors import (
    BrokerRefused,
    BrokerTooOld,
    Drifted,
    ForeignStream,
    JournalUnavailable,
    NotProvisioned,
    RestoreUnfinished,
)
from opstream_journal.jetstream.connection import Connection
from opstream_journal.missing_streams import PROVISION_HINT, missing_stream_text
from opstream_journal.wire.server_version import explain_old_version
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM

from . import jetstream_admin as admin
from .archive import ArchiveSizing, archive_stream, check_archive_age
from .bulk_actions import BULK_SPECS
from .checks.journal_age import age_sum_text, check_sizing, required_age_of
from .config_drift import Drift, compare_consumer, compare_stream, newer_event_subjects
from .ownership import RIGHT_BROKER, explain_foreign_consumer, explain_foreign_stream
from .restore_mark import explain_unfinished_restore, restore_mark
from .topology import (
    INSTALLATION,
    OPTIONAL_FIELDS,
    OPTIONAL_STREAMS,
    SEAL,
    SEALABLE_STREAM,
    SIZING_FIELDS,
    Sizing,
    format_duration,
    runner_consumers,
    shared_consumers,
    streams,
)

UPDATE_HINT: Final = "run 'opstream provision --update'"
RECREATE_HINT: Final = "this can't be changed in place: back the stream up and recreate it, or use another broker"

_STREAM: Final = subjects.OPERATIONS_STREAM
_NOT_FOUND: Final = 404
_Config = TypeVar("_Config", StreamConfig, ConsumerConfig)


class ProvisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of provisioning."""

    made: tuple[str, ...]
    updated: tuple[str, ...]
    drift: tuple[Drift, ...]
    """The differences that remain."""
    kept: tuple[str, ...] = ()
    """What a newer version has added, which this one works beside, and leaves as it is."""


async def provision(
    connection: Connection,
    sizing: Sizing,
    specs: Iterable[ActionSpec] = (),
    *,
    archive: ArchiveSizing | None = None,
    is_update: bool = False,
    is_sealing: bool = False,
) -> ProvisionReport:
    """Create what is missing. With `is_update`, also apply the safe differences. Idempotent.

    Args:
        connection: the connection.
        sizing: replicas and limits.
        specs: actions whose runner consumers are made, too. A runner makes them itself where its login may.
        archive: the archive; None for no archive, which leaves an existing one alone.
        is_update: whether to apply safe differences.
        is_sealing: whether to let the catalog take no rollups. `opstream` 0.4.0 and older call that a difference.

    Raises:
        ForeignStream: a stream, bucket or consumer with one of our names, or with our subjects, is another
            application's. Nothing was made or changed.
        RestoreUnfinished: a backup is being restored, and not all of it is there. Nothing was made or changed.
        Drifted: with `sizing`, events would expire before the statuses of their operations; or the archive would expire
            before the journal; or a lease would become shorter than its runners expect. Nothing was changed.
        JournalError: the broker refused or did not answer.
    """
    specs = list(specs)
    wanted = streams(sizing)
    if archive is not None:
        wanted.append(archive_stream(archive, replicas=sizing.replicas))
    durables = shared_consumers() + [
        (_STREAM, config) for spec in (*specs, *BULK_SPECS.values()) for config in runner_consumers(spec)
    ]
    await _refuse_foreign(connection, wanted, durables)
    check_sizing(sizing, specs)
    if archive is not None:
        check_archive_age(archive, sizing.max_age)
    if is_update:
        await _check_leases(connection, specs)
    made: list[str] = []
    updated: list[str] = []
    drift: list[Drift] = []
    kept: list[str] = []
    for config in wanted:
        name = str(config.name)
        actual = await admin.stream_config(connection, name)
        if actual is None and name == PAYLOADS_STREAM:
            config = config.evolve(metadata={INSTALLATION: str(uuid4())})  # noqa: PLW2901 - with what is drawn once
        if actual is None and await admin.create_stream(connection, config):
            made.append(f"stream {name}")
            if name == _STREAM:
                await _copy_from_the_beginning(connection)
            continue
        actual = actual or await _existing_config(admin.stream_config(connection, name))
        found = stream_differences(actual, config)
        newer = newer_event_subjects(actual, config)
        kept.extend(f"stream {name} takes {one}, as a newer version of opstream needs" for one in newer)
        fields = config.evolve(subjects=[*(config.subjects or ()), *newer]).as_dict()
        update = functools.partial(admin.update_stream, connection, name)
        await _apply_safe(found, fields, update, updated if is_update else None, drift)
    for stream, consumer in durables:
        name = str(consumer.durable_name)
        current = await admin.consumer_config(connection, stream, name)
        if current is None and await admin.create_consumer(connection, stream, consumer):
            made.append(f"consumer {name}")
            continue
        found = compare_consumer(
            current or await _existing_config(admin.consumer_config(connection, stream, name)), consumer
        )
        update = functools.partial(admin.update_consumer, connection, stream, name)
        await _apply_safe(found, consumer.as_dict(), update, updated if is_update else None, drift)
    if is_sealing:
        catalog = await _existing_config(admin.stream_config(connection, SEALABLE_STREAM))
        if catalog.allow_rollup_hdrs:
            await admin.update_stream(connection, SEALABLE_STREAM, {SEAL: False})
            updated.append(f"stream {SEALABLE_STREAM} takes no rollups")
    return ProvisionReport(made=tuple(made), updated=tuple(updated), drift=tuple(drift), kept=tuple(kept))


async def _copy_from_the_beginning(connection: Connection) -> None:
    """Have an archive that was restored from a backup copy a new journal from its first event on.

    It begins behind what it had in the backup (docs/adr/0051), which is right for the restored journal only.
    """
    current = await admin.stream_config(connection, subjects.ARCHIVE_STREAM)
    if current is not None and any(source.opt_start_seq for source in current.sources or ()):
        fields = archive_stream(ArchiveSizing(), replicas=1).as_dict()
        await admin.update_stream(connection, subjects.ARCHIVE_STREAM, {"sources": fields["sources"]})


async def current_sizing(connection: Connection) -> Sizing | None:
    """Return the sizing of the journal now, which is the default of an update; None without a journal.

    Raises:
        JournalError: the broker refused or did not answer.
    """
    config = await admin.stream_config(connection, _STREAM)
    if config is None:
        return None
    return Sizing(
        replicas=config.num_replicas or 1,
        max_age=config.max_age or 0.0,
        max_bytes=config.max_bytes or -1,
        max_msg_size=config.max_msg_size or -1,
    )


async def check_provisioned(connection: Connection) -> int:
    """Check that the broker has what every service needs, whatever the operator's sizing, and whatever a newer version
    has added for its own event types.

    Returns:
        The `max_msg_size` of the journal in bytes, -1 for none.

    Raises:
        ForeignStream: a stream with one of our names is another application's.
        RestoreUnfinished: a backup is being restored, and not all of it is there.
        NotProvisioned: something is missing.
        Drifted: something differs.
        BrokerTooOld: the leader of a stream is older than opstream works with.
        JournalError: the broker refused or did not answer.
    """
    limit = -1
    wanted = streams(Sizing())
    for config, actual in zip(wanted, await _refuse_foreign_streams(connection, wanted), strict=True):
        if actual is None and config.name in OPTIONAL_STREAMS:
            continue
        if actual is None:
            raise NotProvisioned(missing_stream_text(str(config.name)))
        # The leader answers, which in a cluster need not be the server of this connection.
        if too_old := explain_old_version(admin.server_version(actual), f"the leader of {config.name}"):
            raise BrokerTooOld(too_old)
        # Only the journal's age can be chosen: in other streams, wake-ups and snapshots would expire.
        chosen = OPTIONAL_FIELDS | (SIZING_FIELDS if config.name == _STREAM else SIZING_FIELDS - {"max_age"})
        _raise_if_drifted(one for one in stream_differences(actual, config) if one.field not in chosen)
        if config.name == _STREAM:
            limit = -1 if actual.max_msg_size is None else actual.max_msg_size
    for stream, consumer in shared_consumers():
        current = await admin.consumer_config(connection, stream, str(consumer.durable_name))
        if current is None:
            raise NotProvisioned(f"the broker has no consumer {consumer.durable_name}: {PROVISION_HINT}")
        _raise_if_foreign(explain_foreign_consumer(current, consumer))
        _raise_if_drifted(compare_consumer(current, consumer))
    return limit


async def check_journal_is_ours(connection: Connection) -> None:
    """Check that the stream OPERATIONS, if there is one, is opstream's.

    Raises:
        ForeignStream: it is another application's.
        RestoreUnfinished: it is of a backup that is being restored.
        JournalError: the broker refused or did not answer.
    """
    await _refuse_foreign_streams(connection, [one for one in streams(Sizing()) if one.name == _STREAM])


async def check_journal_age(connection: Connection, specs: Iterable[ActionSpec]) -> None:
    """Check that the journal keeps events for as long as operations of these actions may need them.

    Raises:
        Drifted: events would expire while an operation runs, or while its status is kept.
        NotProvisioned: there is no journal.
        JournalError: the broker refused or did not answer.
    """
    sizing = await current_sizing(connection)
    if sizing is None:
        raise NotProvisioned(missing_stream_text(_STREAM))
    for spec in specs:
        if 0 < sizing.max_age < required_age_of(spec):
            raise Drifted(
                f"action {spec.kind}: {age_sum_text(spec)}, "
                f"and the journal keeps events for {format_duration(sizing.max_age)} only: "
                f"shorten one of them, or {UPDATE_HINT} --max-age {format_duration(required_age_of(spec))}"
            )


async def ensure_runner_consumer(connection: Connection, spec: ActionSpec) -> None:
    """Create the consumer of an action if it is missing, and those of its priorities. An existing one is never changed.

    Raises:
        Drifted: one exists, and differs.
        NotProvisioned: there is no journal.
        JournalError: the broker refused or did not answer.
    """
    for wanted in runner_consumers(spec):
        await _ensure_consumer(connection, wanted)


async def _ensure_consumer(connection: Connection, wanted: ConsumerConfig) -> None:
    name = str(wanted.durable_name)
    current = await admin.consumer_config(connection, _STREAM, name)
    if current is None:
        try:
            if await admin.create_consumer(connection, _STREAM, wanted):
                return
        except BrokerRefused as refused:
            if refused.code == _NOT_FOUND:
                raise NotProvisioned(missing_stream_text(_STREAM)) from refused
            raise
        except JournalUnavailable as error:
            # JetStream has answered the question above, so this call does not reach it from this account.
            if error.__cause__ is None or not isinstance(error.__cause__.__cause__, NoRespondersError):
                raise
            raise NotProvisioned(
                f"the broker has no consumer {name}, and this login may not make it: run 'opstream provision' with the "
                "operator's login and the same --actions (docs/broker-access.md)"
            ) from error
        current = await _existing_config(admin.consumer_config(connection, _STREAM, name))
    _raise_if_foreign(explain_foreign_consumer(current, wanted))
    _raise_if_drifted(compare_consumer(current, wanted), f"{UPDATE_HINT} with the same --actions")


def stream_differences(actual: StreamConfig, wanted: StreamConfig) -> list[Drift]:
    """Return the differences of a stream. Whether the catalog is sealed is the operator's choice, and none of them."""
    return [one for one in compare_stream(actual, wanted) if (wanted.name, one.field) != (SEALABLE_STREAM, SEAL)]


async def _refuse_foreign(
    connection: Connection, wanted: Sequence[StreamConfig], durables: Iterable[tuple[str, ConsumerConfig]]
) -> None:
    """Look at all that exists before anything is made or changed: half a system on a wrong broker can't be undone."""
    present = set()
    for config, actual in zip(wanted, await _refuse_foreign_streams(connection, wanted), strict=True):
        if actual is not None:
            present.add(config.name)
            continue
        for subject in config.subjects or ():
            for other in await admin.streams_with_subject(connection, subject):
                _raise_if_foreign(f"stream {other} has messages on {subject}, which opstream needs for {config.name}")
    for stream, consumer in durables:
        if stream in present:
            current = await admin.consumer_config(connection, stream, str(consumer.durable_name))
            _raise_if_foreign("" if current is None else explain_foreign_consumer(current, consumer))


async def _refuse_foreign_streams(connection: Connection, wanted: Sequence[StreamConfig]) -> list[StreamConfig | None]:
    """Return what the broker has of these streams, None for one that is missing; raise if one is not ours, or is of a
    restore that has not ended."""
    found = [await admin.stream_config(connection, str(config.name)) for config in wanted]
    for config, actual in zip(wanted, found, strict=True):
        _raise_if_foreign("" if actual is None else explain_foreign_stream(actual, config))
        if actual is not None and (mark := restore_mark(actual)):
            raise RestoreUnfinished(explain_unfinished_restore(str(config.name), mark))
    return found


def _raise_if_foreign(why: str) -> None:
    if why:
        raise ForeignStream(f"{why}: {RIGHT_BROKER}")


async def _check_leases(connection: Connection, specs: Iterable[ActionSpec]) -> None:
    """Refuse a shorter lease while its runners run: they extend it too rarely for the new one."""
    for spec in specs:
        wanted = runner_consumers(spec)[0]
        name = str(wanted.durable_name)
        current = await admin.consumer_config(connection, _STREAM, name)
        is_lower = current is not None and round(current.ack_wait or 0.0, 6) > round(spec.policy.lease, 6)
        if is_lower and await admin.is_consumer_in_use(connection, _STREAM, name):
            raise Drifted(
                f"action {spec.kind}: its lease can't be shortened to {spec.policy.lease:g} s while its runners are "
                f"there, because they would lose their attempts: stop them before '--update', or keep the lease"
            )


def _raise_if_drifted(drift: Iterable[Drift], hint: str = UPDATE_HINT) -> None:
    found = list(drift)
    if found:
        todo = hint if all(one.is_safe for one in found) else RECREATE_HINT
        raise Drifted(f"the broker differs from what this version needs: {'; '.join(map(str, found))}. {todo}")


async def _apply_safe(
    found: list[Drift],
    wanted: Mapping[str, Any],
    update: Callable[[Mapping[str, Any]], Awaitable[None]],
    updated: list[str] | None,
    drift: list[Drift],
) -> None:
    """Apply the safe differences if `updated` is given, and add them to it. Add the others to `drift`."""
    safe = [one for one in found if one.is_safe] if updated is not None else []
    if safe and updated is not None:
        changes = {one.field: wanted.get(one.field) for one in safe}
        if "filter_subjects" in changes:
            changes["filter_subject"] = None  # the broker accepts only one of the two
        await update(changes)
        updated.extend(str(one) for one in safe)
    drift.extend(one for one in found if one not in safe)


async def _existing_config(asked: Awaitable[_Config | None]) -> _Config:
    config = await asked
    if config is None:
        raise JournalUnavailable(
            "a stream or consumer comes and goes: does another process provision?", maybe_stored=False
        )
    return config
