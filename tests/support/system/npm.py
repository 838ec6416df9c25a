"""Installs the packages of the tests' JavaScript from their lock, in a folder outside of the repository.

A lock has the hash of each package and no addresses: npm uses the registry that it is configured for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_INSTALL: Final = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
_PATIENCE: Final = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000")
_NO_NETWORK: Final = re.compile(
    r"\b(?:ENOTFOUND|EAI_AGAIN|EAI_FAIL|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH"
    r"|ERR_SOCKET_TIMEOUT|ENOTCACHED)\b"
)
"""In npm's output if it can't reach its registry."""


def install(sources: Path, folder: Path) -> Path:
    """Copy a folder of scripts and install their packages; skip the test if npm or its registry is missing.

    Args:
        sources: with `package.json` and `package-lock.json`.
        folder: for the copy.
    """
    if shutil.which("npm") is None:
        pytest.skip(f"npm is not installed, so the packages of {sources.name} can't be installed")
    scripts = folder / sources.name
    shutil.copytree(sources, scripts, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [*_INSTALL, *_PATIENCE], cwd=scripts, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0 and _NO_NETWORK.search(done.stderr):
        pytest.skip(f"npm can't reach its registry, and its cache lacks the packages of {sources.name}")
    assert done.returncode == 0, done.stderr
    return scripts
