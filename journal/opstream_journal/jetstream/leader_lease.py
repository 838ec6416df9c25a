"""Whether the server that answers as a stream's leader still leads (docs/adr/0065).

A server that leads a stream and is cut off from the others goes on answering reads for up to 20 seconds
(`lostQuorumInterval` and its check, 10 s each). The others elect a leader after 4 to 9 s. In between it does not have
what the new leader stores, so it would deny an operation that was accepted a moment ago. So would one that was
suspended, for a few milliseconds after it runs again.

The leader knows when it last heard of each copy, and STREAM.INFO shows it. A copy that it has heard of does not vote
for another leader within the next 4 s. So with a majority that was heard of recently it leads for some seconds more:
its lease. An answer counts if the lease was held all the time from its question on.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from opstream_journal.errors import JournalUnavailable, NoLeader
from opstream_journal.missing_leader import is_clustered

from . import rpc
from .connection import Connection

_ELECTION: Final = 4.0
"""Seconds: after its leader fell silent, a copy waits at least as long before it stands for election."""
_MARGIN: Final = 1.5
"""Seconds that an answer of a copy may have been on its way to the leader."""
_TRIES: Final = 3
_PAUSE: Final = 0.5
"""Seconds. A leader hears of each copy every second, so after an election it may have heard of none yet."""
_DOUBT: Final = 0.25
"""Seconds in which a server that was suspended has read that another one leads."""
_AHEAD: Final = 1.0
"""Seconds before its end at which a lease is renewed: the least that it is long, if all copies are there."""
_KEPT: Final = 30.0
"""Seconds after its last use for which it is renewed."""


class _Replica(msgspec.Struct, frozen=True):
    active: int = 0
    """Nanoseconds since the leader has heard of it; 0 if it never has."""
    offline: bool = False


class _Copies(msgspec.Struct, frozen=True):
    leader: str = ""
    replicas: list[_Replica] = []
    """The copies besides the leader's."""


class _LeaderAnswer(msgspec.Struct, frozen=True):
    cluster: _Copies | None = None
    error: rpc.JetStreamErrorBody | None = None


_decode: Final = msgspec.json.Decoder(_LeaderAnswer).decode


def lease_seconds(silences: list[float | None]) -> float:
    """Return for how long a leader leads at least; 0 or less if another one may have been elected.

    Args:
        silences: seconds since it has heard of each of the other copies; None for never.
    """
    needed = (len(silences) + 1) // 2
    if not needed:
        return _ELECTION - _MARGIN
    heard = sorted(one for one in silences if one is not None)
    return _ELECTION - _MARGIN - heard[needed - 1] if len(heard) >= needed else 0.0


class LeaderLease:
    """The lease of a stream's leader, as far as one connection knows it.

    Args:
        connection: the connection.
        stream: the stream.
    """

    def __init__(self, connection: Connection, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._since = 0.0
        """From when on the lease has been held without a gap; in the loop's time, as the next two."""
        self._until = -1.0
        self._used_at = 0.0
        self._renewal: asyncio.Task[None] | None = None

    async def covers(self, asked_at: float) -> bool:
        """Return True if it is sure that what the leader has just answered was all that is stored.

        That is so if the lease was held from the question to the answer. Otherwise this gets it, and the question is to
        be asked again. It costs a request in about a second while there are questions, for all of them together, and
        nothing on a single server. The first question after a while waits for a quarter of a second.

        Args:
            asked_at: when the question was sent; in the loop's time.

        Raises:
            NoLeader: who answers does not hear of the others, or leads no more.
            JournalUnavailable: there was no answer.
        """
        if not is_clustered(self._connection.nc):
            return True
        self._used_at = now = asyncio.get_running_loop().time()
        if self._since <= asked_at and now < self._until:
            return True
        await asyncio.shield(self._begin_renewal())
        return False

    def _begin_renewal(self) -> asyncio.Task[None]:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew(), name=f"leader of {self._stream}")
            self._renewal.add_done_callback(self._end_renewal)
        return self._renewal

    def _end_renewal(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if renewal.cancelled() or renewal.exception() is not None:
            return  # those who wait raise it, if any do
        loop = asyncio.get_running_loop()
        loop.call_at(max(self._until - _AHEAD, loop.time() + _DOUBT), self._keep)

    def _keep(self) -> None:
        """Renew the lease before it is over, if it was used a moment ago."""
        if self._connection.is_connected and asyncio.get_running_loop().time() - self._used_at < _KEPT:
            self._begin_renewal()

    async def _renew(self) -> None:
        clock = asyncio.get_running_loop().time
        for number in range(_TRIES):
            if number:
                await self._connection.sleep(_PAUSE)
            began, seconds = clock(), await self._ask()
            if seconds > 0 and clock() >= self._until:
                # There was a gap, in which the server that answers may have been suspended. It gets then all at once
                # what was sent to it before and meanwhile: answers of copies, which look new, and who leads now.
                await self._connection.sleep(_DOUBT)
                began, seconds = clock(), await self._ask()
                self._since = clock()
            if seconds > 0:
                self._until = began + seconds
                return
        raise NoLeader(f"{self._stream}: its leader does not hear of the others, so another server may lead it now")

    async def _ask(self) -> float:
        answer = await rpc.call(self._connection, f"$JS.API.STREAM.INFO.{self._stream}")
        try:
            found = _decode(answer.data)
        except msgspec.MsgspecError as error:
            raise JournalUnavailable(
                f"the answer about {self._stream} is not JetStream's", maybe_stored=False
            ) from error
        if found.error is not None:
            if found.error.code == rpc.UNAVAILABLE:
                raise NoLeader(f"{self._stream}: {found.error.description}")
            return _ELECTION - _MARGIN  # the read itself says what is wrong with the stream
        if found.cluster is None or not found.cluster.leader:
            return 0.0
        return lease_seconds([one.active / 1e9 if one.active else None for one in found.cluster.replicas])
