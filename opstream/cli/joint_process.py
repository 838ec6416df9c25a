"""Several services in one process and one event loop, each with a connection to the broker and health of its own.

They know nothing of each other: what one of them can do to another is take its time. If one can't do its job, all end,
as the processes of `opstream up` do.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from opstream.local.processes import CLOSE_SIGNAL
from opstream.terminal import logs
from opstream.terminal.console import CommandError

if TYPE_CHECKING:
    from opstream_journal.runtime.service import Serve

logger = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class JointService(NamedTuple):
    """One service of a process that has several."""

    name: str
    """Begins each line of its log."""
    serve: Serve
    on_hangup: Callable[[], None] | None = None
    """Called for each SIGHUP."""
    renamed: Mapping[str, str] = MappingProxyType({})
    """Options that the service's errors name, and their names in the joint command."""


async def serve_together(services: Sequence[JointService]) -> None:
    """Run services until SIGTERM or SIGINT, or until one of them ends; then stop them one after another, in this order.

    `CLOSE_SIGNAL` stops only the first one.

    Raises:
        CommandError: a service can't do its job; the message names it, and says why and what to do.
    """
    loop = asyncio.get_running_loop()
    signaled = asyncio.Event()
    stops = [asyncio.Event() for _ in services]
    for number in _SIGNALS:
        loop.add_signal_handler(number, signaled.set)
    loop.add_signal_handler(CLOSE_SIGNAL, stops[0].set)
    loop.add_signal_handler(signal.SIGHUP, _hang_up, services)
    tasks = [
        asyncio.create_task(_serve(service, stop), name=service.name, context=_named_context(service.name))
        for service, stop in zip(services, stops, strict=True)
    ]
    await _wait_for_end(tasks, stops, signaled)
    for task, stop in zip(tasks, stops, strict=True):
        stop.set()
        await asyncio.wait([task])
    _raise_failures([error for task in tasks if (error := task.exception()) is not None])


def _raise_failures(errors: Sequence[BaseException]) -> None:
    """Raise the first error, and log those that have another reason."""
    for error in errors[1:]:
        if str(error).partition(": ")[2] != str(errors[0]).partition(": ")[2]:
            is_bug = not isinstance(error, CommandError)
            logger.error("%s", error, exc_info=error if is_bug else None)
    if errors:
        raise errors[0]


async def _serve(service: JointService, stop: asyncio.Event) -> None:
    from opstream_journal import JournalError

    try:
        await service.serve(stop)
    except JournalError as error:
        text = str(error)
        for own, joint in service.renamed.items():
            text = text.replace(own, joint)
        raise CommandError(f"{service.name}: {text}") from error
    if not stop.is_set():
        raise CommandError(f"{service.name}: it ended without an error")


async def _wait_for_end(
    tasks: Sequence[asyncio.Task[None]], stops: Sequence[asyncio.Event], signaled: asyncio.Event
) -> None:
    """Return after the signal, or once a service has ended that was not asked to."""
    stopping = asyncio.create_task(signaled.wait(), name="signal")
    pending: set[asyncio.Task[object]] = {stopping, *tasks}
    while True:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        has_ended = any(
            task.done() and (task.exception() is not None or not stop.is_set())
            for task, stop in zip(tasks, stops, strict=True)
        )
        if stopping.done() or has_ended:
            stopping.cancel()
            return


def _named_context(name: str) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(logs.name_service, name)
    return context


def _hang_up(services: Sequence[JointService]) -> None:
    for service in services:
        if service.on_hangup is not None:
            _named_context(service.name).run(service.on_hangup)
