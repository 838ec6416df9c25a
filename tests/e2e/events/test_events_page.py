"""docs/events.md and the programs that it names are right: they run as they stand there, against real processes.

The programs are copied by people who have nothing of opstream's, so they are tested as those would run them.
"""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy

from opstream.events import Backoff, subscribe
from opstream.events.model import COMPLETIONS, EVENT_CLASSES
from opstream.events.subscription import subject_filters
from opstream_journal import Connection, Journal
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.stores import dead_letters as parking
from opstream_schemas.names import Kind
from opstream_schemas.subjects import OPERATIONS_STREAM
from tests.support.broker.server import Broker, free_port
from tests.support.cli import commands
from tests.support.cli.terminal import Terminal
from tests.support.events.subscribers import FAILED, consumer_info, delete_consumer, ended, inject, unsettled
from tests.support.journal.journals import KIND, linked
from tests.support.journal.journals import opened as journal_on
from tests.support.system import npm
from tests.support.system.echo_actions import submit, write_actions
from tests.support.system.processes import Process, run
from tests.support.system.services import BROKER, System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).resolve().parents[3]
EXAMPLES: Final = ROOT / "examples" / "events"
DOCUMENT: Final = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
PROGRAM: Final = next(text for language, text in BLOCKS if language == "python" and "@subscribe" in text)
COMMANDS: Final = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
LANGUAGES: Final = ("python", "node")

PYTHON_SHAKY: Final = """
import subscribe_natspy as example

calm, tries = example.handle, 0


async def shaky(event):
    global tries
    tries += 1
    if tries < 3:
        raise OSError("no route to the printer")
    await calm(event)


example.handle = shaky
example.main()
"""
NODE_SHAKY: Final = """
import { handle, main } from "./subscribe.mjs";

let tries = 0;
main(async (event) => {
  if (++tries < 3) throw new Error("no route to the printer");
  await handle(event);
}).catch((error) => {
  console.error(`subscribe: ${error.message}`);
  process.exit(1);
});
"""

PYTHON_HELD: Final = """
import asyncio, signal
import subscribe_natspy as example


async def held(event):
    released = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, released.set)
    print("begun", flush=True)
    await released.wait()


example.handle = held
example.main()
"""
NODE_HELD: Final = """
import { main } from "./subscribe.mjs";

main(async () => {
  const released = new Promise((resolve) => process.once("SIGUSR2", resolve));
  console.log("begun");
  await released;
}).catch((error) => {
  console.error(`subscribe: ${error.message}`);
  process.exit(1);
});
"""


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples, without installed packages."""
    folder = tmp_path_factory.mktemp("copies") / "events"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    (folder / "shaky.py").write_text(PYTHON_SHAKY, encoding="utf-8")
    (folder / "held.py").write_text(PYTHON_HELD, encoding="utf-8")
    (folder / "node" / "shaky.mjs").write_text(NODE_SHAKY, encoding="utf-8")
    (folder / "node" / "held.mjs").write_text(NODE_HELD, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def node(copies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example for Node, with its packages."""
    return npm.install(copies / "node", tmp_path_factory.mktemp("scripts"))


