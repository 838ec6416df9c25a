"""The archive on real brokers: a copy of every event, byte for byte, once and in order, whatever is killed."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import msgspec
import pytest
from nats.errors import Error as NatsError

from opstream_journal import Connection, Drifted, Journal, JournalUnavailable
from opstream_journal.jetstream.scans.stream_scan import scan_stream
from opstream_journal.provisioning.archive import ArchiveSizing, current_archive
from opstream_journal.provisioning.checks.journal_age import required_age
from opstream_journal.provisioning.provision import ProvisionReport, check_journal_age, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.action_spec import DAY_SECONDS
from opstream_schemas.events import Progressed, decode_event
from opstream_schemas.integrity.archive_subjects import (
    ARCHIVE_SOURCE_HEADER,
    parse_archive_origin,
    parse_archive_subject,
)
from tests.support.api.service import spec
from tests.support.broker.server import Broker, Cluster
from tests.support.journal.journals import KIND, begin, extend, linked, opened
from tests.support.projector.projection import LIFE, live
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

NAME = subjects.ARCHIVE_STREAM
MADE = ProvisionReport(made=(f"stream {NAME}",), updated=(), drift=())
NOTHING = ProvisionReport(made=(), updated=(), drift=())


async def api(link: Connection, what: str, request: Any = None) -> dict[str, Any]:
    answer = await link.nc.request(f"$JS.API.{what}", b"" if request is None else json.dumps(request).encode(), 5)
    decoded: dict[str, Any] = json.loads(answer.data)
    assert "error" not in decoded, decoded["error"]
    return decoded


async def bodies(link: Connection, stream: str) -> list[bytes]:
    """The events of a stream, in its order."""
    found = [one async for batch in scan_stream(link, stream) for one in batch]
    return [one.data for one in found if one.subject.split(".")[0] in {"operations", "archive"}]


async def assert_copied(link: Connection, *, within: float = 30.0) -> list[bytes]:
    """The archive gets the events of the journal, and no more."""
    wanted = await bodies(link, subjects.OPERATIONS_STREAM)

    await eventually(lambda: holds(link, len(wanted)), within=within, poll=0.1)
    assert await bodies(link, NAME) == wanted
    return wanted


async def holds(link: Connection, count: int) -> bool:
    """Return True if the archive has so many messages; False, too, without an answer."""
    try:
        return bool((await api(link, f"STREAM.INFO.{NAME}"))["state"]["messages"] >= count)
    except (TimeoutError, NatsError):
        return False


async def keep_writing(journal: Journal, stop: asyncio.Event) -> int:
    """Operations, one after the other, through whatever happens; how many."""
    for number in itertools.count():
        if stop.is_set():
            return number
        try:
            await live(journal, f"op-{number}", *LIFE)
        except JournalUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError


async def test_it_begins_with_what_is_there(link: Connection, journal: Journal) -> None:
    """An archive that is created late has all that the journal still has, without wake-ups and deadlines."""
    await live(journal, "op-1", *LIFE)
    await link.nc.jetstream().publish("fire.book.upload-start.op-1.retry", b"{}")
    await link.nc.jetstream().publish("overdue.book.upload-start.op-1", b"{}")
    await live(journal, "op-2", *LIFE)

    assert await provision(link, Sizing(), archive=ArchiveSizing()) == MADE

    assert len(await assert_copied(link)) == 2 * (len(LIFE) + 1)
    await live(journal, "op-3", started())
    assert len(await assert_copied(link)) == 2 * (len(LIFE) + 1) + 2


async def test_where_an_event_was_copied_from(link: Connection, journal: Journal) -> None:
    """The subject has action and type, the header the position in the journal."""
    await provision(link, Sizing(), archive=ArchiveSizing())
    await live(journal, "op-1", *LIFE)
    await assert_copied(link)

    stream = link.nc.jetstream()
    for sequence in range(1, len(LIFE) + 2):
        copy = await stream.get_msg(NAME, sequence)
        assert copy.data is not None
        assert copy.subject is not None
        origin = parse_archive_origin((copy.headers or {})[ARCHIVE_SOURCE_HEADER])
        original = await stream.get_msg(subjects.OPERATIONS_STREAM, origin.sequence)
        assert (original.subject, original.data) == (origin.subject, copy.data)
        assert subjects.parse_event_subject(origin.subject).kind == parse_archive_subject(copy.subject).kind
        assert decode_event(copy.data, origin.sequence).operation_id == "op-1"
    assert (await api(link, f"STREAM.INFO.{NAME}"))["state"]["num_subjects"] == len(LIFE) + 1


async def test_an_id_that_comes_again_is_copied_again(link: Connection, journal: Journal) -> None:
    """Message ids are the writers'; the archive leaves nothing out for them, as fast as it may catch up."""
    update = (await api(link, f"STREAM.INFO.{subjects.OPERATIONS_STREAM}"))["config"] | {"duplicate_window": 10**8}
    await api(link, f"STREAM.UPDATE.{subjects.OPERATIONS_STREAM}", update)
    subject = subjects.event_subject("op-1", KIND, "progressed")

    async def published(body: bytes) -> bool:
        ack = await link.nc.jetstream().publish(subject, body, headers={"Nats-Msg-Id": "same"})
        return not ack.duplicate

    assert await published(b"one")
    await eventually(lambda: published(b"two"), poll=0.05)
    await provision(link, Sizing(), archive=ArchiveSizing())

    assert await assert_copied(link) == [b"one", b"two"]


