"""The demo: the whole system at work, used from outside.

It starts `opstream up` on free ports and in a temporary folder, acts as a client that publishes two versions of a book
over HTTP, reads the events from the stream, and audits them. It leaves neither files nor processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import msgspec

from opstream.terminal.console import CommandError
from opstream_journal import JournalError

from .demo_narrator import DemoNarrator
from .processes import SUPERVISOR_VARIABLE, ChildProcess, describe_exit

_READY_PREFIX: Final = "opstream is ready: "
_TIMEOUT: Final = 55.0
_STOP_TIMEOUT: Final = 15.0
_END_TIMEOUT: Final = 3.0
"""Seconds for the system to end by itself after a part of it died."""
_LOG_LINES: Final = 30
_BOOK: Final = {
    "contents.json": '{"title": "The Tin Lighthouse", "chapters": 2}\n',
    "chapters/1.md": "# The Lamp\n\nIt had burned for a hundred years. Who had paid for the oil?\n",
    "chapters/2.md": "# The Keeper\n\nShe counted the ships. There were always seven.\n",
    "cover.svg": '<svg xmlns="http://www.w3.org/2000/svg"><circle r="40" fill="gold"/></svg>\n',
}
_REVISED: Final = {"chapters/2.md": "# The Keeper\n\nShe counted the ships. Tonight there were eight.\n"}


def run_demo() -> None:
    """Run the demo.

    Raises:
        CommandError: a step failed; the message says which, and has the last lines of the system.
    """
    begin = time.monotonic()
    narrator = DemoNarrator(sys.stdout)
    try:
        with tempfile.TemporaryDirectory(prefix="opstream-demo-") as folder:
            asyncio.run(_run(Path(folder), narrator))
    except asyncio.CancelledError as error:
        raise CommandError("stopped by SIGTERM") from error
    narrator.end(time.monotonic() - begin)


async def _run(folder: Path, narrator: DemoNarrator) -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    system = DemoSystem(folder / "data")
    try:
        async with asyncio.timeout(_TIMEOUT):
            narrator.chapter("Start the whole system: broker, api, projector, runner and webhooks")
            api, broker = await system.start(narrator)
            async with httpx.AsyncClient(base_url=api, trust_env=False) as http:
                client = DemoClient(http, narrator)
                await _publish_twice(client, folder / "my-book", narrator)
            narrator.chapter("What the stream keeps: the events of every operation")
            await narrator.history(broker, client.operations)
            narrator.chapter("Who did what, and was it changed since?")
            await _run_command(narrator, "audit", client.operations[-1], "--nats", broker)
            await _run_command(narrator, "verify", "--chain", "--nats", broker)
        narrator.chapter("See it in a browser")
        await _show_console(narrator, system, f"{api}/console#/operations/{client.operations[-1]}")
    except (CommandError, JournalError, httpx.HTTPError, TimeoutError) as error:
        if isinstance(error, httpx.TransportError):
            await system.wait_for_end()
        await system.stop()
        reason = str(error) or f"the demo did not finish within {_TIMEOUT:g} s"
        raise CommandError("\n  ".join([f"{reason}; the system's last lines:", *system.log])) from error
    finally:
        await system.stop()


async def _show_console(narrator: DemoNarrator, system: DemoSystem, url: str) -> None:
    """Name the console's URL. On a terminal everything goes on until the reader presses Enter."""
    narrator.note(url)
    if not sys.stdin.isatty():
        return
    narrator.note("Press Enter to stop everything.")
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, entered.set)
    try:
        await system.wait_for_end_or(entered)
    finally:
        loop.remove_reader(sys.stdin)


async def _run_command(narrator: DemoNarrator, *words: str) -> None:
    narrator.command("opstream", *words)
    child = await ChildProcess.start("opstream", _command(*words), environment=_environment(), on_line=narrator.quote)
    await asyncio.wait([child.ended])
    if child.ended.result():
        raise CommandError(f"opstream {words[0]} ended ({describe_exit(child.ended.result())})")


def _command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "opstream", *words]


def _environment() -> dict[str, str]:
    # Settings for another opstream on this machine must not change the demo.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPSTREAM_", "BOOKSHELF_"))}
    return {**kept, SUPERVISOR_VARIABLE: str(os.getpid())}


async def _publish_twice(client: DemoClient, book: Path, narrator: DemoNarrator) -> None:
    narrator.chapter("Publish a new book: announce its files, upload them, finish")
    _write(book, _BOOK)
    narrator.note(f"{len(_BOOK)} files were made in {book}")
    started = await client.operation(
        "/book/new:upload-start", {"title": "The Tin Lighthouse", "files": _announce(book)}
    )
    _upload(book, started, narrator)
    book_id = started["bookId"]
    finish = {"transactionId": started["transactionId"], "metadata": {"language": "en"}}
    await client.operation(f"/book/{book_id}:upload-finish", finish)

    narrator.chapter("A mistake is refused before anything is recorded")
    await client.submit_invalid(f"/book/{book_id}:upload-start", {"title": "The Tin Lighthouse", "pages": 12})

    narrator.chapter("Publish a second version: one file changed, so one file is requested")
    _write(book, _REVISED)
    started = await client.operation(
        f"/book/{book_id}:upload-start", {"title": "The Tin Lighthouse", "files": _announce(book)}
    )
    _upload(book, started, narrator)
    await client.operation(f"/book/{book_id}:upload-finish", {"transactionId": started["transactionId"]})


