"""Other subscribers that answer requests to JetStream: their answers are ignored, whatever is in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from opstream_journal import NEW_OPERATION, Connection, ExpectedVersion, Journal, JournalUnavailable, SnapshotStore
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_publish import BatchMessage, publish_batch
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.stores.timers import cancel_timers
from opstream_schemas import subjects
from opstream_schemas.events import Failed, OperationError
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, first, following
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

_REQUEST: Final = re.compile(rb"H?MSG (\S+) 1 (_INBOX\S+) [\d ]+\r\n")
ANSWERS: Final = [
    b"",
    b"{}",
    b'{"seq":7}',
    b"+OK",
    b"\xff",
    b'{"stream":"EDGE","domain":"leaf","seq":999999}',
    b'{"error":{"code":400,"err_code":10174,"description":"batch publish is disabled"},"stream":"EDGE","seq":0}',
    b'{"error":{"code":400,"message":"bad"}}',
    b'{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}',
]
"""What another subscriber may answer: FastStream's is empty, another JetStream's is of its own stream."""


class Meddler(threading.Thread):
    """Another client of the broker, which answers what is published on a subject: faster than JetStream, which syncs.

    Args:
        port: of the broker.
        subject: what it subscribes to.
        answers: what it answers, one after the other.
    """

    def __init__(self, port: int, subject: str, answers: Sequence[bytes]) -> None:
        super().__init__(daemon=True)
        self.asked: list[str] = []
        self._answers = answers
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b'CONNECT {"verbose":false,"headers":true}\r\nSUB %s 1\r\nPING\r\n' % subject.encode())
        self._received = b""
        while b"PONG\r\n" not in self._received:
            self._received += self._socket.recv(65_536)

    def run(self) -> None:
        """Answer until `close`."""
        with contextlib.suppress(OSError):
            self._answer()

    def _answer(self) -> None:
        done = 0
        while chunk := self._socket.recv(65_536):
            self._received += chunk
            for request in _REQUEST.finditer(self._received, done):
                done = request.end()
                self.asked.append(request[1].decode())
                self._socket.sendall(
                    b"".join(b"PUB %s %d\r\n%s\r\n" % (request[2], len(one), one) for one in self._answers)
                )

    def close(self) -> None:
        """Leave."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self._socket.close()


@contextlib.contextmanager
def meddling(broker: Broker, subject: str, *answers: bytes) -> Iterator[Meddler]:
    """Run another client of the broker that answers what is published on a subject."""
    meddler = Meddler(broker.port, subject, answers or ANSWERS)
    meddler.start()
    try:
        yield meddler
    finally:
        meddler.close()


@pytest.mark.parametrize("answer", ANSWERS)
async def test_appends(broker: Broker, journal: Journal, answer: bytes) -> None:
    """An append waits for JetStream's answer: it returns the true sequence, publishes once, and reads nothing."""
    with meddling(broker, ">", answer) as meddler:
        for number in range(20):
            begun = await journal.append(KIND, first(f"op-{number}"), NEW_OPERATION, budget=10)
            assert begun.sequence == number + 1
        await eventually(lambda: len(meddler.asked) >= 20)  # the broker need not hurry to send it its copies
    subject = "operations.op-{}.book.upload-start.requested"
    assert meddler.asked == [subject.format(number) for number in range(20)]


async def test_who_records_a_failure(broker: Broker, journal: Journal) -> None:
    """The outcome that runners are notified of is stored by one publish, too."""
    operations = [await begin(journal, f"op-{number}") for number in range(10)]
    failed = Failed(error=OperationError(code="Late", message="too late"))
    with meddling(broker, ">") as meddler:
        for operation in operations:
            await journal.append(
                KIND, following(operation, failed), ExpectedVersion(operation.stream_sequence), budget=10
            )
        await eventually(lambda: len(meddler.asked) >= 10)
    assert [subject.rpartition(".")[2] for subject in meddler.asked] == ["failed"] * 10


async def test_only_foreign_answers(broker: Broker, link: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """Where only another subscriber answers, a publish is not taken for stored, and the log says why, once."""
    with meddling(broker, "nowhere.>") as meddler:
        for _ in range(2):
            with pytest.raises(JournalUnavailable, match=r"no answer on nowhere\.to\.be\.found"):
                await rpc.publish(link, "nowhere.to.be.found", b"", {}, timeout=0.3)
    assert len(meddler.asked) == 2
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    (warning,) = [one for one in warnings if "nowhere.to.be.found" in one]
    assert "which only JetStream's own stream may answer" in warning
    assert "give it no_reply=True" in warning


async def test_calls_of_the_api(broker: Broker, link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Reads, batches and administration get JetStream's answers although a subscriber of everything answers first."""
    operation = await begin(journal, "op-1")
    with meddling(broker, ">") as meddler:
        for _ in range(10):
            assert [event.position for event in await journal.events("op-1")] == [1]
            assert (await admin.stream_config(link, subjects.TIMERS_STREAM)) is not None
            assert (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last == 1
            assert (await view.get("op-1")).operation is None
            assert (await view.get_newest("op-1")).operation is None
            await cancel_timers(link, "op-1")
        revision = await view.put(operation, 0)
        assert revision == 1
        assert (await view.get("op-1")).revision == 1
        subject = subjects.bucket_subject(subjects.VIEW_BUCKET, "more")
        assert await publish_batch(link, [BatchMessage(subject, b"1", {}), BatchMessage(subject, b"2", {})]) == range(
            2, 4
        )
        assert meddler.asked


async def test_racing_writers(broker: Broker, journal: Journal) -> None:
    """With answers from elsewhere, of writers that race one wins."""
    operation = await begin(journal, "op-1")
    version = ExpectedVersion(operation.stream_sequence)
    with meddling(broker, "operations.>"):
        results = await asyncio.gather(
            *(journal.append(KIND, following(operation, started()), version, budget=10) for _ in range(4)),
            return_exceptions=True,
        )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
