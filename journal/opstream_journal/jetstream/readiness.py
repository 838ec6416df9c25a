"""The steps of a service's start, repeated while the broker is not usable yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from opstream_journal.errors import BrokerUnreachable, JournalUnavailable, NoLeader
from opstream_journal.missing_leader import explain_unavailable

from .connection import Connection

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_START_RETRY_DELAY: Final = 0.25
_LEAST_TRY: Final = 0.5
"""Seconds for a step of a start whose time is over."""


async def retry_until_ready(connection: Connection, step: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """Do a step of a service's start, and again while the broker is away or has no leader.

    A broker that restarts, or a cluster that boots, accepts connections before it can be used.

    Args:
        connection: the connection.
        step: the step; it must be repeatable.
        seconds: for connecting and all steps together, counted from the creation of `connection`.

    Raises:
        BrokerUnreachable: the time is over.
        JournalError: any other error of `step`, at once.
    """
    loop = asyncio.get_running_loop()
    until = connection.created_at + seconds
    last: JournalUnavailable | None = None
    while True:
        try:
            # A call without answer takes seconds, and a step makes many: the time ends it in the middle.
            async with asyncio.timeout(max(_LEAST_TRY, until - loop.time())) as limit:
                return await step()
        except JournalUnavailable as error:
            if last is None:
                logger.warning("the broker is not usable yet, retrying for %.3g s: %s", until - loop.time(), error)
            if not isinstance(last, NoLeader) or isinstance(error, NoLeader):  # which says more than a lost answer
                last = error
        except TimeoutError as error:
            if not limit.expired():
                raise
            last = last or _unanswered(error)
        left = until - loop.time()
        if left <= 0:
            why = (
                await explain_unavailable(connection.nc, last)
                if connection.is_connected
                else f"{last}; its own log may say why"
            )
            raise BrokerUnreachable(f"the broker could not be used within {seconds:g} s: {why}") from last
        await (
            connection.sleep(min(left, _START_RETRY_DELAY))
            if connection.is_connected
            else connection.wait_connected(left)
        )


def _unanswered(cause: TimeoutError) -> JournalUnavailable:
    error = JournalUnavailable("it answered nothing", maybe_stored=False)
    error.__cause__ = cause
    return error
