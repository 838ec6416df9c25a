"""The file of API keys: whole or not at all, for its owner only, and read again when it changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opstream_api.access.keys.api_key import ApiKeyRecord, create_key
from opstream_api.access.keys.key_file import InvalidKeyFile, KeyFileWatch, change_key_file, read_key_file
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def record() -> ApiKeyRecord:
    """A record of a new key."""
    return create_key(tenant="", subject="ci", scopes=["read"], now=NOW, expires=None)[1]


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """Also the file that has been replaced, and the lock; nothing else remains."""
    path = tmp_path / "keys.json"
    one, other = record(), record()
    change_key_file(path, lambda before: [*before, one])
    change_key_file(path, lambda before: [*before, other])
    assert read_key_file(path) == (one, other)
    assert {found.name: found.stat().st_mode & 0o777 for found in tmp_path.iterdir()} == {
        "keys.json": 0o600,
        "keys.json.lock": 0o600,
    }


def test_a_change_keeps_owner_and_mode(tmp_path: Path) -> None:
    """Otherwise the service, under its own user, could not read what root has revoked."""
    path = tmp_path / "keys.json"
    change_key_file(path, lambda _: [record()])
    owner, group = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    os.chown(path, owner, group)
    path.chmod(0o640)
    change_key_file(path, lambda _: [])
    found = path.stat()
    assert read_key_file(path) == ()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (owner, group, 0o640)


def test_a_change_that_would_take_the_file_from_its_owner_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stays as it is, and the error says as which user to run the command."""
    path = tmp_path / "keys.json"
    one = record()
    change_key_file(path, lambda _: [one])

    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(InvalidKeyFile, match="as root"):
        change_key_file(path, lambda _: [])
    assert read_key_file(path) == (one,)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_change_that_fails_leaves_the_file(tmp_path: Path) -> None:
    """And no other one beside it."""
    path = tmp_path / "keys.json"
    one = record()
    change_key_file(path, lambda before: [*before, one])

    def fail(_before: Sequence[ApiKeyRecord]) -> Sequence[ApiKeyRecord]:
        raise LookupError

    with pytest.raises(LookupError):
        change_key_file(path, fail)
    assert read_key_file(path) == (one,)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """As orchestrators mount secrets."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "keys.json"
    link.symlink_to(tmp_path / "real" / "keys.json")
    change_key_file(link, lambda before: [*before, record()])
    assert link.is_symlink()
    assert len(read_key_file(link)) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"keys": [{}]}', '{"keys": 7}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    """With its name."""
    path = tmp_path / "keys.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidKeyFile, match=r"keys\.json"):
        read_key_file(path)


def test_two_keys_with_one_id_are_refused(tmp_path: Path) -> None:
    """Which of them were valid would depend on their order."""
    path = tmp_path / "keys.json"
    one = record()
    change_key_file(path, lambda _: [one, one])
    with pytest.raises(InvalidKeyFile, match="one id"):
        read_key_file(path)


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    """That makes one."""
    with pytest.raises(InvalidKeyFile, match="opstream apikey add --file"):
        read_key_file(tmp_path / "keys.json")


async def test_each_change_is_read_and_a_broken_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The keys that were read last stay in use until the file is right again."""
    path = tmp_path / "keys.json"
    one, other = record(), record()
    change_key_file(path, lambda _: [one])
    seen: list[tuple[ApiKeyRecord, ...]] = []
    watch = KeyFileWatch(path, lambda records: seen.append(tuple(records)))
    watch.start()
    try:
        assert seen == [(one,)]
        path.write_text("{", encoding="utf-8")
        await eventually(lambda: "stay in use" in caplog.text, within=5)
        assert seen == [(one,)]
        change_key_file_over(path, [one, other])
        await eventually(lambda: seen[-1] == (one, other), within=5)
        path.unlink()
        await eventually(lambda: caplog.text.count("stay in use") == 2, within=5)
        assert seen[-1] == (one, other)
    finally:
        await watch.stop()


async def test_a_revocation_is_read_as_soon_as_the_file_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the file does not change between the read that failed and the next one."""
    path = tmp_path / "keys.json"
    one = record()
    change_key_file(path, lambda _: [one])
    seen: list[tuple[ApiKeyRecord, ...]] = []
    watch = KeyFileWatch(path, lambda records: seen.append(tuple(records)))
    watch.start()
    tries: list[Path] = []

    def refuse(path: Path) -> bytes:
        tries.append(path)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", refuse)
            path.write_text('{"keys": []}', encoding="utf-8")
            await eventually(lambda: len(tries) >= 3, within=5)
        await eventually(lambda: seen == [(one,), ()], within=5)
        assert caplog.text.count("stay in use") == 1
    finally:
        await watch.stop()


async def test_a_file_that_is_only_given_back_is_read_again(tmp_path: Path) -> None:
    """A change of owner or mode alone is one: it may have ended what kept the service from reading."""
    path = tmp_path / "keys.json"
    change_key_file(path, lambda _: [record()])
    seen: list[tuple[ApiKeyRecord, ...]] = []
    watch = KeyFileWatch(path, lambda records: seen.append(tuple(records)))
    watch.start()
    try:
        path.chmod(0o640)
        await eventually(lambda: len(seen) == 2, within=5)
    finally:
        await watch.stop()


def change_key_file_over(path: Path, records: Sequence[ApiKeyRecord]) -> None:
    """Replace a broken file."""
    path.unlink()
    change_key_file(path, lambda _: records)
