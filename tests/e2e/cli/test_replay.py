"""`opstream replay`, `audit` and `export` as processes, on a broker without any service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from pyarrow import parquet

from opstream_journal import Journal
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.events import RecordedEvent
from tests.support.broker.server import Broker
from tests.support.cli.terminal import Terminal
from tests.support.journal.journals import linked, opened
from tests.support.journal.populated_journal import KINDS, populate, record
from tests.support.system.processes import COMMAND, Process, environment, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

LARGE: Final = 100_000
_FEW: Final = 6
"""Open files of a process that has no connection yet."""


def with_journal(broker: Broker, work: Callable[[Journal], Awaitable[Any]]) -> Any:
    """Do something with a journal on the broker."""

    async def connected() -> Any:
        async with linked(broker.url) as link:
            await provision(link, Sizing())
            return await work(await opened(link))

    return asyncio.run(connected())


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="module")
def events(broker: Broker) -> list[RecordedEvent]:
    """The events of twelve operations, which the broker holds."""
    return with_journal(broker, lambda journal: populate(journal, 12))


def replay(broker: Broker, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return run("replay", "--nats", broker.url, *arguments)


def test_cloudevents(broker: Broker, events: list[RecordedEvent]) -> None:
    """It prints one stored event per line, byte for byte, and at the end where to continue."""
    result = replay(broker)
    assert (result.returncode, result.stdout.encode()) == (0, b"".join(event.stored + b"\n" for event in events))
    last = events[-1].sequence
    assert result.stderr == f"opstream: {len(events)} events; go on with --from-sequence {last + 1}\n"
    assert replay(broker, "--from-sequence", str(last + 1)).stdout == ""


def test_records(broker: Broker, events: list[RecordedEvent]) -> None:
    """Each line has the sequence, time and subject under which the broker stored the event, and the event itself."""
    found = [json.loads(line) for line in replay(broker, "--format", "records").stdout.splitlines()]
    assert [one["sequence"] for one in found] == [event.sequence for event in events]
    assert [one["event"] for one in found] == [json.loads(event.stored) for event in events]
    assert found[0]["subject"] == "operations.op-0.book.upload-start.requested"
    assert datetime.fromisoformat(found[0]["storedAt"]) >= events[0].time
    since = replay(broker, "--format", "records", "--since", found[5]["storedAt"].replace("Z", "+00:00"))
    assert since.stdout.splitlines()[0].startswith(f'{{"sequence":{found[5]["sequence"]},')


def test_table(broker: Broker, events: list[RecordedEvent]) -> None:
    """The table has a heading, and one line for each event."""
    result = replay(broker, "--format", "table", "--operation", "op-1")
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == ["sequence", "stored", "(UTC)", "operation", "pos", "action", "event", "what"]
    assert [row.split()[6] for row in rows] == ["requested", "started", "attempt-failed", "started", "failed"]
    assert "ClientOutOfDate: update the client" in rows[-1]


def test_table_on_a_terminal(broker: Broker, events: list[RecordedEvent]) -> None:
    """No line reaches the edge of the terminal; on a narrow one the operation has a line of its own."""
    for columns, operations in ((80, r"^    op-1 "), (250, r"^ +\d+  \S+ \S+  op-1 ")):
        with Terminal("replay", "--nats", broker.url, "--operation", "op-1", columns=columns) as terminal:
            assert terminal.wait(10) == 0
            shown = re.sub(r"\x1b\[\d*m", "", terminal.output).splitlines()
        assert sum(bool(re.match(operations, line)) for line in shown) == 5
        assert all(len(line) < columns for line in shown)


def test_each_part_continues_where_the_last_one_ended(broker: Broker, events: list[RecordedEvent]) -> None:
    """With the sequence that is printed at the end, the parts make up the whole."""
    filters = ("--action", "book:*", "--type", "failed,succeeded", "--format", "records")
    whole = replay(broker, *filters).stdout.splitlines()
    first = replay(broker, *filters, "--until", json.loads(whole[len(whole) // 2])["storedAt"])
    reported = re.search(r"--from-sequence (\d+)", first.stderr)
    assert reported
    rest = replay(broker, *filters, "--from-sequence", reported[1])
    assert first.stdout.splitlines() + rest.stdout.splitlines() == whole
    assert first.stdout
    assert rest.stdout


def test_a_reader_that_closes_the_pipe(broker: Broker, events: list[RecordedEvent]) -> None:
    """A reader that closes the pipe ends the command at once, without output and with status 0."""
    command = [*COMMAND, "replay", "--nats", broker.url, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == events[0].stored + b"\n"
        process.stdout.close()
        with_journal(broker, lambda journal: record(journal, "late", KINDS[0]))
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


def test_a_full_disk(broker: Broker, events: list[RecordedEvent]) -> None:
    """Output that can't be written is an error of one line."""
    command = [*COMMAND, "replay", "--nats", broker.url]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert result.returncode == 1
    assert result.stderr == "opstream: error: standard output can't be written to: No space left on device\n"


