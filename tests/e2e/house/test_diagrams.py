"""The diagrams of the pages are read by mermaid, which GitHub draws them with.

mermaid runs in Node (`mermaid/check.js`), without a browser: it parses and draws nothing. npm installs it from
`mermaid/package-lock.json`, which has the hash of every package.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.support.house.pages import ROOT, diagrams_of, pages
from tests.support.system import npm

pytestmark = pytest.mark.e2e

SOURCES: Final = Path(__file__).parent / "mermaid"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parser."""
    return npm.install(SOURCES, tmp_path_factory.mktemp("scripts"))


def parse(scripts: Path, folder: Path, diagrams: list[str]) -> list[dict[str, Any]]:
    """What mermaid says of diagrams, one after the other."""
    files = []
    for number, diagram in enumerate(diagrams):
        files.append(folder / f"{number}.mmd")
        files[-1].write_text(diagram, encoding="utf-8")
    parsed = subprocess.run(
        ["node", "check.js", *files], cwd=scripts, capture_output=True, text=True, check=False, timeout=60
    )
    assert parsed.returncode == 0, parsed.stderr
    return [msgspec.json.decode(line) for line in parsed.stdout.splitlines()]


def test_every_diagram_is_parsed(scripts: Path, tmp_path: Path) -> None:
    """Each block of mermaid in the pages is a diagram that mermaid understands."""
    found = [(page.name, diagram) for page in pages() for diagram in diagrams_of(page.read_text(encoding="utf-8"))]
    answers = parse(scripts, tmp_path, [diagram for _, diagram in found])
    wrong = [(name, answer["error"]) for (name, _), answer in zip(found, answers, strict=True) if answer["error"]]
    assert wrong == []
    types = [answer["type"] for (name, _), answer in zip(found, answers, strict=True) if name == "architecture.md"]
    assert types.count("sequence") == 4
    assert types.count("stateDiagram") == 1
    assert (ROOT / "docs" / "architecture.md").exists()


def test_a_broken_diagram_is_found(scripts: Path, tmp_path: Path) -> None:
    """A diagram of each kind with a mistake in it is refused."""
    broken = [
        "flowchart TD\n  a -- b\n",
        "stateDiagram-v2\n  [*] --> --> x\n",
        "sequenceDiagram\n  A->>: x\n",
    ]
    assert [bool(answer["error"]) for answer in parse(scripts, tmp_path, broken)] == [True, True, True]
