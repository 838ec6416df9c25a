"""Requests and their answers, over one inbox for all requests of a connection.

nats-py's own `request` makes a random inbox and a timer task each time, which took a fifth of the runner's processor
time (docs/performance.md). Its wait (`asyncio.wait_for`) also loses, before Python 3.12, a cancellation that arrives
together with the answer: the cancelled task would wait for ever.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

_NO_RESPONDERS: Final = "503"


class RequestInbox:
    """The open requests of one connection.

    Args:
        nc: the connection.
    """

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._prefix = f"{nc.new_inbox()}."
        self._numbers = itertools.count()
        self._pending: dict[str, asyncio.Future[Msg]] = {}
        self._lock = asyncio.Lock()
        self._is_subscribed = False

    async def request(self, subject: str, payload: bytes, headers: dict[str, str] | None, seconds: float) -> Msg:
        """Send a request and return its answer.

        Raises:
            TimeoutError: no answer came within `seconds`.
            nats.errors.Error: nothing subscribes to `subject`, the request was not sent, or the connection was lost.
        """
        if not self._is_subscribed:
            await self._subscribe()
        loop = asyncio.get_running_loop()
        number = str(next(self._numbers))
        answer: asyncio.Future[Msg] = loop.create_future()
        self._pending[number] = answer
        timer = loop.call_later(seconds, _expire, answer)
        try:
            await self._nc.publish(subject, payload, reply=self._prefix + number, headers=headers)
            message = await answer
        finally:
            timer.cancel()
            del self._pending[number]
        if message.headers is not None and message.headers.get("Status") == _NO_RESPONDERS:
            raise nats.errors.NoRespondersError
        return message

    def fail_all(self) -> None:
        """Fail all open requests: the connection was lost, so they are not answered any more."""
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(nats.errors.ConnectionReconnectingError())

    async def _subscribe(self) -> None:
        async with self._lock:
            if not self._is_subscribed:
                await self._nc.subscribe(f"{self._prefix}*", cb=self._receive)
                self._is_subscribed = True

    async def _receive(self, message: Msg) -> None:
        answer = self._pending.get(message.subject[len(self._prefix) :])
        if answer is not None and not answer.done():
            answer.set_result(message)


def _expire(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