def commanded(language: str, script: str, request: pytest.FixtureRequest) -> tuple[Sequence[str], Path]:
    """The command of an example and its working directory."""
    if language == "node":
        folder: Path = request.getfixturevalue("node")
        return ("node", f"{script}.mjs"), folder
    folder = request.getfixturevalue("copies")
    name = "subscribe_natspy" if script == "subscribe" else script
    return (sys.executable, f"{name}.py"), folder


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system."""
    folder = tmp_path_factory.mktemp("events")
    write_actions(folder)
    with ExitStack() as stack:
        system = System(folder, stack, "echoes")
        system.begin()
        yield system


@pytest.fixture
async def journal(link: Connection) -> Journal:
    """The journal on it."""
    return await journal_on(link)


async def there(link: Connection, durable: str) -> None:
    """Wait until a program has made its durable."""
    await eventually(lambda: admin.consumer_config(link, OPERATIONS_STREAM, durable), within=15)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_copied_program(
    language: str, system: System, http: httpx.Client, request: pytest.FixtureRequest
) -> None:
    """An example prints the ends of operations, also of those that ended during an outage, and stops on SIGTERM."""
    command, folder = commanded(language, "subscribe", request)
    arguments = (system.nats, "echo:*", f"copy-{language}")
    with Process(*arguments, command=command, cwd=folder) as program:
        async with linked(system.nats) as link:
            await there(link, arguments[2])
        first = submit(http, system.api, "say", "one")
        program.wait_for(rf'^succeeded {first} \{{"result": ?\{{"text": ?"one"\}}\}}')
        program.send(signal.SIGKILL)
        program.wait(5)
    second = submit(http, system.api, "say", "two")
    with Process(*arguments, command=command, cwd=folder) as program:
        program.wait_for(f"^succeeded {second} ")
        system.kill(BROKER)
        system.start(BROKER)
        system.wait_ready(BROKER, *system.names)
        third = submit(http, system.api, "say", "three")
        program.wait_for(f"^succeeded {third} ")
        assert first not in program.output
        program.send(signal.SIGTERM)
        assert program.wait(10) == 0, program.output


@pytest.mark.parametrize("language", LANGUAGES)
async def test_failures_of_a_copied_program(
    language: str, broker: Broker, link: Connection, journal: Journal, request: pytest.FixtureRequest
) -> None:
    """Failed work is retried with growing pauses, invalid messages are given up, a deleted durable ends the program."""
    command, folder = commanded(language, "shaky", request)
    with Process(broker.url, "book:*", "shaky", command=command, cwd=folder) as program:
        await there(link, "shaky")
        garbage = await inject(link, "operations.x.book.upload-start.failed", b"\xff{")
        one = await ended(journal, "one", FAILED)
        program.wait_for(f"^given up: message {garbage} ")
        program.wait_for('^failed one .*"code": ?"OutOfPaper"')
        failures = re.findall(
            rf"^failed: message {one.stream_sequence}, again in ([0-9.]+) s", program.output, re.MULTILINE
        )
        assert [0.5 * 2**n <= float(pause) <= 2**n for n, pause in enumerate(failures)] == [True, True]

        async def is_settled() -> bool:
            return await unsettled(link, "shaky") == 0

        await eventually(is_settled)
        await delete_consumer(link, "shaky")
        assert program.wait(60) == 1, program.output
        assert "durable shaky was deleted" in program.output


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_durable_that_is_deleted_while_a_copied_program_works(
    language: str, broker: Broker, link: Connection, journal: Journal, request: pytest.FixtureRequest
) -> None:
    """The request for the next event finds no durable; that ends the program, too, and no request follows the other."""
    command, folder = commanded(language, "held", request)
    with Process(broker.url, "book:*", "held", command=command, cwd=folder) as program:
        await there(link, "held")
        await ended(journal, "one", FAILED)
        program.wait_for("^begun$")
        await delete_consumer(link, "held")
        before = broker.monitor("/varz")["in_msgs"]
        program.send(signal.SIGUSR2)
        assert program.wait(30) == 1, program.output
        assert "durable held was deleted" in program.output
        assert broker.monitor("/varz")["in_msgs"] - before < 50


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_no_action(language: str, request: pytest.FixtureRequest) -> None:
    """An action without its resource is refused with the usage."""
    command, folder = commanded(language, "subscribe", request)
    with Process("nats://127.0.0.1:1", "book", "mailer", command=command, cwd=folder) as program:
        assert program.wait(15) == 1
        assert "RESOURCE:ACTION DURABLE" in program.output


def test_sigterm_without_a_broker(request: pytest.FixtureRequest) -> None:
    """The Python program waits for a missing broker, and still ends on SIGTERM."""
    command, folder = commanded("python", "subscribe", request)
    with Process(f"nats://127.0.0.1:{free_port()}", "book:*", "mailer", command=command, cwd=folder) as program:
        program.wait_for("^broker: .*Connect call failed")
        program.send(signal.SIGTERM)
        assert program.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_durable_with_other_filters(
    language: str, broker: Broker, link: Connection, request: pytest.FixtureRequest
) -> None:
    """A durable with other filters is not changed, and the program ends with a line that says so."""
    command, folder = commanded(language, "subscribe", request)
    config = ConsumerConfig(durable_name="taken", filter_subjects=["operations.*.page.*.failed"])
    await admin.create_consumer(link, OPERATIONS_STREAM, config)
    with Process(broker.url, "book:*", "taken", command=command, cwd=folder) as program:
        assert program.wait(15) == 1
        assert "durable taken is there with other filters" in program.output
    assert (await consumer_info(link, "taken"))["config"]["filter_subjects"] == ["operations.*.page.*.failed"]


async def test_the_python_program(broker: Broker, link: Connection, journal: Journal, tmp_path: Path) -> None:
    """The document's program prints what the document says, survives a restart of the broker, and ends in order."""
    (tmp_path / "mailer.py").write_text(PROGRAM.replace("nats://127.0.0.1:4222", broker.url), encoding="utf-8")
    with Process("mailer.py", command=(sys.executable,), cwd=tmp_path) as program:
        await there(link, "mailer")
        await ended(journal, "one")
        program.wait_for("^book:upload-start of 42 is done: {'pages': 7}")
        broker.kill()
        broker.start()
        await eventually(lambda: link.is_connected)
        await ended(journal, "two", FAILED)
        program.wait_for("^book:upload-start of 42 failed: there is no paper")
        program.send(signal.SIGTERM)
        assert program.wait(10) == 0, program.output


