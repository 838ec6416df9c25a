"""`opstream apikey` with a file: what it prints, and what it never prints."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from opstream.cli.app import main
from opstream.cli.commands.apikey import table_row
from opstream_api.access.keys.api_key import create_key, digest_of
from opstream_api.access.keys.key_file import read_key_file

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def invoke(path: Path, *words: str) -> Result:
    """Run `opstream apikey` on a file."""
    return CliRunner().invoke(main, ["apikey", *words, "--file", str(path)])


def test_a_key_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    """Standard output has the key and nothing else; neither the file nor a later list has it."""
    path = tmp_path / "keys.json"
    result = invoke(path, "add", "--tenant", "acme", "--subject", "ci", "--scope", "submit,read", "--expires", "90d")
    key = result.stdout.strip()
    (record,) = read_key_file(path)
    assert result.exit_code == 0
    assert record.sha256 == digest_of(key.encode()).hex()
    assert (record.tenant, record.subject, record.scopes) == ("acme", "ci", ("read", "submit"))
    assert record.expires is not None
    assert timedelta(days=89) < record.expires - datetime.now(UTC) < timedelta(days=91)
    secret = key.split("_", 2)[2]
    listed = invoke(path, "list")
    assert json.loads(listed.stdout)["id"] == record.id
    for text in (path.read_text(encoding="utf-8"), listed.output, result.stderr):
        assert secret not in text
    assert record.sha256 not in listed.output


def test_a_revoked_key_stays_in_the_list(tmp_path: Path) -> None:
    """With its state; to revoke it again changes nothing."""
    path = tmp_path / "keys.json"
    invoke(path, "add", "--subject", "ci", "--scope", "read")
    invoke(path, "add", "--subject", "ci", "--scope", "read")
    first, second = read_key_file(path)
    assert invoke(path, "revoke", first.id).exit_code == 0
    (gone, kept) = read_key_file(path)
    assert (gone.revoked is not None, kept) == (True, second)
    assert invoke(path, "revoke", first.id).exit_code == 0
    assert read_key_file(path) == (gone, kept)
    assert [json.loads(line)["state"] for line in invoke(path, "list").stdout.splitlines()] == ["revoked", "valid"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["add", "--subject", "ci", "--scope", "everything"], "is not a scope"),
        (["add", "--subject", "ci", "--scope", "read", "--tenant", "a b"], "tenant 'a b'"),
        (["add", "--subject", "a\nb", "--scope", "read"], "subject"),
        (["add", "--scope", "read"], "--subject"),
        (["add", "--subject", "ci"], "--scope"),
        (["revoke", "ops_abc_def"], "not the id of a key"),
    ],
)
def test_bad_input_makes_no_file(tmp_path: Path, words: list[str], problem: str) -> None:
    """And says what is wrong."""
    result = invoke(tmp_path / "keys.json", *words)
    assert result.exit_code == 2
    assert problem in result.output
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_id_is_an_error(tmp_path: Path) -> None:
    """With the command that shows all."""
    path = tmp_path / "keys.json"
    invoke(path, "add", "--subject", "ci", "--scope", "read")
    result = invoke(path, "revoke", "nosuch")
    assert (result.exit_code, "opstream apikey list" in result.output) == (1, True)


def test_a_row_fits_the_terminal() -> None:
    """Scopes and note are wrapped in their own column, and a control character is not printed."""
    _, record = create_key(
        tenant="acme",
        subject="ci",
        scopes=["submit:book:*", "read", "cancel"],
        now=NOW,
        expires=NOW + timedelta(days=1),
        note="the nightly build \x1b[31m",
    )
    row = table_row(record, NOW, 100)
    assert max(map(len, row.splitlines())) < 100
    assert "\x1b" not in row
    assert "valid" in row
    assert "expired" in table_row(record, NOW + timedelta(days=2), None)
