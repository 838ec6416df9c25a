"""What programs that read OpenAPI make of the document: types for TypeScript, a Python client, a linter's verdict.

npm installs openapi-typescript, TypeScript and the Redocly linter from `openapi/package-lock.json`, which has the hash
of every package.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from bookshelf.actions import upload_finish, upload_start
from opstream_api.openapi import openapi_document
from opstream_schemas.action_spec import ActionSpec
from tests.support.api.typed_actions import typed_specs
from tests.support.system import npm

pytestmark = pytest.mark.e2e

SOURCES: Final = Path(__file__).parent / "openapi"
SPECS: Final[list[ActionSpec]] = [*typed_specs(), upload_start.spec, upload_finish.spec]
PUBLIC_URL: Final = "https://operations.example"
NOT_OURS: Final = ("security-defined", "no-unused-components", "no-required-schema-properties-undefined")
"""Rules of the linter that opstream breaks on purpose: authentication is the proxy's; each document has the components
of all services; a schema for any later event requires members without saying what they are."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document of actions that use every kind of type."""
    file = tmp_path_factory.mktemp("document") / "openapi.json"
    file.write_bytes(msgspec.json.encode(openapi_document(SPECS, PUBLIC_URL, has_callbacks=True)))
    return file


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generators that npm has."""
    return npm.install(SOURCES, tmp_path_factory.mktemp("scripts"))


@pytest.fixture(scope="module")
def client(document: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The package that openapi-python-client makes of the document, ready to be imported."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "config.yml").write_text("post_hooks: []\n")
    check(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none"),
        *("--config", folder / "config.yml", "--path", document, "--output-path", folder / "made_client"),
        folder=folder,
    )
    sys.path.insert(0, str(folder))
    yield "made_client"
    sys.path.remove(str(folder))


def check(*command: str | Path, folder: Path) -> None:
    """Run a program, which must succeed."""
    quiet = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_typescript_types(scripts: Path, document: Path) -> None:
    """openapi-typescript makes types of it, and a program that uses them passes the strict compiler."""
    check("npx", "openapi-typescript", document, "--output", "generated.d.ts", folder=scripts)
    check("npx", "tsc", "--noEmit", "--strict", "--module", "nodenext", "use.ts", folder=scripts)


def test_the_linter(scripts: Path, document: Path) -> None:
    """Redocly finds no error in it, and no broken reference."""
    skipped = [part for rule in NOT_OURS for part in ("--skip-rule", rule)]
    check("npx", "redocly", "lint", document, *skipped, folder=scripts)


def test_the_python_client_has_every_action(client: str) -> None:
    """openapi-python-client has nothing to warn of, and makes a module for each action, with an id and without."""
    for spec in SPECS:
        for name in (f"{spec.resource}_{spec.action}", f"{spec.resource}_{spec.action}_collection"):
            module = importlib.import_module(f"{client}.api.{spec.resource}.{name.replace('-', '_')}")
            assert callable(module.sync)


def test_the_python_client_knows_the_types(client: str) -> None:
    """A tagged union, a shared type and one with the name of another are read and written as they are sent."""
    models: Any = importlib.import_module(f"{client}.models")
    sent = {
        "pet": {"type": "dog", "name": "Rex", "friends": [{"type": "cat", "lives": 7}]},
        "default": {"type": "cat", "lives": 9},
        "examples": {},
    }
    visit = models.Visit.from_dict(sent)
    assert isinstance(visit.pet, models.Dog)
    assert visit.to_dict() == sent
    assert models.TypedMapRequest(how="slowly").to_dict() == {"how": "slowly"}
    assert models.TypedOtherRequest(number=3).to_dict() == {"number": 3}
    monitor = models.TypedSharedMonitor.from_dict({"id": "1", "status": "Succeeded", "result": sent})
    assert monitor.result == visit
