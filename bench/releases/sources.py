"""Sources of earlier versions, from the history of the repository. They run with the packages of this checkout.

folder = unpack("0.2.0", parent)
subprocess.run([sys.executable, "-P", "-m", "opstream", "--version"], env={**os.environ, **environment_of(folder)})
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from bench.harness.process_usage import BenchFailed
from bench.harness.system import ROOT

BEFORE: Final = {
    "0.1.0": "ea9c0bdcb6e669370dc61f5f1dedcf8efeb912b9",
    "0.1.0, last of its line": "52942a78c04f0c634533e016fc8e2dceb2d5f629",
    "0.2.0": "6fd6601043bfaee7141a0cde987e28a71df02ce5",
    "0.3.0": "ed08d8d23591c9fe0726075fc14928bfdf434de5",
    "0.4.0": "03e76a41831e0ba9b162538cdbe70d0990818af5",
    "0.4.1": "0fdd2a961ac6528cfa2aed28915b873c30ec73b1",
    "0.5.0": "563fdc5cdb7f3f56dfeef59e874241ad6311fd7c",
    "0.6.0": "c4bf1b1f2aff13e4f8d20757c49f5660db9a44ec",
}
"""Commits from which operators may come, by what CHANGELOG.md calls them."""
LAST: Final = "0.6.0"
"""The last release: operators may go back to it."""

_PACKAGES: Final = (
    ".",
    "schemas",
    "index",
    "journal",
    "services/api",
    "services/runner",
    "services/projector",
    "services/webhooks",
    "examples/bookshelf",
)


def unpack(version: str, folder: Path) -> Path:
    """Write the sources of a version below `folder`, and return where they are.

    Args:
        version: one of `BEFORE`.
        folder: must exist.

    Raises:
        BenchFailed: its commit is not in the history of this checkout; the message says how to get it.
    """
    commit = BEFORE[version]
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise BenchFailed(
            f"version {version}, commit {commit}, is not in this checkout: {archive.stderr.decode(errors='replace')}"
            "get the whole history: git fetch --unshallow"
        )
    target = folder / commit[:10]
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as content:
        content.extractall(target, filter="data")
    return target


def environment_of(sources: Path) -> dict[str, str]:
    """The variables under which `opstream` is the version with these sources (`unpack`)."""
    return {"PYTHONPATH": os.pathsep.join(str(sources / path) for path in _PACKAGES)}