async def test_the_python_program_ends_with_a_reason(
    broker: Broker, link: Connection, journal: Journal, tmp_path: Path
) -> None:
    """Once the journal is gone, the process ends with status 1, and the last line says what to do."""
    (tmp_path / "mailer.py").write_text(PROGRAM.replace("nats://127.0.0.1:4222", broker.url), encoding="utf-8")
    with Process("mailer.py", command=(sys.executable,), cwd=tmp_path) as program:
        await there(link, "mailer")
        program.wait_for("started successfully")
        await link.nc.request("$JS.API.STREAM.DELETE.OPERATIONS")
        assert program.wait(15) == 1, program.output
        last = program.output.splitlines()[-1]
        assert "NotProvisioned: the broker has no stream OPERATIONS: run 'opstream provision'" in last
        assert "if there was one before, restore it from a backup first" in last


def flags(command: str) -> dict[str, list[str]]:
    """The flags of a documented command, each with its values."""
    words = shlex.split(command)
    found: dict[str, list[str]] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            found.setdefault(word[2:], []).extend([] if following.startswith("--") else [following])
    return found


async def test_what_the_documented_consumer_delivers(broker: Broker, link: Connection, journal: Journal) -> None:
    """The consumer of the document's `nats consumer add` has the filters of `subscribe`, and delivers these events."""
    (command,) = (line for line in COMMANDS if line.startswith("nats consumer add OPERATIONS mailer "))
    given = flags(command)
    assert given["filter"] == subject_filters("book:*", COMPLETIONS)
    config = ConsumerConfig(
        durable_name="mailer",
        filter_subjects=given["filter"],
        deliver_policy=DeliverPolicy(given["deliver"][0]),
        ack_policy=AckPolicy(given["ack"][0]),
        replay_policy=ReplayPolicy(given["replay"][0]),
        ack_wait=float(given["wait"][0].removesuffix("s")),
        max_deliver=int(given["max-deliver"][0]),
        max_ack_pending=int(given["max-pending"][0]),
    )
    await ended(journal, "before")
    assert await admin.create_consumer(link, OPERATIONS_STREAM, config)
    await ended(journal, "one", kind=Kind("page", "scan"))
    await ended(journal, "two", FAILED)
    pulled = await link.nc.jetstream().pull_subscribe_bind("mailer", OPERATIONS_STREAM)
    (message,) = await pulled.fetch(1, timeout=5)
    assert message.subject == f"operations.two.{KIND.resource}.{KIND.action}.failed"
    assert (await consumer_info(link, "mailer"))["num_pending"] == 0


@pytest.mark.skipif(shutil.which("nats") is None, reason="the document calls nats, which is not installed")
async def test_the_nats_tool(broker: Broker, link: Connection, journal: Journal) -> None:
    """The document's first two commands create the consumer and print what it delivers."""
    add, following = (line for line in COMMANDS if line.startswith("nats consumer "))

    def printed(line: str) -> str:
        words = [*shlex.split(line), "--server", broker.url]
        return subprocess.run(words, capture_output=True, check=True, timeout=20, text=True).stdout

    printed(add)
    await ended(journal, "one")
    assert '"subject":"one"' in printed(following.replace("--count 10", "--count 1"))


