"""The action catalog in the bucket `actions`. Runners announce their actions; the API routes and validates by it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from opstream_journal.actions.action_controls import ActionControls
from opstream_journal.actions.action_overview import ActionOverview, ActionOverviews
from opstream_journal.actions.announced_versions import refuse_another_contract, warn_of_another_schema
from opstream_journal.errors import (
    ActionServed,
    BrokerRefused,
    Drifted,
    JournalError,
    JournalUnavailable,
    NotProvisioned,
)
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection, end_task
from opstream_journal.outage_log import OutageLog
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.queues.runner_records import RunnerRecords
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec, ActionWithdrawal
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.text import format_count

logger = logging.getLogger(__name__)

_STREAM: Final = subjects.bucket_stream(subjects.ACTIONS_BUCKET)
_ALL: Final = subjects.bucket_subject(subjects.ACTIONS_BUCKET, ">")
_APPEND_IN_FLIGHT: Final = 10164
_CONFLICTS: Final = frozenset({10071, _APPEND_IN_FLIGHT})
_REFRESH_INTERVAL: Final = 10.0
_REPLICA_DELAY: Final = 0.25
_ANNOUNCE_TRIES: Final = 20
_ANNOUNCE_RETRY_DELAY: Final = (0.02, 0.2)

_decode: Final = msgspec.json.Decoder(ActionSpec).decode


async def changed_schemas(connection: Connection, spec: ActionSpec, *, is_refused: bool) -> list[str]:
    """Return which schemas of an action, `input` and `result`, differ from those announced as the same version.

    Args:
        connection: the connection.
        spec: the action.
        is_refused: whether that is an error: types change with the version (docs/adr/0064).

    Raises:
        SchemaChanged: they differ.
        JournalUnavailable: the broker did not answer.
    """
    _, before = await read_current(connection, spec.kind)
    refuse_another_contract(before, spec, allows_schema_change=not is_refused)
    is_same_version = before is not None and before.action_version == spec.action_version
    return spec.changed_schemas(before) if before is not None and is_same_version else []


async def announce_action(
    connection: Connection,
    spec: ActionSpec,
    *,
    allows_schema_change: bool = False,
    jitter: Callable[[float, float], float] = random.uniform,
) -> bool:
    """Put an action into the catalog. Return False if it has a higher version already, which stays.

    An entry of the same version is replaced. If its schemas differ, requests in the queue were made for the other one.

    Args:
        connection: the connection.
        spec: the action.
        allows_schema_change: whether another schema of the same version is a warning, and no error.
        jitter: draws a delay from `[low, high]` seconds.

    Raises:
        SchemaChanged: the catalog has the same version with another schema, or with another confidentiality.
        JournalUnavailable: the broker did not answer.
        EventTooLarge: the entry does not fit the broker's `max_payload`.
        Drifted: another writer changed the entry before each try.
    """
    subject = _subject(spec.kind)
    last: BrokerRefused | None = None
    for _ in range(_ANNOUNCE_TRIES):
        if last is not None:
            await connection.sleep(jitter(*_ANNOUNCE_RETRY_DELAY))
        stored, current = await read_current(connection, spec.kind)
        if current is not None and current.action_version > spec.action_version:
            return False
        if current == spec:
            return True
        refuse_another_contract(current, spec, allows_schema_change=allows_schema_change)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(stored.seq if stored else 0)}
        try:
            await rpc.publish(connection, subject, msgspec.json.encode(spec), headers)
        except BrokerRefused as refused:
            if refused.err_code not in _CONFLICTS:
                raise
            last = refused
        else:
            warn_of_another_schema(current, spec)
            return True
    if last is not None and last.err_code == _APPEND_IN_FLIGHT:
        raise JournalUnavailable(f"the replicas do not confirm the catalog entry of {spec.kind}", maybe_stored=False)
    raise Drifted(f"the catalog entry of {spec.kind} keeps changing: do two runners announce it differently?")


async def withdraw_action(
    connection: Connection, kind: Kind, *, at: datetime, by: str, reason: str
) -> ActionSpec | None:
    """Withdraw what was announced of an action, whatever its version. Return it; None if there is nothing to withdraw.

    The next runner that announces the action brings it back, also with a lower version.

    Args:
        connection: the connection.
        kind: the action.
        at: the time.
        by: who does it.
        reason: why.

    Raises:
        ActionServed: it has runners, which would not announce it again.
        NotProvisioned: there is no bucket for it, or this login may not use it.
        JournalError: the broker did not answer, or refused.
    """
    stored, current = await read_current(connection, kind)
    if stored is None or current is None:
        return None
    await _refuse_runners(connection, kind)
    withdrawal = ActionWithdrawal(at=at, by=by, reason=reason, revision=stored.seq)
    await ActionControls(connection).withdraw(kind, withdrawal)
    return current


async def _refuse_runners(connection: Connection, kind: Kind) -> None:
    consumer = await admin.consumer_info(connection, subjects.OPERATIONS_STREAM, subjects.runner_consumer(kind))
    records = RunnerRecords(connection)
    await records.start()
    try:
        count = len((await records.of(kind)).runners)
    finally:
        await records.stop()
    # A runner of 0.5.0 has no record, and asks for messages.
    if count or (consumer or {}).get("num_waiting"):
        raise ActionServed(
            f"{kind} has {format_count(count, 'runner') if count else 'runners'}: stop them first, or they go on while "
            "nobody can submit it; one that was killed counts for 15 seconds more"
        )


async def read_current(connection: Connection, kind: Kind) -> tuple[rpc.StoredMessage | None, ActionSpec | None]:
    """Return the entry of an action as it is stored, and as it counts: None if it was withdrawn."""
    stored = await rpc.get_last(connection, _STREAM, _subject(kind))
    spec = None if stored is None else _decode_entry(stored)
    if stored is None or spec is None:
        return stored, None
    try:
        withdrawal = (await ActionControls(connection).of(kind)).withdrawal
    except NotProvisioned:
        withdrawal = None
    return stored, None if withdrawal is not None and stored.seq <= withdrawal.revision else spec


async def find_action(connection: Connection, kind: Kind) -> ActionSpec | None:
    """Return the entry of one action, from the leader; None without one.

    Raises:
        JournalUnavailable: the broker did not answer.
    """
    stored = await rpc.get_last(connection, _STREAM, _subject(kind))
    return None if stored is None else _decode_entry(stored)


class ActionCatalog:
    """All entries, kept up to date: a core subscription notifies of changes, and all are read again every 10 s.

    A notification only causes a read. A core subscriber sees publishes that the stream refused, and misses others
    (docs/nats.md).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = BatchReader(connection)
        self._specs: dict[Kind, ActionSpec] = {}
        self._shown: dict[Kind, ActionSpec] = {}
        """Those that were not withdrawn."""
        self._withdrawn: dict[Kind, int] = {}
        self._controls = ActionControls(connection)
        self._revisions: dict[str, int] = {}
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._notified = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def specs(self) -> Mapping[Kind, ActionSpec]:
        """The known entries but those that were withdrawn. They stay known while their runners, or the broker, are
        down."""
        return MappingProxyType(self._shown)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each new or changed entry. Its exceptions are logged."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Read all entries and begin to watch. After an error, call it again.

        Raises:
            JournalError: the broker did not answer, or the bucket is missing.
        """
        if self._subscription is None:
            await self._reader.start()
            await self._controls.start()
            self._subscription = await self._connection.nc.subscribe(_ALL, cb=self._on_notification)
            self._connection.on_reconnect(self._request_refresh)
        await self.refresh()
        self._task = asyncio.create_task(self._watch(), name="catalog")

    async def stop(self) -> None:
        """Stop watching."""
        if self._subscription is None:
            return
        if self._task is not None:
            await end_task(self._task)
        self._connection.remove_reconnect_callback(self._request_refresh)
        if not self._connection.nc.is_closed:
            await self._subscription.unsubscribe()
        self._subscription = None
        await self._reader.stop()
        await self._controls.stop()

    async def find(self, kind: Kind) -> ActionSpec | None:
        """Return the entry of an action; None only after a read from the leader.

        Raises:
            JournalUnavailable: the broker did not answer, and the action is not known.
        """
        known = self._shown.get(kind)
        if known is not None:
            return known
        stored, current = await read_current(self._connection, kind)
        if stored is not None and current is not None:
            self._merge(stored)
        return current

    async def withdraw(self, kind: Kind, *, at: datetime, by: str, reason: str) -> bool:
        """Withdraw an action (`withdraw_action`), and know of it at once. Return False if there is none."""
        is_done = await withdraw_action(self._connection, kind, at=at, by=by, reason=reason) is not None
        await self.refresh()
        return is_done

    async def _watch(self) -> None:
        wait = _REFRESH_INTERVAL
        outage = OutageLog(
            logger, "the catalog of actions can't be read, what is known stays in use", "the catalog can be read again"
        )
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._notified.wait()
            except TimeoutError:
                wait = _REFRESH_INTERVAL
            else:
                # The notification overtakes the entry on its way to a replica: read now, and again in a moment.
                wait = _REPLICA_DELAY
            self._notified.clear()
            try:
                await self.refresh()
            except JournalError as error:
                outage.failed(error)
            else:
                outage.recovered()

    def _request_refresh(self) -> None:
        self._notified.set()

    async def _on_notification(self, _message: Msg) -> None:
        self._request_refresh()

    async def refresh(self) -> None:
        """Read all entries now. A known entry that is gone stays known, unless it was withdrawn.

        Raises:
            JournalError: the broker did not answer, or the bucket is missing.
        """
        try:
            controls = await self._controls.all()
        except JournalError as error:
            logger.debug("which actions were withdrawn can't be read: %s", error)  # what is known of it stays
        else:
            self._withdrawn = {kind: one.withdrawal.revision for kind, one in controls.items() if one.withdrawal}
        for message in await self._reader.read(_STREAM, {"multi_last": [_ALL]}):
            self._merge(message)
        self._show()

    def _show(self) -> None:
        """Show the entries that were not withdrawn, and tell the listeners if these are others than before."""
        shown = {
            kind: spec
            for kind, spec in self._specs.items()
            if self._revisions[_subject(kind)] > self._withdrawn.get(kind, 0)
        }
        if shown == self._shown:
            return
        self._shown = shown
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                logger.exception("a listener failed on a change of the catalog")

    def _merge(self, message: rpc.StoredMessage) -> None:
        seen = self._revisions.get(message.subject, 0)
        if message.seq == seen:
            return
        spec = _decode_entry(message)
        self._revisions[message.subject] = max(seen, message.seq)
        # By the sequence alone: a replica that is behind must not restore a replaced entry, and after a withdrawal a
        # lower version may follow a higher one. `announce_action` lets it follow at no other time.
        if spec is None or message.seq < seen:
            return
        self._specs[spec.kind] = spec
        self._show()


async def overview(connection: Connection) -> list[ActionOverview]:
    """Return all actions in order, for a command that looks once. Raises as `ActionOverviews.read` does."""
    catalog, overviews = ActionCatalog(connection), ActionOverviews(connection)
    try:
        await catalog.start()
        await overviews.start()
        return await overviews.read(catalog.specs.values())
    finally:
        await overviews.stop()
        await catalog.stop()


def _subject(kind: Kind) -> str:
    return subjects.bucket_subject(subjects.ACTIONS_BUCKET, subjects.action_key(kind))


def _decode_entry(stored: rpc.StoredMessage) -> ActionSpec | None:
    try:
        spec = _decode(stored.data)
        if _subject(Kind.parse_routable(str(spec.kind))) != stored.subject:
            raise InvalidName(f"it describes {spec.kind}")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        logger.warning("%s in the catalog is not an action and is ignored: %s", stored.subject, error)
        return None
    return spec
