"""The two actions step by step, on a real folder and on obstore's store in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from bookshelf.layout import book_key
from bookshelf.records import PublishedFile
from tests.unit.examples.test_bookshelf_kit import T0, Desk, announce, code_of, later, local_path

pytestmark = pytest.mark.unit

FIRST = {"a.md": b"one", "chapters/1.md": b"two" * 1000, "empty": b""}
SECOND = {"a.md": b"changed", "chapters/1.md": b"two" * 1000, "new file #ü%.md": b"3"}


@pytest.fixture(params=["local", "memory"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    return Desk(tmp_path / "the shelf" if request.param == "local" else MemoryStore())


async def test_a_first_version(desk: Desk) -> None:
    """All files must be uploaded; the record has the published ones."""
    started = await desk.start("42", FIRST, title="The Book")
    assert [file.path for file in started.files_to_upload] == list(FIRST)
    assert (started.book_id, started.version, started.files_unchanged) == ("42", 1, 0)
    for file in started.files_to_upload:
        assert file.upload_url.startswith(started.upload_url)
    await desk.upload(started, FIRST)
    book = await desk.finish(started, author="A", tags=["x", 1])
    assert (book.book_id, book.version, book.title, book.published_at) == ("42", 1, "The Book", T0)
    assert book.metadata == {"author": "A", "tags": ["x", 1]}
    assert book.files == [
        PublishedFile(path=file.path, sha256=file.sha256, size=len(FIRST[file.path])) for file in announce(FIRST)
    ]


async def test_a_second_version_asks_only_for_what_changed(desk: Desk) -> None:
    """Unchanged files are there already; afterwards only the new version's files are left."""
    await desk.publish("42", FIRST, "1")
    desk.reports.clear()
    started = await desk.start("42", SECOND, "start-2")
    assert [file.path for file in started.files_to_upload] == ["a.md", "new file #ü%.md"]
    assert (started.version, started.files_unchanged) == (2, 1)
    assert desk.reports == [(0.0, "copying chapters/1.md")]
    await desk.upload(started, SECOND)
    book = await desk.finish(started, "finish-2")
    assert [file.path for file in book.files] == list(SECOND)
    folder = f"books/42/versions/000002/files/{started.transaction_id}"
    files = {path: data for path, data in (await desk.tree()).items() if not path.endswith(".json")}
    assert files == {f"{folder}/{path}": data for path, data in SECOND.items()}


async def test_progress_reaches_the_end_and_never_goes_back(desk: Desk) -> None:
    """Each file counts the same, its bytes count within."""
    content = {"big": os.urandom(3_500_000), "small": b"1"}
    await desk.publish("42", content, "1")
    percents = [percent for percent, _ in desk.reports]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    if not isinstance(desk.raw, MemoryStore):
        assert len(percents) == 5


async def test_new_gives_an_id_that_can_be_used_from_then_on(desk: Desk) -> None:
    """The id is the same for all attempts, and another for another operation."""
    started = await desk.start("new", FIRST)
    assert (await desk.start("new", FIRST)).book_id == started.book_id
    assert (await desk.start("new", FIRST, "start-2")).book_id != started.book_id
    await desk.upload(started, FIRST)
    assert (await desk.finish(started)).book_id == started.book_id
    assert (await desk.start(started.book_id, FIRST, "start-3")).version == 2


@pytest.mark.parametrize(
    "book", ["The Book: 1", "%2e%2e", "~x", "ü/ü", "A", "x" * 256, "\\", "a#1", " ", "NEW", "é" * 256]
)
async def test_any_text_is_a_book(desk: Desk, book: str) -> None:
    """Each id has a folder of its own right below `books`."""
    await desk.publish(book, FIRST, "1")
    assert (await desk.publish(book, SECOND, "2")).version == 2
    assert {path.split("/")[1] for path in await desk.tree()} == {book_key(book)}


def test_book_keys_are_short_and_differ() -> None:
    """Also on file systems that ignore case, and a plain id can't claim another's hash."""
    ids = ["a", "A", "~a", "a b", "a%20b", "new", "x" * 256, "X" * 256, book_key("A"), "", "é", "e\u0301"]
    keys = {book_key(each).lower() for each in ids}
    assert len(keys) == len(ids)
    assert max(map(len, keys)) <= 65
    assert book_key("isbn-978_1") == "isbn-978_1"


async def test_a_missing_file(desk: Desk) -> None:
    """The upload can be completed, and finished by another operation."""
    started = await desk.start("42", FIRST)
    await desk.upload(started, {"a.md": FIRST["a.md"], "empty": b""})
    assert await code_of(desk.finish(started)) == "MissingFile files[1].path"
    await desk.upload(started, FIRST)
    assert (await desk.finish(started, "finish-2")).version == 1


async def test_a_wrong_hash(desk: Desk) -> None:
    """Nothing wrong ever reaches the version's folder; the upload can be put right."""
    started = await desk.start("42", FIRST)
    await desk.upload(started, {**FIRST, "chapters/1.md": b"two" * 999})
    assert await code_of(desk.finish(started)) == "WrongHash files[1].sha256"
    stored = [path for path in await desk.tree() if "/files/" in path]
    assert [path.rpartition("/")[2] for path in stored] == ["a.md"]
    await desk.upload(started, FIRST)
    assert (await desk.finish(started, "finish-2")).version == 1


