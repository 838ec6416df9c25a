"""The durable consumers of subscribers: created once, never changed, and recreated at the same position.

The start position of a durable counts only when it is created. From then on the broker keeps its position.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from opstream_journal.errors import BrokerRefused, Drifted, JournalUnavailable, NotProvisioned
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.missing_streams import missing_stream_text
from opstream_schemas import subjects

from . import jetstream_admin as admin
from .config_drift import compare_consumer

logger = logging.getLogger(__name__)

_STREAM: Final = subjects.OPERATIONS_STREAM
_MAX_WAITING: Final = 512
_NOT_FOUND: Final = 404
_POSITION_FIELDS: Final = frozenset({"deliver_policy"})

_UNSUPPORTED_FIELDS: Final = ("deliver_subject", "max_batch", "max_expires", "priority_groups")
"""With one of these the broker refuses our pulls, and a subscriber would wait for ever."""

StartPosition = str | int | datetime
"""The position of a new durable: `new`, `all`, a stream sequence, or a time by the broker's clock."""


class SubscriberConsumer:
    """One durable consumer of the stream OPERATIONS.

    Args:
        connection: the connection.
        name: of the consumer.
        filters: subject filters that don't overlap.
        ack_wait: seconds after which a message without acknowledgement is delivered again.
        max_pending: messages that may be delivered and not acknowledged, over all processes.
    """

    def __init__(
        self, connection: Connection, name: str, filters: Sequence[str], *, ack_wait: float, max_pending: int
    ) -> None:
        self._connection = connection
        self._filters = list(filters)
        self._ack_wait = ack_wait
        self._max_pending = max_pending
        self.name = name
        self.ack_floor = 0
        """The stream sequence up to which all is acknowledged, as of the last read."""

    async def ensure(self, start: StartPosition) -> None:
        """Create it if it is missing. An existing one is never changed, and goes on at its position.

        Raises:
            Drifted: there is one, and it differs.
            NotProvisioned: there is no journal.
            JournalError: the broker refused or did not answer.
        """
        if await admin.consumer_config(self._connection, _STREAM, self.name) is None:
            await self._create(_start_options(start))
        await self._check()

    async def refresh_ack_floor(self) -> None:
        """Read `ack_floor` from the broker.

        Raises:
            JournalUnavailable: the broker did not answer.
            BrokerRefused: the broker refused.
        """
        self.ack_floor = max(self.ack_floor, await admin.ack_floor(self._connection, _STREAM, self.name) or 0)

    async def recreate(self) -> None:
        """Recreate it after it was deleted, at the last known `ack_floor`.

        No event is skipped. Those that were acknowledged since the last read are delivered again. Does nothing if
        another process has recreated it.

        Raises:
            Drifted: another one was created meanwhile, and differs.
            NotProvisioned: the journal is missing, or is another one.
            JournalError: the broker refused or did not answer.
        """
        last = (await stream_bounds(self._connection, _STREAM)).last
        if last < self.ack_floor:
            raise NotProvisioned(
                f"stream {_STREAM} ends at {last}, "
                f"and consumer {self.name} was at {self.ack_floor}: this is another "
                "journal. Restart to begin with it"
            )
        # Only if it is missing: a broker before 2.15.0 forgets the position of a consumer whose creation it refuses.
        if await admin.consumer_config(self._connection, _STREAM, self.name) is None:
            await self._create({"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": self.ack_floor + 1})
        await self._check()

    async def _create(self, place: dict[str, object]) -> None:
        try:
            await admin.create_consumer(self._connection, _STREAM, self._config(place))
        except BrokerRefused as refused:
            if refused.code == _NOT_FOUND:
                raise NotProvisioned(missing_stream_text(_STREAM)) from refused
            raise

    async def _check(self) -> None:
        raw = await admin.raw_consumer_config(self._connection, _STREAM, self.name)
        if raw is None:
            raise JournalUnavailable(f"consumer {self.name} was deleted as soon as it was created", maybe_stored=False)
        current = ConsumerConfig.from_response(dict(raw))
        drift = [str(one) for one in compare_consumer(current, self._config({})) if one.field not in _POSITION_FIELDS]
        drift += [
            f"consumer {self.name}: {one} is {raw[one]}, should not be set"
            for one in _UNSUPPORTED_FIELDS
            if raw.get(one)
        ]
        if drift:
            raise Drifted(
                f"{'; '.join(drift)}. Use another durable, or change this one ('nats consumer edit'), which keeps its "
                "position"
            )
        await self.refresh_ack_floor()

    def _config(self, place: dict[str, object]) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self.name,
            filter_subjects=self._filters,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_deliver=-1,
            max_ack_pending=self._max_pending,
            max_waiting=_MAX_WAITING,
            **place,  # type: ignore[arg-type] # three fields of three types
        )


def _start_options(start: StartPosition) -> dict[str, object]:
    match start:
        case int():
            return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": start}
        case datetime():
            return {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": start}
        case _:
            return {"deliver_policy": DeliverPolicy(start)}
