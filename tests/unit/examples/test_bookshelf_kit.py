"""What the bookshelf tests share: a client, a look at the store, kills at any storage call, forced interleaving."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from obstore.store import LocalStore, MemoryStore

from bookshelf.records import AnnouncedFile, Book, UploadStarted
from bookshelf.shelf import Shelf
from bookshelf.storage import LocalFolder, Storage
from opstream import ActionError

pytestmark = pytest.mark.unit

T0 = datetime(2026, 1, 1, tzinfo=UTC)
Content = dict[str, bytes]
_CALLS = ("get_async", "put_async", "copy_async", "delete_async", "list_with_delimiter_async")


class Killed(BaseException):
    """The process was killed; the code under test must not catch this."""


class Gate:
    """Passed before and after each storage call and each progress report."""

    async def before(self, call: str) -> int:
        """A call begins; return its number, since calls can be nested."""
        return 0

    async def after(self, number: int) -> None:
        """The call has taken effect."""

    def dies_halfway(self, number: int) -> bool:
        """Return True if a removal of many files must stop in the middle."""
        return False


class Killer(Gate):
    """Kills at the n-th call: before it, halfway through it (removals), or when it has taken effect."""

    def __init__(self, nth: int, when: str) -> None:
        self.nth, self.when, self.calls = nth, when, 0

    async def before(self, call: str) -> int:
        self.calls += 1
        if (self.calls, self.when) == (self.nth, "before"):
            raise Killed
        return self.calls

    async def after(self, number: int) -> None:
        if (number, self.when) == (self.nth, "after"):
            raise Killed

    def dies_halfway(self, number: int) -> bool:
        return (number, self.when) == (self.nth, "half")


class Pause(Gate):
    """Delays the n-th call until an event is set."""

    def __init__(self, nth: int, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self.nth, self.meanwhile, self.calls = nth, meanwhile, 0

    async def before(self, call: str) -> int:
        self.calls += 1
        if self.calls == self.nth:
            await self.meanwhile()
        return self.calls


class Turns:
    """Lets one of several actors run at a time, and changes at each of their calls to one chosen by a seed."""

    def __init__(self, seed: int, kill_share: float = 0.0) -> None:
        self.random, self.kill_share = random.Random(seed), kill_share
        self.live = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.order: list[str] = []

    def gate(self, name: str) -> Turn:
        """The gate that an actor's calls pass."""
        return Turn(self, name)

    def actor(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start an actor: from now on the others wait for it to make a call or end."""
        self.live += 1
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    async def run(self, *actors: Coroutine[Any, Any, Any]) -> list[Any]:
        """The actors' results or exceptions, in their order."""
        return await asyncio.gather(*(self.actor(work) for work in actors), return_exceptions=True)

    async def wait(self, name: str) -> None:
        """Wait for one's turn."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self._step()
        await future
        self.order.append(name)

    def _ended(self, _task: asyncio.Task[Any]) -> None:
        self.live -= 1
        self._step()

    def _step(self) -> None:
        if self.waiting and len(self.waiting) >= self.live:
            self.waiting.pop(self.random.randrange(len(self.waiting))).set_result(None)


class Turn(Gate):
    """Waits for its turn at each call, and may die there."""

    def __init__(self, turns: Turns, name: str) -> None:
        self._turns, self._name = turns, name
        self.is_spared = False
        """True once no call dies any more."""

    async def before(self, call: str) -> int:
        await self._turns.wait(self._name)
        await self.after(0)
        return 0

    async def after(self, number: int) -> None:
        if self._turns.random.random() < self._turns.kill_share and not self.is_spared:
            raise Killed


class Gated:
    """A store whose calls pass a gate."""

    def __init__(self, store: Any, gate: Gate) -> None:
        self._store, self._gate = store, gate

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name not in _CALLS:
            return real

        async def call(*args: Any, **kwargs: Any) -> Any:
            number = await self._gate.before(name)
            if name == "delete_async" and self._gate.dies_halfway(number):
                await real(args[0][: len(args[0]) // 2])
                raise Killed
            try:
                return await real(*args, **kwargs)
            finally:
                await self._gate.after(number)

        return call


class GatedFolder(LocalFolder):
    """A local folder whose own calls pass a gate, besides those of its store."""

    def __init__(self, root: Path, gate: Gate) -> None:
        super().__init__(Gated(LocalStore(root, mkdir=True), gate), root)
        self._gate = gate

    async def make_folder(self, folder: str) -> None:
        number = await self._gate.before("make_folder")
        await super().make_folder(folder)
        await self._gate.after(number)

    async def remove_folder(self, folder: str) -> None:
        number = await self._gate.before("remove_folder")
        if self._gate.dies_halfway(number):
            found = sorted(path for path in (self._root / folder).rglob("*") if path.is_file())
            for path in found[::2]:
                path.unlink()
            raise Killed
        await super().remove_folder(folder)
        await self._gate.after(number)


class Desk:
    """A storage, a shelf over it, and a client who writes straight into upload folders."""

    def __init__(self, place: Path | MemoryStore, gate: Gate | None = None, now: datetime = T0) -> None:
        self.gate = gate or Gate()
        self.raw: Any = LocalStore(place, mkdir=True) if isinstance(place, Path) else place
        self.storage: Storage = (
            GatedFolder(place, self.gate) if isinstance(place, Path) else Storage(Gated(place, self.gate), "memory://")
        )
        self.shelf = Shelf(self.storage, clock=lambda: now)
        self.reports: list[tuple[float, str]] = []

    async def report(self, percent: float, message: str) -> None:
        number = await self.gate.before("progress")
        self.reports.append((percent, message))
        await self.gate.after(number)

    async def start(self, book: str, content: Content, operation: str = "start-1", title: str = "T") -> UploadStarted:
        return await self.shelf.start(
            book, operation_id=operation, title=title, files=announce(content), progress=self.report
        )

    async def upload(self, started: UploadStarted, content: Content) -> None:
        """Upload the requested files of `content`."""
        for file in started.files_to_upload:
            if file.path in content:
                await self.raw.put_async(self.path_of(file.upload_url), content[file.path])

    def path_of(self, url: str) -> str:
        parts = urlsplit(url)
        root = urlsplit(self.storage.folder_url("x").removesuffix("/x/")).path
        return unquote((parts.netloc + parts.path) if parts.scheme == "memory" else parts.path.removeprefix(root + "/"))

    async def finish(self, started: UploadStarted, operation: str = "finish-1", **metadata: Any) -> Book:
        return await self.shelf.finish(
            started.book_id,
            started.transaction_id,
            operation_id=operation,
            metadata=metadata,
            progress=self.report,
        )

    async def publish(self, book: str, content: Content, name: str) -> Book:
        started = await self.start(book, content, f"start-{name}")
        await self.upload(started, content)
        return await self.finish(started, f"finish-{name}")

    async def tree(self) -> Content:
        """Everything in the store."""
        found = await self.raw.list().collect_async()
        return {each["path"]: bytes(await (await self.raw.get_async(each["path"])).bytes_async()) for each in found}


def announce(content: Content) -> list[AnnouncedFile]:
    return [AnnouncedFile(path=path, sha256=hashlib.sha256(data).hexdigest()) for path, data in content.items()]


async def code_of(call: Awaitable[Any]) -> str:
    """How an action fails: its code and target."""
    with pytest.raises(ActionError) as caught:
        await call
    return f"{caught.value.code} {caught.value.target}".strip()


def local_path(url: str) -> Path:
    """The path of a `file:` URL."""
    return Path(unquote(urlsplit(url).path))


def later(count: int) -> datetime:
    return T0 + timedelta(hours=count)


async def test_turns_are_a_real_interleaving() -> None:
    """Without this, every test of two attempts at once could pass by running them one after the other."""
    orders = set()
    for seed in range(20):
        turns = Turns(seed)

        async def actor(name: str, turns: Turns = turns) -> None:
            gate = turns.gate(name)
            for _ in range(3):
                await gate.before("")

        await turns.run(actor("a"), actor("b"))
        orders.add("".join(turns.order))
    assert len(orders) > 8
    assert all(sorted(order) == list("aaabbb") for order in orders)
