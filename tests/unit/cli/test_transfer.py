"""`--upload`: which file is meant, under which name and media type; and what a transfer shows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import opstream.cli.commands.run
from opstream.cli.app import main
from opstream.cli.files import transfer
from opstream.cli.files.upload_option import NamedFile
from tests.support.client.scripted_server import ScriptedServer, answer, json_answer

pytestmark = pytest.mark.unit


class TerminalText(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The settings with which `run` would have run, in a folder with files."""
    found: list[Any] = []
    monkeypatch.setattr(opstream.cli.commands.run, "submit_and_follow", found.append)
    monkeypatch.chdir(tmp_path)
    for name in ("a.tif", "b=1.unknown"):
        (tmp_path / name).write_bytes(b"x")
    return found


def test_names(given: list[Any], tmp_path: Path) -> None:
    """A path stands for itself, also one with '=' behind a '/'; a name comes first."""
    paths = ["a.tif", "cover.png=a.tif", "./b=1.unknown"]
    result = CliRunner().invoke(main, ["run", "book:scan", *[word for path in paths for word in ("--upload", path)]])
    assert result.exit_code == 0, result.output
    (settings,) = given
    assert settings.uploads == (
        NamedFile("a.tif", Path("a.tif"), "image/tiff"),
        NamedFile("cover.png", Path("a.tif"), "image/png"),
        NamedFile("b=1.unknown", Path("b=1.unknown"), "application/octet-stream"),
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["none.tif"], "'none.tif' is no file: write PATH, or NAME=PATH"),
        (["?=a.tif"], "write NAME=PATH"),
        (["a.tif", "a.tif=b=1.unknown"], "two files are named 'a.tif': write NAME=PATH with another name"),
        ([f"{n}=a.tif" for n in range(11)], "11 files are given, 10 are allowed: pack them"),
    ],
)
def test_what_is_no_upload(given: list[Any], words: list[str], text: str) -> None:
    """What can't be uploaded is said before anything is sent."""
    result = CliRunner().invoke(main, ["run", "book:scan", *[part for one in words for part in ("--upload", one)]])
    assert (result.exit_code, given) == (2, [])
    assert text in result.output


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a terminal a bar shows the bytes, and no line stays."""
    from opstream.client import OperationsClient

    stream = TerminalText()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    moments = iter(range(0, 100, 1))
    monkeypatch.setattr(transfer.time, "monotonic", lambda: float(next(moments)))
    file = {"name": "a", "mediaType": "a/b", "size": 3, "sha256": "", "href": "/status/x/payloads/1"}
    file["sha256"] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with (
        ScriptedServer(
            json_answer(200, {"id": "x", "status": "Succeeded", "attachments": [file]}), answer(200, b"abc")
        ) as server,
        OperationsClient(server.url) as client,
    ):
        transfer.download_to(client, "x", "a", tmp_path, 10)
    assert "100 %  3 of 3 bytes" in stream.getvalue()
    assert "\n" not in stream.getvalue()
    assert (tmp_path / "a").read_bytes() == b"abc"