def test_a_key_without_its_public_half(tmp_path: Path) -> None:
    """If the public key can't be printed, no private key is left: it would never be overwritten."""
    command = [*COMMAND, "keygen", str(tmp_path / "key")]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert result.returncode == 2
    assert result.stderr == (
        "opstream: error: the public key can't be printed (No space left on device), so none was made\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_following_until_an_interrupt() -> None:
    """With --follow new events are printed as they are recorded, also after the broker was killed. Ctrl-C ends the
    command with 130, and the sequence that it prints continues with the rest."""
    with Broker() as broker:
        first = with_journal(broker, lambda journal: populate(journal, 2))
        with Process("replay", "--nats", broker.url, "--follow") as process:
            process.wait_for(re.escape(first[-1].id))
            broker.kill()
            broker.start()
            more = with_journal(broker, lambda journal: populate(journal, 2, begin=2))
            process.wait_for(re.escape(more[-1].id))
            process.send(signal.SIGINT)
            assert process.wait(10) == 130
            lines = [line for line in process.output.splitlines() if line.startswith("{")]
        assert lines == [event.stored.decode() for event in first + more]
        reported = re.search(r"interrupted after (\d+) events; go on with --from-sequence (\d+)\n", process.output)
        assert reported, process.output
        assert (int(reported[1]), int(reported[2])) == (len(lines), more[-1].sequence + 1)
        rest = with_journal(broker, lambda journal: populate(journal, 2, begin=4))
        assert replay(broker, "--from-sequence", reported[2]).stdout == "".join(
            f"{event.stored.decode()}\n" for event in rest
        )


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[Broker, list[RecordedEvent]]]:
    """A broker with more events than fit into the memory of the command, and the events."""
    with Broker() as broker:
        events = with_journal(broker, _fill_with_large_events)
        yield broker, sorted(events, key=lambda event: event.sequence)