def rows(header: str) -> list[list[str]]:
    """The cells of a table."""
    table = DOCUMENT.partition(f"| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_the_arguments() -> None:
    """The table of arguments names each one of `subscribe`, with its default."""
    told = {
        name.strip("`"): default.strip("`") for name, default, _ in rows("argument of `subscribe` | default | meaning")
    }
    parameters = inspect.signature(subscribe).parameters.values()
    wanted = {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert told.keys() - {"(second)"} == wanted.keys()
    shown = {name: f'"{value}"' if isinstance(value, str) else str(value) for name, value in wanted.items()}
    special = {"durable": "", "events": "the ends", "backoff": "Backoff()"}
    assert {name: told[name] for name in wanted} == shown | special
    for field in Backoff.__struct_fields__:
        assert f"{field}={getattr(Backoff(), field)}" in DOCUMENT


def test_the_events() -> None:
    """The table of event types names each one."""
    assert [name.strip("`") for name, *_ in rows("event | when | data")] == list(EVENT_CLASSES)


def test_the_reasons() -> None:
    """Each reason that an event can be parked for is explained."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "opstream" / "events").glob("*.py")]
    found = {reason for text in sources for reason in re.findall(r'(?:park|UnreadableEvent)\("(\w+)"', text)}
    assert {"Undecodable", "HandlerFailed"} <= found
    assert [one for one in found | {"UnexpectedShape"} if f"(`{one}`)" not in DOCUMENT] == []


def test_the_commands() -> None:
    """Each `opstream` command of the document exists."""
    found = {line.split()[1] for line in COMMANDS if line.startswith("opstream ")}
    assert found == {"parked"}
    assert found <= commands.COMMANDS.keys()


def test_the_paths() -> None:
    """Each file that the document links to exists."""
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", DOCUMENT) if "://" not in link]
    assert [link for link in links if not (ROOT / "docs" / link.partition("#")[0]).exists()] == []
    assert len(links) == 13


async def test_a_parked_event_is_brought_back(
    broker: Broker, link: Connection, journal: Journal, tmp_path: Path
) -> None:
    """A parked event is shown, and retried only by a running subscriber."""
    (tmp_path / "mailer.py").write_text(PROGRAM.replace("nats://127.0.0.1:4222", broker.url), encoding="utf-8")
    with Process("mailer.py", command=(sys.executable,), cwd=tmp_path) as program:
        await there(link, "mailer")
        sequence = await inject(link, "operations.x.book.upload-start.failed", b"{")
        program.wait_for("is parked after 1 deliveries: Undecodable")
        answer = await link.nc.request("retry.mailer", str(sequence).encode(), timeout=5)
        assert answer.data.startswith(b"failed: it stays parked: Undecodable: ")
        shown = run("parked", "mailer", "--nats", broker.url)
        assert msgspec.json.decode(shown.stdout)["reason"] == "Undecodable"
        retried = run("parked", "mailer", "--retry", "--nats", broker.url)
        assert (retried.returncode, retried.stderr) == (1, "opstream: error: 1 of 1 were not handled\n")
        assert retried.stdout.startswith(f"mailer {sequence}: failed: it stays parked: Undecodable: ")
        heading, _, row, *rest = printed_on_a_terminal("parked", "--nats", broker.url).splitlines()
        assert heading.split() == ["durable", "sequence", "reason", "deliveries"]
        assert row.split() == ["mailer", str(sequence), "Undecodable", "1"]
        assert rest
        assert all(line.startswith("    ") and len(line) < 80 for line in rest)
        assert "nothing is parked" in printed_on_a_terminal("parked", "other", "--nats", broker.url)
    alone = run("parked", "mailer", str(sequence), "--retry", "--nats", broker.url)
    assert alone.stderr == "opstream: error: no subscriber 'mailer' is running: start it, then try again\n"
    assert await parking.keys(link) == [("mailer", sequence)]
    other = run("parked", "other", "--nats", broker.url)
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "opstream: nothing is parked of other\n")
    slip = run("parked", "mailer", str(sequence), "7", "--forget", "--nats", broker.url)
    assert (slip.returncode, slip.stdout, slip.stderr) == (
        1,
        "",
        "opstream: error: nothing of mailer is parked under 7: 'opstream parked' shows what is\n",
    )
    forgotten = run("parked", "mailer", str(sequence), str(sequence), "--forget", "--nats", broker.url)
    assert forgotten.stdout.startswith(f"mailer {sequence}: forgotten: Undecodable  operations.x.book.")
    assert await parking.keys(link) == []
    bad = run("parked", "--retry", "--nats", broker.url)
    told = "opstream: error: --retry needs the durable, e.g. 'opstream parked mailer --retry' (see "
    assert (bad.returncode, bad.stderr.count("\n"), bad.stderr.startswith(told)) == (2, 1, True)
    (purge,) = (line for line in COMMANDS if line.startswith("nats stream purge PARKED "))
    assert flags(purge)["subject"] == ["parked.mailer.1234"]


def printed_on_a_terminal(*arguments: str) -> str:
    """The output of a command on a terminal."""
    with Terminal(*arguments) as terminal:
        assert terminal.wait(20) == 0
        return terminal.output


def test_nothing_was_parked(broker: Broker) -> None:
    """On a broker without subscribers, `opstream parked` says so, and that is no failure."""
    shown = run("parked", "--nats", broker.url)
    assert (shown.returncode, shown.stdout, shown.stderr) == (
        0,
        "",
        "opstream: nothing was ever parked on this broker: its first subscriber makes the stream PARKED\n",
    )
