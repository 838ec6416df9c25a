"""Files and large documents in runs of a test: attached, uploaded, and whatever moment the runner dies at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream import ActionContext, action
from opstream.testing import RunRefused, RunResult, run

pytestmark = pytest.mark.unit

LARGE = 300_000


class Scan(msgspec.Struct):
    """Where the action works."""

    folder: str
    note: str = ""


async def make(folder: str) -> str:
    """Write a file, and return its path."""
    path = Path(folder) / "proof.txt"
    path.write_text("proof")
    return str(path)


@action("scan:proof")
async def proof(request: Scan, ctx: ActionContext) -> int:
    """Attach what a step has made."""
    await ctx.attach(await ctx.step("make", make, request.folder), "text/plain")
    return 1


@action("scan:read")
async def read(request: Scan, ctx: ActionContext) -> dict[str, str]:
    """Return what was uploaded."""
    for one in ctx.uploads:
        await ctx.fetch(one.name, Path(request.folder) / one.name)
    return {one.name: (Path(request.folder) / one.name).read_text() for one in ctx.uploads}


@action("scan:read-plain")
def read_plain(request: Scan, ctx: ActionContext) -> dict[str, str]:
    """Return what was uploaded, in a thread; attach it, too."""
    for one in ctx.uploads:
        path = Path(request.folder) / one.name
        ctx.fetch(one.name, path)
        ctx.attach(path, "text/plain", name=f"copy-{one.name}")
    return {one.name: (Path(request.folder) / one.name).read_text() for one in ctx.uploads}


@action("scan:large")
async def large(request: Scan, ctx: ActionContext) -> str:
    """Return more than an event takes, from a step."""
    return await ctx.step("fill", lambda: request.note + "x" * LARGE)


def test_an_attached_file(tmp_path: Path) -> None:
    """It is in the result, whenever the runner dies; the event is as in production."""

    def attached(result: RunResult[int]) -> None:
        assert result.files == {"proof.txt": b"proof"}

    result = run(proof, {"folder": str(tmp_path)}, crash_at="every step", check=attached)
    assert result.names == ("requested", "started", "step-succeeded", "attached", "succeeded")
    assert len(result.crashes) >= 8


@pytest.mark.parametrize("which", [read, read_plain])
def test_uploads(tmp_path: Path, which: Any) -> None:
    """A handler reads what the test gives; names that no client could give are refused."""
    result = run(which, {"folder": str(tmp_path)}, uploads={"a.txt": b"one", "b.txt": b"two"}, crash_at="every step")
    assert result.result == {"a.txt": "one", "b.txt": "two"}
    assert [one.file_name for one in result.operation.uploads] == ["a.txt", "b.txt"]
    assert result.files == ({} if which is read else {"copy-a.txt": b"one", "copy-b.txt": b"two"})
    with pytest.raises(RunRefused, match="file name"):
        run(which, {"folder": str(tmp_path)}, uploads={"../a": b""})
    with pytest.raises(RunRefused, match="takes 10 uploads"):
        run(which, {"folder": str(tmp_path)}, uploads={str(number): b"" for number in range(11)})


def test_what_is_too_large_for_an_event() -> None:
    """Input, step and result go to the payload store, and a test reads them as ever, whenever the runner dies."""
    note = "n" * LARGE
    result = run(large, {"folder": "", "note": note}, crash_at="every step")
    assert result.result == result.step("fill").result == note + "x" * LARGE
    types = [event.type for event in result.events]
    assert types[0].endswith("requested.v3")
    assert types[-2:] == ["opstream.action.step-succeeded.v2", "opstream.action.succeeded.v2"]
