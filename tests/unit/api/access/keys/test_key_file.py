"""The file of API keys: whole or not at all, for its owner only, and read again when it changes."""

from __future__ import annotations

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
    path.chmod(0o644)
    change_key_file(path, lambda before: [*before, other])
    assert read_key_file(path) == (one, other)
    assert {found.name: found.stat().st_mode & 0o777 for found in tmp_path.iterdir()} == {
        "keys.json": 0o600,
        "keys.json.lock": 0o600,
    }


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


def change_key_file_over(path: Path, records: Sequence[ApiKeyRecord]) -> None:
    """Replace a broken file."""
    path.unlink()
    change_key_file(path, lambda _: records)
