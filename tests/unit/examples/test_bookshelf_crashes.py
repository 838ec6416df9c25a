"""Killed at any storage call and run again, or run twice at once: the same end state. On real folders, no mocks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bookshelf.records import Book, UploadStarted, Version
from bookshelf.storage import STORE_ERRORS
from opstream import ActionError
from tests.unit.examples.test_bookshelf_kit import (
    T0,
    Content,
    Desk,
    Killed,
    Killer,
    Pause,
    Turns,
    announce,
    code_of,
    later,
    local_path,
)

pytestmark = pytest.mark.unit

FIRST = {"a.md": b"one", "chapters/1.md": b"two" * 1000, "chapters/2.md": b"gone in the second"}
SECOND = {"a.md": b"changed", "chapters/1.md": b"two" * 1000, "empty": b""}
BROKEN = {"x": b"1", "y": b"2"}
Call = Callable[[Desk], Coroutine[Any, Any, Any]]

CALLS: dict[str, Callable[[UploadStarted], Call]] = {
    "start a known book": lambda _: lambda desk: desk.start("42", SECOND, "start-3"),
    "start a new book": lambda _: lambda desk: desk.start("new", SECOND, "start-3"),
    "finish": lambda started: lambda desk: desk.finish(started, "finish-2", note="n"),
}


async def prepare(root: Path) -> UploadStarted:
    """Version 1 is published; one version 2 is uploaded, one was never finished, one not completely uploaded."""
    desk = Desk(root)
    await desk.publish("42", FIRST, "1")
    await desk.upload(await desk.start("42", FIRST, "abandoned"), FIRST)
    broken = await desk.start("42", BROKEN, "broken")
    await desk.upload(broken, {"x": b"1"})
    assert await code_of(desk.finish(broken, "finish-broken")) == "MissingFile files[1].path"
    started = await desk.start("42", SECOND, "start-2")
    await desk.upload(started, SECOND)
    return started


def everything(root: Path) -> dict[str, bytes | None]:
    """All files with their bytes, and all folders, including leftovers; without the time."""
    return {
        str(path.relative_to(root)): path.read_bytes().replace(b"T01:00", b"T00:00") if path.is_file() else None
        for path in root.rglob("*")
    }


def plain(result: Any, root: Path, time: datetime) -> Any:
    """A result apart from its root, and its time checked."""
    if isinstance(result, Book):
        assert result.published_at == time
        return msgspec.structs.replace(result, published_at=T0)
    return msgspec.json.encode(result).replace(root.as_uri().encode(), b"")


@pytest.mark.parametrize("when", ["before", "half", "after"])
@pytest.mark.parametrize("name", CALLS)
async def test_killed_anywhere_and_run_again(tmp_path: Path, name: str, when: str) -> None:
    """At each storage call and progress report, before and after it takes effect, and halfway through removals."""
    origin, undisturbed = tmp_path / "origin", tmp_path / "undisturbed"
    call = CALLS[name](await prepare(origin))
    shutil.copytree(origin, undisturbed)
    wanted = plain(await call(Desk(undisturbed)), undisturbed, T0)
    deaths = 0
    for nth in range(1, 200):
        root = tmp_path / f"{nth}"
        shutil.copytree(origin, root)
        killer = Killer(nth, when)
        try:
            await call(Desk(root, killer))
        except Killed:
            deaths += 1
        # What was published before the kill keeps the time of the attempt that did it.
        time = T0 if (root / "books/42/versions/000002.json").exists() else later(1)
        assert plain(await call(Desk(root, now=later(1))), root, time) == wanted, f"call {nth}"
        assert everything(root) == everything(undisturbed), f"call {nth}"
        shutil.rmtree(root)
        if killer.calls < nth:
            break
    assert killer.calls == nth - 1 >= 6
    assert deaths == {"before": killer.calls, "after": killer.calls, "half": 3 if name == "finish" else 0}[when]


@pytest.mark.parametrize("name", CALLS)
async def test_two_attempts_at_once(tmp_path: Path, name: str) -> None:
    """Interleaved in many orders, both answer the same, and the end state is that of one attempt."""
    origin, undisturbed = tmp_path / "origin", tmp_path / "undisturbed"
    call = CALLS[name](await prepare(origin))
    shutil.copytree(origin, undisturbed)
    wanted = plain(await call(Desk(undisturbed)), undisturbed, T0)
    for seed in range(12):
        root = tmp_path / f"{seed}"
        shutil.copytree(origin, root)
        turns = Turns(seed)
        one, two = await turns.run(call(Desk(root, turns.gate("1"))), call(Desk(root, turns.gate("2"), later(1))))
        assert one == two, f"seed {seed}: {turns.order}"
        time = one.published_at if isinstance(one, Book) else T0
        assert plain(one, root, time) == wanted
        assert everything(root) == everything(undisturbed), f"seed {seed}: {turns.order}"
        shutil.rmtree(root)


@pytest.mark.parametrize("name", ["start", "finish"])
async def test_an_attempt_wakes_up_late(tmp_path: Path, name: str) -> None:
    """An attempt that is delayed at any call until its successor and the next version have finished changes nothing."""
    origin = tmp_path / "origin"
    finished = await prepare(origin)
    for nth in range(1, 200):
        root = tmp_path / f"{nth}"
        shutil.copytree(origin, root)
        desk, books = Desk(root), list[Book]()

        async def successor(desk: Desk = desk, books: list[Book] = books) -> None:
            started = finished
            if name == "start":
                started = await desk.start("42", SECOND, "start-3")
                await desk.upload(started, SECOND)
            books.append(await desk.finish(started, "finish-2"))
            books.append(await desk.publish("42", FIRST, "4"))

        pause = Pause(nth, successor)
        late = Desk(root, pause)
        try:
            outcome = await (
                late.finish(finished, "finish-2") if name == "finish" else late.start("42", SECOND, "start-3")
            )
        except ActionError as error:
            outcome = error.code
        if pause.calls < nth:
            break
        assert name == "start" or outcome == books[0]
        assert name == "finish" or outcome == "TransactionFinished" or isinstance(outcome, UploadStarted)
        assert_shelf(root, books[1], FIRST)
        shutil.rmtree(root)
    assert pause.calls == nth - 1 >= 6


async def test_two_operations_finish_one_transaction(tmp_path: Path) -> None:
    """One gets the record, the other learns that it is finished; both ways round."""
    origin = tmp_path / "origin"
    started = await prepare(origin)
    winners = set()
    for seed in range(12):
        root = tmp_path / f"{seed}"
        shutil.copytree(origin, root)
        turns = Turns(seed)
        outcomes = await turns.run(
            *(Desk(root, turns.gate(each)).finish(started, each, by=each) for each in ("finish-a", "finish-b"))
        )
        [book] = [each for each in outcomes if isinstance(each, Book)]
        [refusal] = [each for each in outcomes if isinstance(each, ActionError)]
        assert refusal.code == "TransactionFinished"
        assert_shelf(root, book, SECOND)
        winners.add(book.metadata["by"])
        shutil.rmtree(root)
    assert winners == {"finish-a", "finish-b"}


async def test_two_transactions_of_one_book(tmp_path: Path) -> None:
    """Exactly one is published, whole; the other is out of date."""
    origin = tmp_path / "origin"
    one = await prepare(origin)
    other = await Desk(origin).start("42", BROKEN, "start-other")
    await Desk(origin).upload(other, BROKEN)
    winners = set()
    for seed in range(12):
        root = tmp_path / f"{seed}"
        shutil.copytree(origin, root)
        turns = Turns(seed)
        outcomes = await turns.run(
            Desk(root, turns.gate("one")).finish(one, "finish-one"),
            Desk(root, turns.gate("other")).finish(other, "finish-other"),
        )
        [book] = [each for each in outcomes if isinstance(each, Book)]
        [refusal] = [each for each in outcomes if isinstance(each, ActionError)]
        assert refusal.code == "ClientOutOfDate"
        assert_shelf(root, book, SECOND if book == outcomes[0] else BROKEN)
        winners.add(book == outcomes[0])
        shutil.rmtree(root)
    assert winners == {True, False}


async def test_a_start_while_another_publishes(tmp_path: Path) -> None:
    """A start is refused as out of date, or its folder holds all files that it reports."""
    origin = tmp_path / "origin"
    finished = await prepare(origin)
    seen = set()
    for seed in range(12):
        root = tmp_path / f"{seed}"
        shutil.copytree(origin, root)
        turns = Turns(seed)

        async def start(root: Path = root, turns: Turns = turns) -> int:
            started = await Desk(root, turns.gate("start")).start("42", FIRST, "start-3")
            assert_vouched(root, started, FIRST)
            return started.version

        outcome, book = await turns.run(start(), Desk(root, turns.gate("finish")).finish(finished, "finish-2"))
        assert isinstance(book, Book)
        seen.add(outcome.code if isinstance(outcome, ActionError) else outcome)
        shutil.rmtree(root)
    assert seen >= {"ClientOutOfDate", 2}


@pytest.mark.parametrize("seed", range(12))
async def test_many_clients_kills_and_late_attempts(tmp_path: Path, seed: int) -> None:
    """Three clients publish one book over and over; each attempt may be killed, or live on beside its successor.

    Whatever happens: version numbers have no gaps, each success is one version, all attempts of a finish agree, and in
    the end only the published version's files are there. What an attempt left behind that was killed after the end of
    its operation (every other seed) goes with the next version.
    """
    turns = Turns(seed, kill_share=0.01)
    late: list[asyncio.Task[Any]] = []

    async def operation(call: Call) -> Any:
        """Run two attempts at once, repeatedly while they are killed, without waiting for the slower one."""
        gate = turns.gate(f"{call}")
        while True:
            attempts = {turns.actor(call(Desk(tmp_path, gate))) for _ in range(2)}
            done, rest = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
            late.extend(rest)
            for attempt in done:
                if not isinstance(attempt.exception(), Killed):
                    gate.is_spared = seed % 2 == 0
                    return attempt.exception() or attempt.result()

    published: list[tuple[Book, Content]] = []

    async def client(name: str) -> None:
        for count in range(2):
            content = {"shared": b"same" * 100, f"only-{name}": b"1", "changes": f"{name}{count}".encode()}
            started = await operation(lambda desk, c=content, n=f"s-{name}-{count}": desk.start("42", c, n))
            if isinstance(started, UploadStarted):
                with contextlib.suppress(*STORE_ERRORS):  # the folder goes while it writes: finish says why
                    await Desk(tmp_path).upload(started, content)
                outcome = await operation(lambda desk, s=started, n=f"f-{name}-{count}": desk.finish(s, n))
                if isinstance(outcome, Book):
                    published.append((outcome, content))
                    continue
                assert outcome.code == "ClientOutOfDate"
            else:
                assert started.code == "ClientOutOfDate"

    await asyncio.gather(*(client(name) for name in "abc"))
    outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert not [each for each in outcomes if not isinstance(each, Book | UploadStarted | ActionError | Killed)]
    published.sort(key=lambda each: each[0].version)
    assert [book.version for book, _ in published] == list(range(1, len(published) + 1))
    for number, (book, _) in enumerate(published, 1):
        path = tmp_path / f"books/42/versions/{number:06d}.json"
        assert msgspec.json.decode(path.read_bytes(), type=Version).book == book
    for late_book in outcomes:
        assert not isinstance(late_book, Book) or late_book in [book for book, _ in published]
    if seed % 2 == 0:
        assert_shelf(tmp_path, *published[-1])
    following = await Desk(tmp_path).publish("42", FIRST, "following")
    assert following.version == len(published) + 1
    assert_shelf(tmp_path, following, FIRST)


def assert_shelf(root: Path, book: Book, content: Content) -> None:
    """The store holds the records, the files of this version, and nothing else."""
    assert [(file.path, file.sha256, file.size) for file in book.files] == [
        (file.path, file.sha256, len(content[file.path])) for file in announce(content)
    ]
    record = root / f"books/42/versions/{book.version:06d}.json"
    version = msgspec.json.decode(record.read_bytes(), type=Version)
    assert version.book == book
    folder = f"books/42/versions/{book.version:06d}/files/{version.transaction_id}"
    files = {name: data for name, data in everything(root).items() if data is not None and not name.endswith(".json")}
    assert files == {f"{folder}/{path}": data for path, data in content.items()}


def assert_vouched(root: Path, started: UploadStarted, content: Content) -> None:
    """The files that the client need not upload are there."""
    missing = {file.path for file in started.files_to_upload}
    folder = local_path(started.upload_url)
    assert folder.is_relative_to(root)
    for file in announce(content):
        if file.path not in missing:
            assert hashlib.sha256((folder / file.path).read_bytes()).hexdigest() == file.sha256