def test_an_interrupt_while_stdout_is_not_read(large: tuple[Broker, list[RecordedEvent]]) -> None:
    """Ctrl-C ends the command also while it is blocked in a write; continuing repeats some events, and loses none."""
    broker, expected = large
    command = [*COMMAND, "replay", "--nats", broker.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout
        assert process.stderr
        taken = [process.stdout.readline() for _ in range(len(expected) // 3)]
        _wait_blocked(process.pid)
        process.send_signal(signal.SIGINT)
        reported = re.search(rb"--from-sequence (\d+)", process.stderr.readline())
        assert process.wait(10) == 130
        taken += process.stdout.readlines()
    assert reported
    whole = [line for line in taken if line.endswith(b"\n")]
    assert int(reported[1]) <= expected[len(whole) - 1].sequence + 1
    rest = replay(broker, "--from-sequence", reported[1].decode()).stdout.encode().splitlines()
    assert rest == [event.stored for event in expected if event.sequence >= int(reported[1])]


def test_a_message_that_is_not_an_event() -> None:
    """It is reported and skipped, and the exit status is 1, as that of an audit."""
    with Broker() as broker:
        with_journal(broker, lambda journal: populate(journal, 1))

        async def spoil() -> None:
            async with linked(broker.url) as link:
                await link.nc.jetstream().publish("operations.op-0.book.upload-start.failed", b"\x00garbage")

        asyncio.run(spoil())
        result = replay(broker)
        assert (result.returncode, len(result.stdout.splitlines())) == (1, 4)
        reported, summary, error = result.stderr.splitlines()
        assert reported.startswith("opstream: sequence 5 is skipped: ")
        assert summary == "opstream: 4 events; go on with --from-sequence 6"
        assert error == "opstream: error: not everything was printed: 1 message skipped (not an event)"
        audited = run("audit", "--nats", broker.url, "op-0")
        assert audited.returncode == 1
        assert "foreign     1 messages are not events of it" in audited.stdout


def test_memory_is_flat(large: tuple[Broker, list[RecordedEvent]], tmp_path: Path) -> None:
    """A reader that pauses does not fill the memory of the command, and gets everything in the end."""
    broker, events = large
    size = sum(len(event.stored) for event in events)
    idle = _peak(broker, 0, "--type", "canceled")
    assert _peak(broker, len(events)) - idle < size / 2
    path = tmp_path / "large.parquet"
    assert run("export", "--nats", broker.url, str(path)).returncode == 0
    assert parquet.ParquetFile(path).metadata.num_rows == len(events)
    assert parquet.ParquetFile(path).num_row_groups > 1


async def _fill_with_large_events(journal: Journal) -> list[RecordedEvent]:
    large = msgspec.Raw(b'{"x":"%s"}' % (b"x" * LARGE))

    async def some(worker: int) -> list[RecordedEvent]:
        return [event for n in range(150) for event in await record(journal, f"op-{worker}-{n}", KINDS[0], input=large)]

    return [event for part in await asyncio.gather(*map(some, range(8))) for event in part]


def _wait_blocked(pid: int) -> None:
    """Wait until a process with a connection stops receiving."""
    folder = Path(f"/proc/{pid}")
    received = [-2, -1]

    def is_blocked() -> bool:
        files = len(list((folder / "fd").iterdir()))
        received.append(int((folder / "io").read_text().split()[1]))
        return files > _FEW and received[-1] == received[-2] == received[-3]

    asyncio.run(eventually(is_blocked, within=20, poll=0.2))


def _peak(broker: Broker, lines: int, *arguments: str) -> int:
    """The most bytes of memory that a replay used whose reader pauses until it is blocked."""
    command = [*COMMAND, "replay", "--nats", broker.url, "--follow", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()) as process:
        assert process.stdout
        _wait_blocked(process.pid)
        for _ in range(lines):
            assert process.stdout.readline().startswith(b'{"specversion"')
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak
    return int(peak[1]) * 1024


def test_export_is_replay(broker: Broker, events: list[RecordedEvent], tmp_path: Path) -> None:
    """Each row is an event as replay prints it, with columns of the right types."""
    for number, filters in enumerate(((), ("--resource", "book", "--type", "requested"), ("--operation", "unknown"))):
        path = tmp_path / f"{number}.parquet"
        result = run("export", "--nats", broker.url, str(path), *filters)
        assert result.returncode == 0, result.stderr
        printed = [json.loads(line) for line in replay(broker, *filters, "--format", "records").stdout.splitlines()]
        rows = parquet.read_table(path).to_pylist()
        assert [_as_record(row) for row in rows] == printed
    columns = parquet.read_table(tmp_path / "0.parquet").to_pylist()
    for one, event in zip(columns, events, strict=False):
        data = json.loads(one["data"])
        assert one["hash"] == event.digest
        assert (one["attempt"], one["percent"]) == (data.get("attempt"), data.get("percent"))
        assert (one["caller"], one["client_address"]) == (data.get("caller"), data.get("clientAddress"))
        assert one["error_code"] == data.get("error", {}).get("code")
        assert one["resource_id"] == data.get("resourceId")
    assert (
        list(tmp_path.iterdir()) == [tmp_path / f"{number}.parquet" for number in range(3)]
        or len(list(tmp_path.iterdir())) == 3
    )


def _as_record(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a line of `--format records`."""
    operation, kind = row["operation_id"], f"{row['resource']}.{row['action']}"
    return {
        "sequence": row["sequence"],
        "storedAt": _time(row["stored_at"]),
        "subject": f"operations.{operation}.{kind}.{row['event']}",
        "event": {
            "specversion": "1.0",
            "id": row["id"],
            "source": row["source"],
            "type": row["type"],
            "subject": operation,
            "time": _time(row["time"]),
            "datacontenttype": "application/json",
            "position": row["position"],
            "previoushash": row["previous_hash"],
            "data": json.loads(row["data"]),
        },
    }


def _time(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_export_replaces_nothing(broker: Broker, events: list[RecordedEvent], tmp_path: Path) -> None:
    """An existing file stays as it is without --overwrite; a failed export leaves nothing behind."""
    path = tmp_path / "events.parquet"
    path.write_text("precious")
    refused = run("export", "--nats", broker.url, str(path))
    assert (refused.returncode, path.read_text()) == (2, "precious")
    assert "exists: choose another name, or replace it with --overwrite" in refused.stderr
    failed = run("export", "--nats", broker.url, str(path), "--overwrite", "--from-sequence", "9999")
    assert (failed.returncode, path.read_text()) == (1, "precious")
    nowhere = run("export", "--nats", broker.url, str(tmp_path / "no" / "x.parquet"))
    os.mkfifo(tmp_path / "pipe")
    pipe = run("export", "--nats", broker.url, str(tmp_path / "pipe"), "--overwrite")
    assert (pipe.returncode, (tmp_path / "pipe").is_fifo()) == (2, True)
    assert "is not a regular file" in pipe.stderr
    (tmp_path / "pipe").unlink()
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    replaced = run("export", "--nats", broker.url, str(path), "--overwrite")
    assert (replaced.returncode, parquet.read_table(path).num_rows >= len(events)) == (0, True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exports_that_are_stopped(
    large: tuple[Broker, list[RecordedEvent]], tmp_path: Path, number: signal.Signals
) -> None:
    """Two exports may write the same file at the same time, and one that is stopped leaves nothing."""
    broker, expected = large
    path = tmp_path / "events.parquet"
    with Process("export", "--nats", broker.url, str(path)) as one:
        asyncio.run(eventually(lambda: len(list(tmp_path.glob(".*.part"))) == 1, within=20, poll=0.01))
        one.send(signal.SIGSTOP)
        other = run("export", "--nats", broker.url, str(path))
        assert other.returncode == 0, other.stderr
        one.send(number)
        one.send(signal.SIGCONT)
        assert one.wait(10) == 130
        assert "interrupted; nothing was written\n" in one.output
    assert list(tmp_path.iterdir()) == [path]
    assert parquet.read_table(path, columns=["sequence"]).num_rows == len(expected)


def test_export_without_pyarrow(broker: Broker, tmp_path: Path) -> None:
    """One line says that pyarrow is missing, and what to install."""
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not installed')")
    extra = {"PYTHONPATH": str(tmp_path)}
    result = run("export", "--nats", broker.url, str(tmp_path / "x.parquet"), extra=extra)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith("pip install pyarrow")
    assert len(result.stderr.splitlines()) == 1


def test_audit(broker: Broker, events: list[RecordedEvent]) -> None:
    """It prints the timeline of an operation, for people and for programs; an unknown one is one line and status 1."""
    audited = run("audit", "--nats", broker.url, "op-1")
    assert audited.returncode == 0, audited.stderr
    assert re.search(r"^asked +2.* UTC by ann with shop from 192\.0\.2\.7$", audited.stdout, re.MULTILINE)
    found = json.loads(run("audit", "--nats", broker.url, "op-1", "--json").stdout)
    assert (found["status"], len(found["attempts"]), found["chain"]) == ("Failed", 2, {"isIntact": True})
    archived = run("audit", "--nats", broker.url, "op-1", "--from-archive")
    assert (archived.returncode, archived.stderr) == (
        1,
        "opstream: error: the broker has no archive: 'opstream provision --archive' makes one\n",
    )
    assert run("provision", "--nats", broker.url, "--archive").returncode == 0

    def has_it() -> bool:
        found = run("audit", "--nats", broker.url, "op-1", "--from-archive", "--action", "book:*")
        return found.stdout == audited.stdout

    asyncio.run(eventually(has_it, within=20, poll=0.2))
    command = [*COMMAND, "audit", "--nats", broker.url, "op-1"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed_pipe, Path("/dev/full").open("wb") as full:
        options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "env": environment()}
        closed, unwritten = (
            subprocess.run(command, check=False, stdout=stdout, **options) for stdout in (closed_pipe, full)
        )
    assert (closed.returncode, closed.stderr) == (0, "")
    assert unwritten.returncode == 1
    assert unwritten.stderr == (
        "opstream: error: standard output can't be written to (No space left on device): make room there, then run it "
        "again\n"
    )
    unknown = run("audit", "--nats", broker.url, "unknown")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == (
        "opstream: error: the journal has no operation unknown, or its events have expired; the archive may have it: "
        "--from-archive\n"
    )