async def test_nobody_else_writes_or_removes(link: Connection, journal: Journal) -> None:
    """Neither a publish on its subjects nor a purge or a delete gets through; direct reads of the journal are right."""
    await live(journal, "op-1", *LIFE)
    await provision(link, Sizing(), archive=ArchiveSizing())
    wanted = await assert_copied(link)

    with pytest.raises(Exception, match="no response from stream"):
        await link.nc.jetstream().publish("archive.book.upload-start.failed", b"{}")
    for what, request in (("PURGE", {}), ("MSG.DELETE", {"seq": 1})):
        answer = json.loads((await link.nc.request(f"$JS.API.STREAM.{what}.{NAME}", json.dumps(request).encode())).data)
        assert answer["error"]["code"] in {400, 403, 500}
    assert await assert_copied(link) == wanted
    for _ in range(100):
        assert len(await journal.events("op-1")) == len(LIFE) + 1


async def test_a_killed_broker_goes_on_copying(broker: Broker) -> None:
    """After kill -9 under load, again and again, an archive that was made in between has every event once."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
        journal = await opened(link)
        stop = asyncio.Event()
        writing = asyncio.create_task(keep_writing(journal, stop))
        for round_ in range(3):
            before = (await api(link, "STREAM.INFO.OPERATIONS"))["state"]["last_seq"]
            await eventually(lambda before=before: grown(link, before + 100), within=20)
            if round_ == 0:
                await provision(link, Sizing(), archive=ArchiveSizing())
            broker.kill()
            broker.start()
            await eventually(lambda: holds(link, 0), within=20, poll=0.1)
        stop.set()
        assert await writing > 20
        assert await provision(link, Sizing(), archive=ArchiveSizing()) == NOTHING
        await assert_copied(link, within=40)


async def grown(link: Connection, sequence: int) -> bool:
    return bool((await api(link, "STREAM.INFO.OPERATIONS"))["state"]["last_seq"] >= sequence)


async def test_replicas_that_are_killed_go_on_copying(cluster: Cluster, cluster_link: Connection) -> None:
    """The next leader of the archive neither repeats nor leaves out a message."""
    journal = await opened(cluster_link)
    await provision(cluster_link, Sizing(replicas=3), archive=ArchiveSizing())
    operation = await begin(journal, "op-1")
    operation = await extend(journal, operation, started(), *(Progressed(percent=float(n)) for n in range(50)))
    node = await cluster.leader(NAME)
    node.kill()
    names = (f"other-{number}" for number in itertools.count())
    await eventually(lambda: can_begin(journal, next(names)), within=40, poll=0.2)
    node.start()
    cluster.wait_healthy()
    await extend(journal, operation, *(Progressed(percent=float(n)) for n in range(50, 90)))

    await assert_copied(cluster_link, within=60)


async def can_begin(journal: Journal, operation_id: str) -> bool:
    try:
        await begin(journal, operation_id)
    except JournalUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("change", "is_safe"),
    [({"max_age": 365 * 86_400 * 10**9}, True), ({"compression": "none"}, True), ({"duplicate_window": 10**9}, True)],
    ids=["max_age", "compression", "duplicate_window"],
)
async def test_an_archive_that_differs(link: Connection, change: dict[str, Any], is_safe: bool) -> None:
    """It is compared like every other stream, and what is safe can be applied."""
    await provision(link, Sizing(), archive=ArchiveSizing())
    config = (await api(link, f"STREAM.INFO.{NAME}"))["config"] | change
    await api(link, f"STREAM.UPDATE.{NAME}", config)

    found = await provision(link, Sizing(), archive=ArchiveSizing())
    assert [(one.field, one.is_safe) for one in found.drift] == [(next(iter(change)), is_safe)]
    assert len((await provision(link, Sizing(), archive=ArchiveSizing(), is_update=True)).updated) == 1
    assert await provision(link, Sizing(), archive=ArchiveSizing()) == NOTHING


async def test_an_archive_stays(link: Connection) -> None:
    """`provision` without an archive option keeps the archive that is there, and returns its configuration."""
    assert await current_archive(link) is None
    await provision(link, Sizing(), archive=ArchiveSizing(max_age=60 * DAY_SECONDS))
    assert await provision(link, Sizing()) == NOTHING
    assert await current_archive(link) == ArchiveSizing(max_age=60 * DAY_SECONDS)


@pytest.mark.parametrize(
    ("journal_age", "archive_age"),
    [(30 * DAY_SECONDS, 30 * DAY_SECONDS), (30 * DAY_SECONDS, 3 * DAY_SECONDS), (0.0, 9 * DAY_SECONDS)],
)
async def test_an_archive_that_forgets_first_is_refused(
    link: Connection, journal_age: float, archive_age: float
) -> None:
    """Nothing is made or changed."""
    with pytest.raises(Drifted, match="--archive-max-age must be longer than the journal's"):
        await provision(link, Sizing(max_age=journal_age), archive=ArchiveSizing(max_age=archive_age))
    assert await current_archive(link) is None


async def test_a_runner_whose_failures_outlive_the_journal_is_refused(link: Connection) -> None:
    """The longest retention counts; the message says what to run."""
    action = spec(retention=7 * DAY_SECONDS, retention_failed=90 * DAY_SECONDS)
    with pytest.raises(Drifted, match=r"longest retention \(90d\) .* 92d, .* for 30d only: .* --max-age 92d$"):
        await check_journal_age(link, [action])
    await provision(link, Sizing(max_age=required_age([action])), [action], is_update=True)
    await check_journal_age(link, [action])
    assert required_age([action, msgspec.structs.replace(action, action="other")]) == 92 * DAY_SECONDS