async def test_an_unchanged_file_that_the_client_changed(desk: Desk) -> None:
    """What was copied into the upload folder is verified like the rest, and published files stay as they are."""
    await desk.publish("42", FIRST, "1")
    before = await desk.tree()
    started = await desk.start("42", FIRST, "start-2")
    assert (started.files_unchanged, started.files_to_upload) == (3, [])
    if not isinstance(desk.raw, MemoryStore):
        # In place: were it a hard link, this would change the published file.
        with (local_path(started.upload_url) / "a.md").open("r+b") as file:
            file.write(b"evil")
    else:
        await desk.raw.put_async(desk.path_of(started.upload_url) + "a.md", b"evil")
    assert await code_of(desk.finish(started, "finish-2")) == "WrongHash files[0].sha256"
    assert {path: data for path, data in (await desk.tree()).items() if path in before} == before


@pytest.mark.parametrize("transaction", ["", "nope", "../x", "tx-" + "0" * 32, "tx-" + "0" * 32 + "\n", "x" * 100])
async def test_an_unknown_transaction(desk: Desk, transaction: str) -> None:
    """An unknown transaction id of any text is refused, and is not used as a path."""
    call = desk.shelf.finish("42", transaction, operation_id="o", metadata={}, progress=desk.report)
    assert await code_of(call) == "UnknownTransaction transactionId"


async def test_a_transaction_of_another_book(desk: Desk) -> None:
    """A book's URL finishes only that book's transactions."""
    started = await desk.start("42", FIRST)
    call = desk.shelf.finish("43", started.transaction_id, operation_id="o", metadata={}, progress=desk.report)
    assert await code_of(call) == "UnknownTransaction transactionId"


async def test_a_finished_transaction(desk: Desk) -> None:
    """Another operation is refused; the same one gets its record again, also after the next version, with its time."""
    started = await desk.start("42", FIRST)
    await desk.upload(started, FIRST)
    book = await desk.finish(started)
    assert await code_of(desk.finish(started, "finish-2")) == "TransactionFinished transactionId"
    place = desk.raw if isinstance(desk.raw, MemoryStore) else Path(desk.raw.prefix)
    again = Desk(place, now=later(1))
    assert await again.finish(started) == book
    await desk.publish("42", SECOND, "2")
    before = await desk.tree()
    assert await again.finish(started) == book
    assert await code_of(desk.finish(started, "finish-2")) == "TransactionFinished transactionId"
    assert await desk.tree() == before


async def test_a_rival_was_faster(desk: Desk) -> None:
    """A full announcement made from an older version would undo the newer one, so it is refused, and its files go."""
    one = await desk.start("42", FIRST, "start-1")
    two = await desk.start("42", SECOND, "start-2")
    await desk.upload(one, FIRST)
    await desk.upload(two, SECOND)
    await desk.finish(two, "finish-2")
    await desk.upload(one, FIRST)
    assert await code_of(desk.finish(one, "finish-1")) == "ClientOutOfDate"
    assert await code_of(desk.start("42", FIRST, "start-1")) == "ClientOutOfDate"
    assert not [path for path in await desk.tree() if one.transaction_id in path and not path.endswith(".json")]
    assert (await desk.start("42", FIRST, "start-3")).version == 2


async def test_abandoned_uploads_go_with_the_next_version(desk: Desk) -> None:
    """Unfinished uploads are removed with the next version."""
    abandoned = await desk.start("42", FIRST, "start-0")
    await desk.upload(abandoned, FIRST)
    await desk.upload(await desk.start("42", FIRST, "half"), {"a.md": b"wrong"})
    await desk.publish("42", SECOND, "1")
    files = [path for path in await desk.tree() if not path.endswith(".json")]
    assert len(files) == len(SECOND)


async def test_no_book_is_named(desk: Desk) -> None:
    """`POST /book:upload-start` has no id."""
    assert await code_of(desk.start("", FIRST)) == "InvalidBook"


async def test_more_than_nine_versions(desk: Desk) -> None:
    """The latest version is the highest number, not the last in a listing."""
    for count in range(12):
        book = await desk.publish("42", {"a": str(count).encode()}, str(count))
        assert book.version == count + 1


async def test_the_upload_folder_is_there(tmp_path: Path) -> None:
    """A client can copy into it at once."""
    started = await Desk(tmp_path).start("42", FIRST)
    (local_path(started.upload_url) / "a.md").write_bytes(b"")


async def test_odd_things_in_a_local_upload_folder(tmp_path: Path) -> None:
    """Links are not followed when the folder goes, and no name in it disturbs this or another upload."""
    desk = Desk(tmp_path / "shelf")
    precious = tmp_path / "mine" / "1.md"
    precious.parent.mkdir()
    precious.write_bytes(FIRST["chapters/1.md"])
    started = await desk.start("42", FIRST)
    folder = local_path(started.upload_url)
    (folder / "chapters").symlink_to(precious.parent)
    (folder / "loop").symlink_to(folder)
    for name in ["line\nfeed", "a.md#1", os.fsdecode(b"\xff\xfe")]:
        (folder / name).write_bytes(b"")
    await desk.upload(started, {"a.md": FIRST["a.md"], "empty": b""})
    assert (await desk.finish(started)).version == 1
    assert precious.read_bytes() == FIRST["chapters/1.md"]
    assert not list((tmp_path / "shelf").rglob("uploads"))


async def test_cleaning_up_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """A published version is not reported as failed; the next version removes the leftovers."""
    desk = Desk(tmp_path)
    await desk.publish("42", FIRST, "1")

    async def refuse(_folder: str) -> None:
        raise PermissionError("not yours")

    with monkeypatch.context() as patch:
        patch.setattr(desk.storage, "remove_folder", refuse)
        assert (await desk.publish("42", SECOND, "2")).version == 2
    assert "could not clean up after version 2 of 42: not yours" in caplog.text
    await desk.publish("42", FIRST, "3")
    files = [path for path in await desk.tree() if not path.endswith(".json")]
    assert len(files) == len(FIRST)
