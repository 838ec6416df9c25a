"""Pauses and resumes actions: the broker enforces it at the consumer that the action's runners share (docs/adr/0064).

What the consumer says is the truth. The bucket `controls` keeps who paused an action, and why, to be shown; it is
written before the consumer is paused, and a record that does not fit the consumer's pause says nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from opstream_journal.errors import BrokerRefused, JournalUnavailable, NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.queues.consumer_backlogs import read_backlog
from opstream_journal.queues.message_ages import MessageAges
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionControl, ActionPause, ActionWithdrawal
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import QUEUED_PRIORITIES

ENDLESS: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""Until when the broker keeps a pause that has no end of its own: JetStream has none without a time."""
NO_CONTROL: Final = ActionControl()
"""Of an action about which nothing was decided."""
MISSING: Final = (
    f"the broker has no bucket {subjects.CONTROLS_BUCKET}, or this login may not use it: run 'opstream provision "
    "--update', and 'opstream broker-config' again if each role has its own login"
)

_STREAM: Final = subjects.bucket_stream(subjects.CONTROLS_BUCKET)
_PREFIX: Final = subjects.bucket_subject(subjects.CONTROLS_BUCKET, "")
_CONFLICTS: Final = frozenset({10071, 10164})
_TRIES: Final = 10
_RETRY_DELAY: Final = (0.02, 0.2)
_LOOK_DELAY: Final = 0.02
_PATIENCE: Final = 5.0
_TOLERANCE: Final = timedelta(milliseconds=1)
_NOT_FOUND: Final = 404
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(ActionControl).decode


