"""The folder of a backup, and what its manifest says, without a broker."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from opstream.backup.backup_folder import PARTIAL, SUMS, NewBackup, check_backup, find_backup, free_path, read_chunks
from opstream.backup.manifest import FORMAT, FileRecord, Manifest, decode_manifest, encode_manifest
from opstream.backup.restore import _next_step
from opstream.backup.stream_plan import NEVER_COPIED, backup_order, required_streams
from opstream.terminal.console import CommandError
from opstream_journal import BrokerRefused
from opstream_journal.provisioning.topology import Sizing, streams

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, 2, 15, tzinfo=UTC)
EMPTY = Manifest(
    format=FORMAT, opstream_version="0.4.0", server_version="2.15.1", began_at=NOW, ended_at=NOW, streams=()
)


def test_a_folder_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    """Until all is checked, the folder ends with `.partial`; then it has its name, and nothing else is left."""
    seen: list[Path] = []
    with NewBackup(tmp_path / "one") as folder:
        folder.finish(EMPTY, check=seen.append)
    assert [path.name for path in seen] == [f"one{PARTIAL}"]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert check_backup(tmp_path / "one") == EMPTY


def test_one_that_does_not_end_leaves_nothing(tmp_path: Path) -> None:
    """An error in the middle removes all that was written, and only that."""
    (tmp_path / "mine").write_text("mine")

    def fail_in_the_middle() -> None:
        with NewBackup(tmp_path / "one") as folder:
            folder.create("OPERATIONS.snapshot").write(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_name_is_used_once(tmp_path: Path) -> None:
    """Backups of one second have different folders, also beside one that was killed."""
    first = free_path(tmp_path, NOW)
    assert first.name == "20261130T021500Z"
    first.mkdir()
    second = free_path(tmp_path, NOW)
    second.with_name(f"{second.name}{PARTIAL}").mkdir()
    assert free_path(tmp_path, NOW).name == "20261130T021500Z-3"


def test_the_folder_above_the_backups(tmp_path: Path) -> None:
    """The only whole backup in a folder is taken; of several the error has the names, and which is the newest."""
    assert find_backup(tmp_path) == tmp_path, "which is none, and check_backup says so"
    for name in ("20261130T021500Z", f"20261202T021500Z{PARTIAL}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / SUMS).touch()
    only = tmp_path / "20261130T021500Z"
    assert (find_backup(tmp_path), find_backup(only)) == (only, only)
    newest = tmp_path / "20261201T021500Z"
    newest.mkdir()
    (newest / SUMS).touch()
    with pytest.raises(CommandError) as several:
        find_backup(tmp_path)
    assert "2 backups, 20261130T021500Z, 20261201T021500Z: name one of them" in str(several.value)
    assert str(several.value).endswith(f"the newest is {newest}")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """What is sent to the broker is what was checked before."""
    path = tmp_path / "OPERATIONS.snapshot"
    path.write_bytes(b"changed")
    record = FileRecord(name=path.name, bytes=7, sha256=hashlib.sha256(b"checked").hexdigest())
    with pytest.raises(CommandError, match="has changed since it was checked"):
        list(read_chunks(path, 4, record))


@pytest.mark.parametrize("line", ["../x", "/etc/passwd", ".hidden"])
def test_a_sum_names_no_file_elsewhere(tmp_path: Path, line: str) -> None:
    """A list of sums can't make a restore read a file outside of the folder."""
    (tmp_path / SUMS).write_text(f"{'0' * 64}  {line}\n")
    with pytest.raises(CommandError, match="is damaged"):
        check_backup(tmp_path)


def test_members_that_a_later_version_adds_are_ignored() -> None:
    """A manifest of this format is read, whatever further members it has."""
    content = msgspec.json.encode({**msgspec.json.decode(encode_manifest(EMPTY)), "later": [1]})
    assert decode_manifest(content, "manifest.json") == EMPTY


def test_every_stream_has_a_place() -> None:
    """Each stream that `provision` makes is copied once, but for keys of operations; those that no service can do
    without are required."""
    names = [planned.name for planned in backup_order()]
    assert len(names) == len(set(names))
    assert {str(one.name) for one in streams(Sizing())} - set(names) == NEVER_COPIED
    assert required_streams() <= set(names)


@pytest.mark.parametrize(
    ("refused", "step"),
    [
        (BrokerRefused(500, 10062, "restore failed: io: read/write on closed pipe"), "sync_interval: 2m"),
        (BrokerRefused(500, 10074, "replicas > 1 not supported in non-clustered mode"), "--replicas"),
        (BrokerRefused(500, 10047, "insufficient storage resources available"), "log"),
    ],
)
def test_a_refusal_has_a_next_step(refused: BrokerRefused, step: str) -> None:
    """What the broker refuses in a restore comes with what to do about it."""
    assert step in _next_step(refused)
