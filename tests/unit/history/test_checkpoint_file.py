"""Keys and the file of checkpoints: signed checkpoints are read again, changed ones refused. And invalid options."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from opstream.cli.app import main
from opstream.history import checkpoint_file as checkpoints
from opstream.history.signing_keys import load_private_key, load_public_key, public_pem
from opstream.terminal.console import CommandError
from opstream_schemas.integrity.chain_state import ChainHead
from opstream_schemas.integrity.checkpoint import (
    SEGMENT_SIZE,
    Checkpoint,
    CheckpointBuilder,
    CheckpointVerifier,
    boundary_findings,
    lowered_age_limit,
    premature_expiry_findings,
)
from tests.support.schemas.histories import NOW

pytestmark = pytest.mark.unit

DAY = 86_400
HEADS = {"op-1": ChainHead("book:upload-start", 3, "a" * 64, 7, 3)}


def checkpoint(number: int = 1, *, previous: str = "", first: int = 1, count: int = 10, age: float = 0.0) -> Checkpoint:
    """A checkpoint of `count` messages, one a second."""
    coverer = CheckpointBuilder(first)
    for sequence in range(first, first + count):
        coverer.add_message(sequence, "operations.a.b.c.started", "0" * 64, stored(sequence))
    return Checkpoint(
        number=number,
        previous=previous,
        time=NOW,
        stream="OPERATIONS",
        created="then",
        max_age=age,
        begin=1,
        first=first,
        last=first + count - 1,
        messages=count,
        findings=0,
        heads="",
        segments=coverer.finish(first + count - 1),
    )


def stored(sequence: int) -> int:
    """Nanoseconds since 1970."""
    return (int(NOW.timestamp()) + sequence) * 1_000_000_000


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def path(tmp_path: Path, key: Ed25519PrivateKey) -> Path:
    """A file with two checkpoints."""
    path = tmp_path / "c"
    line = checkpoints.append_checkpoint(path, checkpoint(), checkpoints.encode_heads(HEADS), key)
    checkpoints.append_checkpoint(path, checkpoint(2, previous=line, first=11), checkpoints.encode_heads(HEADS), key)
    return path


def test_written_checkpoints_are_read(path: Path, key: Ed25519PrivateKey) -> None:
    """Signed checkpoints come back as they were, in order."""
    signed = checkpoints.read_checkpoints(path, [key.public_key()])

    assert [one.number for one in signed.checkpoints] == [1, 2]
    assert signed.checkpoints[0] == checkpoint()


def test_any_changed_byte_is_refused(path: Path, key: Ed25519PrivateKey) -> None:
    """A file with any changed byte is not read."""
    content = path.read_bytes()
    for place in range(0, len(content) - 1, 7):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CommandError):
            checkpoints.read_checkpoints(path, [key.public_key()])


@pytest.mark.parametrize(
    ("change", "status", "what"),
    [
        (lambda lines: [lines[0].replace(b'"messages":10', b'"messages":11'), lines[1]], 1, "signature is wrong"),
        (lambda lines: lines[1:], 1, "checkpoint 1 is missing"),
        (lambda lines: [*lines, lines[1]], 1, "checkpoint 3 is missing"),
        (lambda lines: [*lines, b"{}"], 2, "this is not a checkpoint"),
    ],
)
def test_a_changed_file(path: Path, key: Ed25519PrivateKey, change: object, status: int, what: str) -> None:
    """A change is evidence (status 1), another file is a mistake (status 2); the error names the line."""
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())))  # type: ignore[operator]

    with pytest.raises(CommandError, match=what) as caught:
        checkpoints.read_checkpoints(path, [key.public_key()])
    assert caught.value.exit_code == status


def test_a_last_line_that_lost_its_end(path: Path, key: Ed25519PrivateKey) -> None:
    """An editor may remove the last line feed: the next checkpoint has a line of its own nevertheless."""
    path.write_bytes(path.read_bytes().rstrip())
    signed = checkpoints.read_checkpoints(path, [key.public_key()])
    checkpoints.append_checkpoint(path, checkpoint(3, previous=signed.last_line_hash, first=21), b"", key)

    assert len(checkpoints.read_checkpoints(path, [key.public_key()]).checkpoints) == 3


def test_a_checkpoint_that_cant_be_written(path: Path, key: Ed25519PrivateKey) -> None:
    """The files stay as they are, also the open operations, which belong to the last checkpoint."""
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    signed = checkpoints.read_checkpoints(path, [key.public_key()])
    (path.parent / "c.new").mkdir()  # in the way of the second file

    with pytest.raises(CommandError, match=r"c\.new can't be written"):
        checkpoints.append_checkpoint(path, checkpoint(3, previous=signed.last_line_hash, first=21), b"other", key)
    (path.parent / "c.new").rmdir()
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_two_that_sign_at_once(path: Path, key: Ed25519PrivateKey) -> None:
    """The second one is refused: both would follow the same checkpoint."""
    signed = checkpoints.read_checkpoints(path, [key.public_key()])
    checkpoints.append_checkpoint(path, checkpoint(3, previous=signed.last_line_hash, first=21), b"", key)

    with pytest.raises(CommandError, match="run it again"):
        checkpoints.append_checkpoint(path, checkpoint(3, previous=signed.last_line_hash, first=21, count=9), b"", key)
    assert len(checkpoints.read_checkpoints(path, [key.public_key()]).checkpoints) == 3


def test_another_key(path: Path) -> None:
    """A key that is not trusted is a mistake, and the error names it."""
    with pytest.raises(CommandError, match=r"signed with the key [0-9a-f]{16}, but") as caught:
        checkpoints.read_checkpoints(path, [Ed25519PrivateKey.generate().public_key()])
    assert caught.value.exit_code == 2


def test_a_changed_key_id(path: Path, key: Ed25519PrivateKey) -> None:
    """The text of a changed file can't control the auditor's terminal."""
    line = path.read_bytes().replace(b'"keyId":"', b'"keyId":"\\u001b[2J', 1)
    path.write_bytes(line)

    with pytest.raises(CommandError, match=r"signed with the key  \[2J[0-9a-f]{16}, but"):
        checkpoints.read_checkpoints(path, [key.public_key()])


def test_heads_of_something_else(path: Path) -> None:
    """The open operations are accepted only if their hash was signed."""
    with pytest.raises(CommandError, match="does not belong to the last checkpoint"):
        checkpoints.read_heads(path, checkpoint())


def test_keygen(tmp_path: Path) -> None:
    """It writes a key that only its owner can read, prints the public key, and overwrites nothing."""
    made = CliRunner().invoke(main, ["keygen", str(tmp_path / "key")])
    (tmp_path / "public").write_text(made.stdout)
    again = CliRunner().invoke(main, ["keygen", str(tmp_path / "key")])

    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert load_private_key(tmp_path / "key").public_key() == load_public_key(tmp_path / "public")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "never overwritten" in again.stderr


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--from-archive"], "need --chain"),
        (["--chain", "--sign", "k"], "need --checkpoint"),
        (["--chain", "--from-checkpoint"], "need --checkpoint"),
        (["--chain", "--checkpoint", "c"], "needs a key"),
        (["--chain", "--checkpoint", "c", "--key", "k", "--accept-findings"], "add --sign"),
        (["--chain", "--checkpoint", "c", "--key", "nowhere"], "nowhere can't be read"),
        (["--chain", "--checkpoint", "c", "--sign", "/dev/null"], "holds no private key"),
        (["--chain", "--checkpoint", "/dev/zero", "--key", "KEY"], "is not a regular file"),
        (["--chain", "--checkpoint", "nowhere/c", "--sign", "PRIVATE"], "in nowhere: there is no such folder"),
    ],
)
def test_bad_options(options: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one line that says what to do, and the status is 2."""
    (tmp_path / "KEY").write_text(public_pem(Ed25519PrivateKey.generate().public_key()))
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(main, ["keygen", "PRIVATE"])
    result = CliRunner().invoke(main, ["verify", *options])

    assert (result.exit_code, result.stdout) == (2, "")
    assert what in " ".join(re.split(r"\s+", result.stderr))


