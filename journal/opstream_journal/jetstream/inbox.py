"""Requests and their answers, over one inbox for all requests of a connection.

nats-py's own `request` makes a random inbox and a timer task each time, which took a fifth of the runner's processor
time (docs/performance.md). Its wait (`asyncio.wait_for`) also loses, before Python 3.12, a cancellation that arrives
together with the answer: the cancelled task would wait for ever.

Any subscriber of a request's subject may answer it, too, and often does so first. An answer that is not the expected
one is ignored.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Final

import nats.errors

from opstream_journal.wire.denials import Denials
from opstream_journal.wire.fast_parser import FastParser
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_journal.wire.sender import Sender

logger = logging.getLogger(__name__)

_NO_RESPONDERS: Final = "503"
_LOOK_INTERVAL: Final = 0.05
"""Seconds between two looks for requests whose time is over. A timer for each request costs more than the look."""

AnswerCheck = Callable[[ReceivedMessage], bool]
"""Returns True if a message is the answer that a request waits for."""


class _OpenRequest:
    __slots__ = ("answer", "is_answer", "subject", "until")

    def __init__(
        self, subject: str, answer: asyncio.Future[ReceivedMessage], is_answer: AnswerCheck, until: float
    ) -> None:
        self.subject = subject
        self.answer = answer
        self.is_answer = is_answer
        self.until = until


class RequestInbox:
    """The open requests of one connection.

    Args:
        parser: reads from the connection.
        sender: publishes over it.
        denials: get the subjects on which nothing answers.
    """

    def __init__(self, parser: FastParser, sender: Sender, denials: Denials) -> None:
        self._parser = parser
        self._sender = sender
        self._denials = denials
        self._prefix = f"{parser.nc.new_inbox()}."
        self._numbers = itertools.count()
        self._pending: dict[str, _OpenRequest] = {}
        self._next_look: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()
        self._is_subscribed = False
        self._has_warned = False

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, seconds: float, is_answer: AnswerCheck
    ) -> ReceivedMessage:
        """Send a request and return the first message to it that is an answer.

        Raises:
            TimeoutError: no answer came within `seconds`.
            nats.errors.Error: nothing subscribes to `subject`, the request was not sent, or the connection was lost.
        """
        if not self._is_subscribed:
            await self._subscribe()
        loop = asyncio.get_running_loop()
        number = str(next(self._numbers))
        answer: asyncio.Future[ReceivedMessage] = loop.create_future()
        self._pending[number] = _OpenRequest(subject, answer, is_answer, loop.time() + seconds)
        if self._next_look is None:
            self._next_look = loop.call_later(_LOOK_INTERVAL, self._expire_overdue)
        try:
            self._sender.send(subject, payload, reply=self._prefix + number, headers=headers)
            return await answer
        finally:
            del self._pending[number]

    def fail_all(self) -> None:
        """Fail all open requests: the connection was lost, so they are not answered any more."""
        for waiting in self._pending.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(nats.errors.ConnectionReconnectingError())

    def _expire_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for waiting in self._pending.values():
            if waiting.until <= now and not waiting.answer.done():
                waiting.answer.set_exception(TimeoutError())
        self._next_look = loop.call_later(_LOOK_INTERVAL, self._expire_overdue) if self._pending else None

    async def _subscribe(self) -> None:
        async with self._lock:
            if not self._is_subscribed:
                await self._parser.subscribe(f"{self._prefix}*", self._receive)
                self._is_subscribed = True

    def _receive(self, message: ReceivedMessage) -> None:
        waiting = self._pending.get(message.subject[len(self._prefix) :])
        if waiting is None or waiting.answer.done():
            return
        if message.status == _NO_RESPONDERS:
            self._denials.add(waiting.subject)
            waiting.answer.set_exception(nats.errors.NoRespondersError())
        elif waiting.is_answer(message):
            waiting.answer.set_result(message)
        elif not self._has_warned:
            self._has_warned = True
            logger.warning(
                "another client or stream answers requests on %s, which only JetStream's own stream may answer; its "
                "answers are ignored. If it is a FastStream subscriber, give it no_reply=True; if it is a stream of "
                "another JetStream (a leaf node), give that other subjects",
                waiting.subject,
            )
