"""What the actions refuse of a client's files: by the schema before anything is recorded, or as InvalidFiles."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from obstore.store import LocalStore

from bookshelf.actions import upload_finish, upload_start
from bookshelf.input_rules import MAX_NAME_BYTES, check_files, check_metadata, path_problem
from bookshelf.records import (
    MAX_FILES,
    MAX_METADATA_BYTES,
    MAX_PATH_BYTES,
    AnnouncedFile,
    Book,
    PublishedFile,
    UploadFinish,
    UploadStart,
)
from opstream import ActionError
from tests.unit.examples.test_bookshelf_kit import T0, Desk, code_of

pytestmark = pytest.mark.unit

HASH = "0" * 64
START = jsonschema_rs.validator_for(upload_start.spec.input_schema)
FINISH = jsonschema_rs.validator_for(upload_finish.spec.input_schema)

GOOD = [
    "a",
    "a/b",
    ".hidden",
    "..a",
    "...",
    "a..b",
    "a/.b",
    "a.",
    "ü/日本 語",
    " ",
    "a#b",
    "a#1/b",
    "%2e%2e",
    "C:",
    "~",
    "-",
]
BAD = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "./a",
    "a/.",
    "a\\b",
    "\\",
    "a\0",
    "a\nb",
    "a\n",
]
BAD += ["\x7f", "\x85", "a/\t", "\ufffe", "..\\a", "\r"]
UNSPEAKABLE = ["a#1", "a/b#007", "\ud800", "é" * 300, "a/" + "x" * 201, "ü" * 101]
"""Paths that are wrong in ways that a schema can't express."""

texts = st.text(st.sampled_from("ab./\\#1\n\0ü "), max_size=12) | st.text(max_size=30)


def start_input(*paths: str, **changes: Any) -> dict[str, Any]:
    return {"title": "T", "files": [{"path": path, "sha256": HASH} for path in paths], **changes}


def listed(*paths: str) -> list[AnnouncedFile]:
    return [AnnouncedFile(path=path, sha256=HASH) for path in paths]


@pytest.mark.parametrize("path", GOOD)
def test_good_paths(path: str) -> None:
    """Good paths are accepted by the schema, by msgspec and by the rules."""
    assert START.is_valid(start_input(path))
    msgspec.convert(start_input(path), UploadStart)
    check_files(listed(path))


@pytest.mark.parametrize("path", BAD)
def test_bad_paths(path: str) -> None:
    """The schema refuses bad paths, and so do the rules of the action."""
    assert not START.is_valid(start_input(path))
    with pytest.raises(ActionError, match="InvalidFiles") as caught:
        check_files(listed("good", path))
    assert caught.value.target == "files[1].path"


@pytest.mark.parametrize("path", UNSPEAKABLE)
def test_paths_that_the_schema_can_not_refuse(path: str) -> None:
    """The action refuses these paths, which the schema accepts."""
    with pytest.raises(ActionError, match="InvalidFiles"):
        check_files(listed(path))


@given(texts)
@example("a\n")
@example("ü" * (MAX_NAME_BYTES // 2))
def test_paths_stay_where_they_are_put(path: str) -> None:
    """An accepted path means one place below its folder, and the schema and LocalStore accept it too."""
    if path_problem(path):
        return
    assert START.is_valid(start_input(path))
    parts = path.split("/")
    assert PurePosixPath(path).parts == tuple(parts)
    assert not {"", ".", ".."} & set(parts)
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert not any(ord(character) < 32 or character in "\\\x7f" for character in path)


@given(st.lists(texts, max_size=6))
def test_lists_that_are_taken_can_be_stored(tmp_path_factory: pytest.TempPathFactory, paths: list[str]) -> None:
    """An accepted list can be stored on a file system."""
    try:
        check_files(listed(*paths))
    except ActionError:
        return
    store = LocalStore(tmp_path_factory.mktemp("files"))
    for path in paths:
        store.put(path, b"")
    assert sorted(each["path"] for each in store.list().collect()) == sorted(paths)


@pytest.mark.parametrize(
    ("paths", "target"),
    [
        (["a", "b", "a"], "files[2].path"),
        (["a", "a/b"], "files[1].path"),
        (["a/b/c", "x", "a/b"], "files[0].path"),
        ([], "files"),
        ([str(count) for count in range(MAX_FILES + 1)], "files"),
        ([f"{'x' * 100}/{'x' * 100}/{count}" for count in range(300)], "files"),
    ],
)
def test_lists(paths: list[str], target: str) -> None:
    """A list must not be empty or too long, and each file has its own path."""
    with pytest.raises(ActionError, match="InvalidFiles") as caught:
        check_files(listed(*paths))
    assert caught.value.target == target


def test_metadata() -> None:
    """Bounded in bytes."""
    check_metadata({"text": "x" * (MAX_METADATA_BYTES - 20)})
    with pytest.raises(ActionError, match="InvalidMetadata") as caught:
        check_metadata({"text": "x" * MAX_METADATA_BYTES})
    assert caught.value.target == "metadata"


def test_the_largest_book_fits_a_result() -> None:
    """Of 256 KiB: what has been published must not fail as ResultTooLarge."""
    paths = [f"{count:03}" + '"' * 45 for count in range(MAX_FILES)]
    check_files(listed(*paths))
    book = Book(
        book_id='"' * 256,
        version=10**6,
        title='"' * 300,
        metadata={"text": "x" * (MAX_METADATA_BYTES - 20)},
        files=[PublishedFile(path=path, sha256=HASH, size=10**10) for path in paths],
        published_at=T0,
    )
    assert len(msgspec.json.encode(book)) < 256 * 1024


def test_files_beside_folders() -> None:
    """Only whole names count."""
    check_files(listed("a", "ab/c", "b/a", "a.b/c"))
    check_files(listed(*(f"{count}" for count in range(MAX_FILES))))


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", " " + "0" * 63])
def test_bad_hashes(sha256: str) -> None:
    """Only 64 lowercase hex digits are a hash."""
    assert not START.is_valid({"title": "T", "files": [{"path": "a", "sha256": sha256}]})
    with pytest.raises(ActionError, match="InvalidFiles") as caught:
        check_files([AnnouncedFile(path="a", sha256=sha256)])
    assert caught.value.target == "files[0].sha256"


@pytest.mark.parametrize(
    "bad",
    [
        start_input(),
        start_input("a", title=""),
        start_input("a", title="x" * 301),
        start_input("a", title=None),
        start_input("a", extra=1),
        start_input(*map(str, range(MAX_FILES + 1))),
        {"title": "T", "files": [{"path": "a", "sha256": HASH, "size": 1}]},
        {"title": "T"},
        {"files": [{"path": "a", "sha256": HASH}]},
    ],
)
def test_bad_starts(bad: dict[str, Any]) -> None:
    """Refused by the schema, so before anything is recorded, and by the handler's type."""
    assert not START.is_valid(bad)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, UploadStart)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"transactionId": ""},
        {"transactionId": "x" * 101},
        {"transactionId": "t", "metadata": []},
        {"transactionId": "t", "metadata": {str(count): 1 for count in range(101)}},
        {"transactionId": "t", "other": 1},
    ],
)
def test_bad_finishes(bad: dict[str, Any]) -> None:
    """Refused by the schema and by the handler's type."""
    assert not FINISH.is_valid(bad)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, UploadFinish)


async def test_nothing_is_stored_of_a_refused_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The rules come before the first record."""
    desk = Desk(tmp_path_factory.mktemp("shelf"))
    assert await code_of(desk.start("42", {"../../x": b""})) == "InvalidFiles files[0].path"
    assert await desk.tree() == {}
