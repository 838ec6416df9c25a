"""The service does what its own document says: schemathesis, with all its checks, finds nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.system.processes import environment
from tests.support.system.services import System

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).resolve().parents[3]
SUPPORT: Final = ROOT / "tests" / "support" / "api"
MODULE: Final = "fuzzed_actions"
ACTIONS: Final = ("press:clean", "press:dry", "press:print")
OPERATIONS: Final = 2 * len(ACTIONS) + 10 + 10 + 4 + 4 + 3
"""Two for each action, those that are always there, those of schedules, four of actions, and those of what was not
delivered, less `/openapi.json`: what it reads it does not test."""
UPLOAD: Final = "/payloads/{operationId}/{name}"
"""Left out: any bytes are right there, so the invalid requests of schemathesis are valid ones. Its own tests are in
`tests/broker/payloads/test_uploads.py`."""
PHASES: Final = ("Examples", "Coverage", "Fuzzing", "Stateful")
LINKS: Final = 3 * 2 * len(ACTIONS)
"""From each submit to the status of its operation, its end, its history."""
EXAMPLES: Final = 15
"""Of each operation and phase."""
MANY_EXAMPLES: Final = 30
"""The same in `make long`."""
WORKERS: Final = 1
"""More threads fail now and then in Hypothesis: CPython 3.11 may not parse Python in two of them at once."""
TIMEOUT: Final = 240.0


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """Broker, API, projector and runner, with actions whose inputs have everything."""
    shutil.copy(SUPPORT / f"{MODULE}.py", tmp_path)
    with ExitStack() as stack:
        system = System(tmp_path, stack, MODULE)
        system.begin()
        yield system


@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(MANY_EXAMPLES, marks=pytest.mark.long)])
def test_schemathesis_finds_nothing(system: System, http: httpx.Client, examples: int) -> None:
    """With all checks in all phases: valid and invalid requests, and chains from a submit to its outcome. The services
    keep running and log no error.
    """
    document = f"{system.api}/openapi.json"
    assert sum(len(methods) for methods in http.get(document).json()["paths"].values()) == OPERATIONS + 1
    run = schemathesis(document, system.folder, examples)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(rf"Operations: +{OPERATIONS - 1} selected / {OPERATIONS} total", run.stdout), run.stdout
    links = re.search(r"API Links: +(\d+) covered", run.stdout)
    assert links is not None, run.stdout
    assert int(links[1]) >= LINKS, run.stdout
    for phase in PHASES:
        assert f"✅  {phase} (" in run.stdout, run.stdout
    assert system.complaints() == []
    assert http.get(f"{system.api}/readyz").status_code == 200


def schemathesis(document: str, folder: Path, examples: int = EXAMPLES) -> subprocess.CompletedProcess[str]:
    """Run it on a document, always with the same requests."""
    rules = (ROOT / "schemathesis.toml").read_text(encoding="utf-8").replace('"tests/', f'"{ROOT.as_posix()}/tests/')
    (folder / "schemathesis.toml").write_text(rules, encoding="utf-8")  # it looks for them where it runs
    options = ["--checks", "all", "--phases", ",".join(PHASES).lower(), "--mode", "all", "--exclude-path", UPLOAD]
    bounds = [
        "--max-examples",
        str(examples),
        "--generation-deterministic",
        "--continue-on-failure",
        "--workers",
        str(WORKERS),
    ]
    return subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", document, *options, *bounds, "--no-color"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        cwd=folder,
        env=environment({"SCHEMATHESIS_HOOKS": os.fspath(SUPPORT / "schemathesis_hooks.py"), "NO_PROXY": "127.0.0.1"}),
    )