@pytest.mark.parametrize(
    ("begin", "age", "later", "count"),
    [
        (SEGMENT_SIZE + 1, DAY, 2 * DAY, 0),
        (SEGMENT_SIZE + 10, DAY, 2 * DAY, 0),
        (SEGMENT_SIZE + 1, DAY, DAY / 2, 1),
        (SEGMENT_SIZE + 10, DAY, DAY / 2, 1),
        (SEGMENT_SIZE + 1, 0, 2 * DAY, 1),
    ],
)
def test_what_has_expired(begin: int, age: float, later: float, count: int) -> None:
    """Messages that are missing at the beginning must be old enough, in a stream with an age limit."""
    made = [checkpoint(count=3 * SEGMENT_SIZE, age=age)]
    now = NOW + timedelta(seconds=later)
    comparison = CheckpointVerifier(made, begin=begin, end=3 * SEGMENT_SIZE, age=age, now=now)
    for sequence in range(begin, 3 * SEGMENT_SIZE + 1):
        comparison.add_message(sequence, "operations.a.b.c.started", "0" * 64, stored(sequence))
    comparison.finish()

    assert len(comparison.pop_findings()) == count
    assert boundary_findings(made, begin, 3 * SEGMENT_SIZE) == []
    whole = 2 if begin == SEGMENT_SIZE + 1 else 1
    assert comparison.compared == whole * SEGMENT_SIZE


@pytest.mark.parametrize(
    ("begin", "age", "later", "count"),
    [(11, DAY, 0, 0), (12, DAY, 0, 1), (12, DAY, DAY - 301, 1), (12, DAY, DAY - 299, 0), (12, 0, 9 * DAY, 1)],
)
def test_missing_messages_after_the_checkpoint(begin: int, age: float, later: float, count: int) -> None:
    """They were stored after the checkpoint was made, so they can't expire before it is as old as the limit."""
    found = premature_expiry_findings(checkpoint(), begin, age, NOW + timedelta(seconds=later))

    assert len(found) == count


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ([DAY, DAY], ""),
        ([DAY, 0], ""),
        ([DAY, 2 * DAY], ""),
        ([2 * DAY, DAY], "after checkpoint 1 of 2026-03-14T09:26:53Z, from 172800 s to 86400 s"),
        ([0, DAY], "from none to 86400 s"),
        ([2 * DAY, DAY, 2 * DAY], "from 172800 s to 86400 s"),
    ],
)
def test_an_age_limit_that_went_down(limits: list[float], text: str) -> None:
    """It is reported from then on, since it removed messages early; a limit that was raised is not."""
    *before, now = limits
    note = lowered_age_limit([checkpoint(number, age=age) for number, age in enumerate(before, start=1)], now)

    assert (text in note) is True
    assert bool(note) is bool(text)
