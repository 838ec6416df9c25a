"""The action catalog: the bucket `actions`. Runners announce what they offer; the API routes and validates by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from nats.aio.msg import Msg

from opstream_schemas import subjects
from opstream_schemas.catalog import ActionSpec
from opstream_schemas.names import Kind

from . import rpc
from .errors import Drifted, JournalError, RequestRefused
from .link import Link

logger = logging.getLogger(__name__)

_STREAM: Final = subjects.bucket_stream(subjects.ACTIONS_BUCKET)
_ALL: Final = subjects.bucket_subject(subjects.ACTIONS_BUCKET, ">")
_CONFLICTS: Final = frozenset({10071, 10164})
_REFRESH: Final = 10.0
_ANNOUNCE_TRIES: Final = 20

_decode: Final = msgspec.json.Decoder(ActionSpec).decode


async def announce(link: Link, spec: ActionSpec) -> bool:
    """Offer an action; whether the catalog now says what `spec` says. A higher version that is there stays.

    Raises:
        JournalUnavailable: the broker did not answer.
        Drifted: the entry changed under every try.
    """
    subject = _subject(spec.kind)
    for _ in range(_ANNOUNCE_TRIES):
        stored = await rpc.get_last(link, _STREAM, subject)
        current = _spec(stored) if stored is not None else None
        if current is not None and current.action_version > spec.action_version:
            return False
        if current == spec:
            return True
        headers = {"Nats-Expected-Last-Subject-Sequence": str(stored.seq if stored else 0)}
        try:
            await rpc.publish(link, subject, msgspec.json.encode(spec), headers)
        except RequestRefused as refused:
            if refused.err_code not in _CONFLICTS:
                raise
        else:
            return True
    raise Drifted(f"the catalog entry of {spec.kind} keeps changing: do two runners announce it differently?")


async def look_up(link: Link, kind: Kind) -> ActionSpec | None:
    """The entry of one action, from the leader.

    Raises:
        JournalUnavailable: the broker did not answer.
    """
    stored = await rpc.get_last(link, _STREAM, _subject(kind))
    return None if stored is None else _spec(stored)


class Catalog:
    """All entries, kept up to date: a core subscription hints at changes, and every 10 s everything is read again.

    A hint is only a reason to read: core subscribers see publishes that the stream refused and miss others
    (nats-facts.md).
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reader = rpc.BatchReader(link)
        self._specs: dict[Kind, ActionSpec] = {}
        self._task: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def specs(self) -> Mapping[Kind, ActionSpec]:
        """What is known now. Known actions stay known while their runners, or the broker, are down."""
        return MappingProxyType(self._specs)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever an entry is new or different."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Read everything and go on watching.

        Raises:
            JournalError: the broker did not answer, or the bucket is missing.
        """
        await self._reader.start()
        await self._link.nc.subscribe(_ALL, cb=self._note)
        await self._refresh()
        self._task = asyncio.create_task(self._watch(), name="catalog")

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def find(self, kind: Kind) -> ActionSpec | None:
        """The entry of an action; looks at the broker before it says that there is none.

        Raises:
            JournalUnavailable: the broker did not answer, so nobody knows.
        """
        known = self._specs.get(kind)
        if known is not None:
            return known
        found = await look_up(self._link, kind)
        if found is not None:
            self._put(found)
        return found

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_REFRESH):
                    await self._hint.wait()
            except TimeoutError:
                logger.debug("time to read the catalog again")
            self._hint.clear()
            try:
                await self._refresh()
            except JournalError as error:
                logger.info("the catalog can't be read now, keeping what is known: %s", error)

    async def _note(self, _message: Msg) -> None:
        self._hint.set()

    async def _refresh(self) -> None:
        for message in await self._reader.read(_STREAM, {"multi_last": [_ALL]}):
            spec = _spec(message)
            if spec is not None:
                self._put(spec)

    def _put(self, spec: ActionSpec) -> None:
        known = self._specs.get(spec.kind)
        if known == spec or (known is not None and known.action_version > spec.action_version):
            return
        self._specs[spec.kind] = spec
        for listener in self._listeners:
            listener()


def _subject(kind: Kind) -> str:
    return subjects.bucket_subject(subjects.ACTIONS_BUCKET, subjects.action_key(kind))


def _spec(stored: rpc.StoredMessage) -> ActionSpec | None:
    try:
        return _decode(stored.data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        logger.warning("%s in the catalog is not an action, ignoring it: %s", stored.subject, error)
        return None
