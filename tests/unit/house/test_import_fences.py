"""The fences between packages, folders and modules (pyproject.toml): each stops the import that is planted for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[3]
SOURCES: Final = ("schemas", "journal", "payloads", "services", "opstream", "examples")
PATHS: Final = (
    ".",
    "schemas",
    "journal",
    "payloads",
    "services/api",
    "services/runner",
    "services/projector",
    "services/webhooks",
    "examples/bookshelf",
    "examples/orders",
)

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources and of the contracts."""
    folder = tmp_path_factory.mktemp("fences")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def broken(copy: Path) -> list[str]:
    """Return the contracts that import-linter finds broken."""
    paths = os.pathsep.join(str(copy / path) for path in PATHS)
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    found = [line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith(" BROKEN")]
    assert done.returncode == (1 if found else 0)
    return found


def test_the_sources_keep_within_the_fences(copy: Path) -> None:
    """This very tree breaks no contract."""
    assert broken(copy) == []


@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        ("journal/opstream_journal/journal.py", "opstream_projector.settings", "layers: "),
        ("services/runner/opstream_runner/errors.py", "opstream_api.errors", "layers: "),
        ("schemas/opstream_schemas/text.py", "asyncio", "schemas is pure"),
        ("schemas/opstream_schemas/operation/fold.py", "nats", "schemas is pure"),
        ("journal/opstream_journal/errors.py", "litestar", "the journal knows nats-py only"),
        ("services/api/opstream_api/errors.py", "faststream", "no service needs faststream"),
        ("services/webhooks/opstream_webhooks/settings.py", "litestar", "runner, projector and webhooks"),
        ("schemas/opstream_schemas/operation/state.py", "opstream_schemas.operation.fold", "no circle"),
        ("services/projector/opstream_projector/settings.py", "opstream_projector.main", "no circle"),
        ("schemas/opstream_schemas/events.py", "opstream_schemas.operation.state", "schemas: "),
        ("schemas/opstream_schemas/operation/commands.py", "opstream_schemas.timeline", "schemas: "),
        ("journal/opstream_journal/jetstream/kv.py", "opstream_journal.provisioning.topology", "journal: "),
        ("journal/opstream_journal/provisioning/topology.py", "opstream_journal.stores.timers", "journal: "),
        ("payloads/opstream_payloads/store.py", "opstream_payloads.folder_store", "payloads: "),
        ("journal/opstream_journal/errors.py", "opstream_payloads.errors", "layers: "),
        ("services/webhooks/opstream_webhooks/settings.py", "opstream_payloads.errors", "the webhooks service"),
        ("services/api/opstream_api/http/requests.py", "opstream_api.operations.submit", "api: "),
        ("services/runner/opstream_runner/authoring/action.py", "opstream_runner.handler.invocation", "runner: "),
        ("services/runner/opstream_runner/handler/invocation.py", "opstream_runner.attempt.attempt", "runner: "),
        ("services/runner/opstream_runner/attempt/attempt.py", "opstream_runner.dispatch.dispatcher", "runner: "),
        (
            "services/projector/opstream_projector/projection/projector.py",
            "opstream_projector.consistency.rebuild",
            "projector: ",
        ),
        ("services/webhooks/opstream_webhooks/config.py", "opstream_webhooks.fanout", "webhooks: "),
        ("opstream/terminal/table.py", "opstream.cli.app", "opstream: "),
        ("opstream/local/ports.py", "opstream.history.event_reader", "opstream: "),
        ("opstream/cli/options/option.py", "opstream.cli.commands.fail", "cli: "),
    ],
)
def test_a_planted_import_is_stopped(copy: Path, module: str, planted: str, contract: str) -> None:
    """One import against the direction breaks the contract that is there for it."""
    path = copy / module
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n\nimport {planted}\n", encoding="utf-8")
    try:
        found = broken(copy)
    finally:
        path.write_text(text, encoding="utf-8")

    assert any(name.startswith(contract) for name in found), found