class ActionControls:
    """What operators decided about actions, over one connection.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages = MessageAges(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._messages.start()

    async def stop(self) -> None:
        """Unsubscribe from it."""
        await self._messages.stop()

    async def of(self, kind: Kind) -> ActionControl:
        """Return what was decided about an action, from the leader.

        Raises:
            NotProvisioned: there is no such bucket, or this login may not read it.
            JournalError: the broker did not answer, or refused.
        """
        with _missing_bucket_explained():
            return _decoded(await rpc.get_last(self._connection, _STREAM, _subject(kind)))

    async def all(self) -> dict[Kind, ActionControl]:
        """Return what was decided about each action, from any replica: to show. Raises as `of` does."""
        controls = {}
        with _missing_bucket_explained():
            async for page in self._messages.pages(_STREAM, f"{_PREFIX}>"):
                for message in page:
                    try:
                        kind = Kind.parse(message.subject.removeprefix(_PREFIX).replace(".", ":"))
                    except InvalidName:
                        continue
                    controls[kind] = _decoded(message)
        return controls

    async def pause(self, kind: Kind, pause: ActionPause) -> bool:
        """Let no attempt of an action begin. What runs goes on; so does what a runner was given a moment ago.

        When this returns, the broker delivers nothing. A second pause replaces the first.

        Args:
            kind: the action.
            pause: until when, by whom, and why.

        Returns:
            False if there is nothing to pause: no runner has ever announced the action.

        Raises:
            NotProvisioned: there is no such bucket, or this login may not use it, or may not pause the consumer.
            JournalError: the broker did not answer, or refused.
        """
        if not await self._exists(kind):
            return False
        await self._change(kind, lambda found: msgspec.structs.replace(found, pause=pause))
        return await self._set_pause(kind, pause.until or ENDLESS)

    async def resume(self, kind: Kind) -> bool:
        """Let attempts of an action begin again. One that is not paused stays as it is.

        Returns:
            False if no runner has ever announced the action.

        Raises:
            NotProvisioned, JournalError: as `pause`.
        """
        if not await self._set_pause(kind, None):
            return False
        await self._change(kind, lambda found: msgspec.structs.replace(found, pause=None))
        return True

    async def withdraw(self, kind: Kind, withdrawal: ActionWithdrawal) -> None:
        """Let an entry of the catalog count no more (`ActionCatalog`).

        Raises:
            NotProvisioned, JournalError: as `pause`.
        """
        await self._change(kind, lambda found: msgspec.structs.replace(found, withdrawal=withdrawal))

    async def _exists(self, kind: Kind) -> bool:
        name = subjects.runner_consumer(kind)
        return await admin.consumer_info(self._connection, subjects.OPERATIONS_STREAM, name) is not None

    async def _set_pause(self, kind: Kind, until: datetime | None) -> bool:
        """Pause or resume the consumers, and wait until their leaders have done so. Return False without any.

        Those of priorities come first, so that the one that each action has tells whether all are paused.
        """
        for queue in QUEUED_PRIORITIES:
            name = subjects.runner_consumer(kind, queue)
            found = await admin.consumer_info(self._connection, subjects.OPERATIONS_STREAM, name)
            if found is not None:
                await self._set_pause_of(name, kind, until)
        return await self._set_pause_of(subjects.runner_consumer(kind), kind, until)

    async def _set_pause_of(self, name: str, kind: Kind, until: datetime | None) -> bool:
        try:
            await admin.pause_consumer(self._connection, subjects.OPERATIONS_STREAM, name, until)
        except BrokerRefused as refused:
            if refused.code == _NOT_FOUND:
                return False
            raise
        except JournalUnavailable as error:
            if rpc.has_no_responders(error):
                raise NotProvisioned(
                    f"this login may not pause {kind}: run 'opstream broker-config' again with the module of the "
                    "action, and let the servers read the new accounts"
                ) from error
            raise
        waited = 0.0
        while waited < _PATIENCE:
            backlog = await read_backlog(self._connection, subjects.OPERATIONS_STREAM, name)
            if _is_same(backlog.paused_until, until):
                return True
            await self._connection.sleep(_LOOK_DELAY)
            waited += _LOOK_DELAY
        raise JournalUnavailable(f"the broker has not {'paused' if until else 'resumed'} {kind} yet", maybe_stored=True)

    async def _change(self, kind: Kind, change: Callable[[ActionControl], ActionControl]) -> None:
        subject = _subject(kind)
        for _ in range(_TRIES):
            with _missing_bucket_explained():
                stored = await rpc.get_last(self._connection, _STREAM, subject)
                before = _decoded(stored)
                after = change(before)
                if after == before:
                    return
                headers = {"Nats-Expected-Last-Subject-Sequence": str(stored.seq if stored else 0)}
                try:
                    await rpc.publish(self._connection, subject, _encode(after), headers)
                except BrokerRefused as refused:
                    if refused.err_code not in _CONFLICTS:
                        raise
                else:
                    return
            await self._connection.sleep(random.uniform(*_RETRY_DELAY))  # noqa: S311 - it need not be unpredictable
        raise JournalUnavailable(f"what is decided about {kind} keeps changing", maybe_stored=False)


def shown_pause(paused_until: datetime | None, control: ActionControl) -> ActionPause | None:
    """Return the pause of an action as it is shown; None if it is not paused.

    Args:
        paused_until: as the consumer has it; None for one that is not paused.
        control: of the action. It tells who and why only if it is about this very pause.
    """
    if paused_until is None:
        return None
    known = control.pause
    if known is not None and _is_same(known.until or ENDLESS, paused_until):
        return known
    return ActionPause(until=paused_until if paused_until < ENDLESS else None)


def _is_same(one: datetime | None, other: datetime | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _TOLERANCE


def _subject(kind: Kind) -> str:
    return subjects.bucket_subject(subjects.CONTROLS_BUCKET, subjects.action_key(kind))


def _decoded(stored: rpc.StoredMessage | None) -> ActionControl:
    """Return a value; one of another version that can't be read says nothing."""
    if stored is None:
        return NO_CONTROL
    try:
        return _decode(stored.data)
    except (msgspec.MsgspecError, RecursionError):
        return NO_CONTROL


@contextmanager
def _missing_bucket_explained() -> Iterator[None]:
    try:
        yield
    except BrokerRefused as error:
        if error.err_code != rpc.STREAM_NOT_FOUND:
            raise
        raise NotProvisioned(MISSING) from error
    except JournalUnavailable as error:
        if rpc.has_no_responders(error):
            raise NotProvisioned(MISSING) from error
        raise