class DemoSystem:
    """`opstream up` on free ports, with its data in a folder.

    Attributes:
        log: the last lines of its output.
    """

    def __init__(self, data_dir: Path) -> None:
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self._data_dir = data_dir
        self._child: ChildProcess | None = None
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self, narrator: DemoNarrator) -> tuple[str, str]:
        """Start the system, and return the URLs of API and broker when it is ready.

        Raises:
            CommandError: it ended instead.
        """
        ports = ("--port", "0", "--nats-port", "0")
        options = ("--actions", "bookshelf.actions", *ports, "--data-dir", str(self._data_dir))
        narrator.command("opstream", "up", *options)
        self._child = await ChildProcess.start(
            "opstream up", _command("up", *options), environment=_environment(), on_line=self._handle_line
        )
        first: list[asyncio.Future[Any]] = [self._ready, self._child.ended]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            raise CommandError(f"opstream up ended ({describe_exit(self._child.ended.result())})")
        line = self._ready.result()
        narrator.note(line)
        api, broker = (line.partition(f"{word} ")[2].split()[0].rstrip(",") for word in ("API", "broker"))
        return api, broker

    async def wait_for_end(self) -> None:
        """Wait for it to end by itself, as it does when a part of it died; its output then says which."""
        if self._child is not None:
            await asyncio.wait([self._child.ended], timeout=_END_TIMEOUT)

    async def wait_for_end_or(self, event: asyncio.Event) -> None:
        """Wait for an event, or until the system has ended by itself.

        Raises:
            CommandError: it has ended.
        """
        waiting = asyncio.create_task(event.wait())
        ended = [self._child.ended] if self._child is not None else []
        try:
            await asyncio.wait([waiting, *ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._child is not None and self._child.ended.done():
            raise CommandError(f"opstream up ended ({describe_exit(self._child.ended.result())})")

    async def stop(self) -> None:
        """Stop it if it runs. It is killed if that takes too long."""
        if self._child is not None:
            await self._child.stop(_STOP_TIMEOUT)

    def _handle_line(self, line: str) -> None:
        self.log.append(line)
        if line.startswith(_READY_PREFIX) and not self._ready.done():
            self._ready.set_result(line)


class DemoClient:
    """A client of the API that prints what it does.

    Attributes:
        operations: ids of the operations that it has submitted.
    """

    def __init__(self, http: httpx.AsyncClient, narrator: DemoNarrator) -> None:
        self.operations: list[str] = []
        self._http = http
        self._narrator = narrator

    async def operation(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Submit an action, poll until its operation has ended, and return the result.

        Raises:
            CommandError: the request was not accepted, or the operation did not succeed.
            httpx.HTTPError: there was no response.
        """
        response = await self._post(path, body)
        if response.status_code != 202:
            raise CommandError(f"POST {path} was answered with {response.status_code} instead of 202")
        location = response.headers["Operation-Location"]
        monitor: dict[str, Any] = response.json()
        self.operations.append(monitor["id"])
        while monitor["status"] not in {"Succeeded", "Failed", "Canceled"}:
            await asyncio.sleep(int(response.headers["Retry-After"]))
            response = await self._http.get(location)
            response.raise_for_status()
            self._narrator.poll(urlsplit(location).path, monitor, response)
            monitor = response.json()
        if monitor["status"] != "Succeeded":
            raise CommandError(f"{path} ended as {monitor['status']}: {monitor.get('error')}")
        result: dict[str, Any] = monitor["result"]
        return result

    async def submit_invalid(self, path: str, body: dict[str, Any]) -> None:
        """Submit an invalid request, and show how it is refused.

        Raises:
            CommandError: it was not refused.
            httpx.HTTPError: there was no response.
        """
        response = await self._post(path, body)
        if response.status_code != 400:
            raise CommandError(f"POST {path} was answered with {response.status_code} instead of 400")

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        self._narrator.request("POST", path, body)
        content = msgspec.json.encode(body)
        response = await self._http.post(path, content=content, headers={"Content-Type": "application/json"})
        self._narrator.response(response)
        return response


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _announce(folder: Path) -> list[dict[str, str]]:
    return [
        {"path": path.relative_to(folder).as_posix(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _upload(folder: Path, started: dict[str, Any], narrator: DemoNarrator) -> None:
    for file in started["filesToUpload"]:
        target = Path(url2pathname(urlsplit(file["uploadUrl"]).path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((folder / file["path"]).read_bytes())
        narrator.note(f"uploaded {file['path']}")
    if started["filesUnchanged"]:
        narrator.note(f"{started['filesUnchanged']} unchanged files were copied by the action itself")
