"""The stage of one operation: a broker in memory, and runners on it that live one after the other.

A runner that dies is frozen: its code gets no exception, and never runs again, neither `except` nor `finally`. What
the action has done to the world outside, such as a fake bank of the test, stays done.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Final

import msgspec

from opstream.testing.broker.memory_broker import MemoryBroker
from opstream.testing.broker.memory_payloads import MemoryPayloads
from opstream.testing.virtual_time import VirtualClock, VirtualLoop
from opstream_journal.jetstream.rpc import expected_version_headers
from opstream_journal.provisioning.topology import INLINE_LIMIT
from opstream_runner import Action
from opstream_runner.handler.handler_thread import handler_thread_name
from opstream_schemas import subjects
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.events import RecordedEvent, Requested, WaitBegun, decode_event, encode_event
from opstream_schemas.operation.fold import first_event

from .children import ChildRun, Family
from .crash_moment import Plan
from .runner_life import RunnerLife
from .signals import Signal, SignalSender

logger = logging.getLogger(__name__)

_SOURCE: Final = "opstream/api"
_FILE: Final = "application/octet-stream"
_END_TIMEOUT: Final = 0.5
"""Seconds that tasks have to end which the handler left behind."""

_frozen: Final[list[object]] = []
"""The tasks of dead runners. Were they collected, Python would run the `finally` of their code."""
_dead_threads: Final[set[threading.Thread]] = set()
"""Threads of dead runners, in which plain handlers wait for ever for a record. Nobody waits for these."""


class Stage:
    """One operation, from its request to its end.

    Args:
        action: the action.
        operation_id: of the operation.
        clock: the time.
        plan: when a runner dies, and when a client cancels.
        signals: what is sent to it.
        children: see `Family`.
        store: that of its parent, whose runner reads its large result; None for one of its own.
    """

    def __init__(
        self,
        action: Action[Any, Any],
        operation_id: str,
        clock: VirtualClock,
        plan: Plan,
        signals: Iterable[Signal] = (),
        children: Mapping[str, object] = MappingProxyType({}),
        store: MemoryPayloads | None = None,
    ) -> None:
        self.store = store or MemoryPayloads()
        self._action = _alone(action)
        self._id = operation_id
        self._clock = clock
        self._plan = plan
        self._broker = MemoryBroker(clock, action.spec.policy.lease)
        self._signals = SignalSender(signals, clock)
        self._given = children
        self._family = Family(action, children, self._broker, lambda: self.events, self._play_child)
        self._numbers = itertools.count(1)
        self._lives = itertools.count(1)
        self._handler_threads = handler_thread_name(action.kind, operation_id)

    def request(self, data: Requested, uploads: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Store the request, as the API does, behind the files that its client has uploaded.

        Args:
            data: the request.
            uploads: files by name.
        """
        files = tuple(
            Attachment(file_name=name, media_type=_FILE, payload=self.store.keep(self._id, content))
            for name, content in uploads.items()
        )
        data = msgspec.structs.replace(data, uploads=files)
        if isinstance(data.input, msgspec.Raw) and len(document := bytes(data.input)) > INLINE_LIMIT:
            payload = self.store.keep(self._id, document)
            data = msgspec.structs.replace(data, input=msgspec.UNSET, input_payload=payload)
        event = first_event(self._id, data, id=self._new_id(), source=_SOURCE, time=self._clock.now())
        subject = subjects.event_subject(self._id, self._action.kind, data.name)
        headers = expected_version_headers(subjects.operation_filter(self._id), 0)
        self._broker.publish(subject, encode_event(event), headers)

    def play(self) -> None:
        """Play until the operation has ended and no message is left. When its runner dies, another one goes on."""
        while not self._live_once():
            logger.info("the runner of operation %s died %s", self._id, self._plan.crashed)
        self._family.check()
        if self._plan.canceled is None:
            self._signals.check_used(one.data.wait for one in self.events if isinstance(one.data, WaitBegun))

    @property
    def children(self) -> tuple[ChildRun, ...]:
        """The children that were begun, in order."""
        return self._family.runs

    @property
    def events(self) -> tuple[RecordedEvent, ...]:
        """The events so far."""
        own = subjects.operation_filter(self._id).removesuffix(">")
        found = (one for one in self._broker.messages if one.subject.startswith(own))
        return tuple(decode_event(one.data, one.seq, one.subject) for one in found)

    def _play_child(
        self, action: Action[Any, Any], operation_id: str, clock: VirtualClock, data: Requested
    ) -> tuple[RecordedEvent, ...]:
        stage = Stage(action, operation_id, clock, Plan(), children=self._given, store=self.store)
        stage.request(data)
        # This thread's loop runs, and stands still meanwhile; the child has a loop, and so a thread, of its own.
        with ThreadPoolExecutor(1, thread_name_prefix="opstream child") as pool:
            pool.submit(stage.play).result()
        return stage.events

    def _new_id(self) -> str:
        return f"{self._id}-{next(self._numbers)}"

    def _live_once(self) -> bool:
        """Play with one runner. Return False if it died."""
        loop = VirtualLoop(self._clock, self._is_awaited)
        life = RunnerLife(
            self._broker,
            self._plan,
            self._signals,
            self._family,
            self.store,
            self._action,
            self._id,
            name=f"runner-{next(self._lives)}",
            new_id=self._new_id,
            loop=loop,
        )
        try:
            playing = loop.create_task(life.play())
            playing.add_done_callback(lambda _: loop.stop())
            while not playing.done() and not life.is_dead:
                try:
                    loop.run_forever()
                except SystemExit as error:  # of a task that the handler began; a runner survives it, too
                    logger.warning("a task or callback of the handler raised %r, which ends nothing else", error)
            if life.is_dead:
                self._freeze(loop)
            else:
                playing.result()
                loop.run_until_complete(_end_tasks())
        finally:
            loop.close()
        return not life.is_dead

    def _is_awaited(self, thread: threading.Thread) -> bool:
        return thread.name == self._handler_threads and thread not in _dead_threads

    def _freeze(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - documented as internal; a dead runner's task never ends, on purpose
        _frozen.append(tasks)
        _dead_threads.update([one for one in threading.enumerate() if self._is_awaited(one)])


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END_TIMEOUT)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _alone(action: Action[Any, Any]) -> Action[Any, Any]:
    """Return the action as it runs when there is no other operation, and in this process."""
    policy = msgspec.structs.replace(
        action.spec.policy, isolation="none", max_concurrency=0, exclusive="", exclusive_group="", rate=""
    )
    spec = msgspec.structs.replace(action.spec, policy=policy)
    return Action(action.handler, spec, action.input_type, action.result_type, action.upcast)
