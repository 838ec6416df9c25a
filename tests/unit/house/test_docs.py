"""The pages are true to the repository: what they link to, name and cite is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from opstream_schemas.names import RESERVED_RESOURCES
from tests.support.house.pages import (
    ROOT,
    comments_of,
    dead_citations,
    dead_links,
    dead_names,
    dead_paths,
    defined_names,
    diagrams_of,
    modules,
    names_of,
    pages,
    settings_files,
)

pytestmark = pytest.mark.unit

DOCS: Final = ROOT / "docs"
ARCHITECTURE: Final = (DOCS / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CONTRACT: Final = (DOCS / "contract.md").read_text(encoding="utf-8")
GUIDELINES_TEST: Final = ROOT / "tests" / "broker" / "api" / "test_guidelines.py"


def section(page: str, title: str) -> str:
    """A part of a page, from its heading to the next one of that level."""
    (text,) = [part for part in re.split(r"^## ", page, flags=re.MULTILINE) if part.startswith(f"{title}\n")]
    return text


def by_name(path: Path) -> str:
    """How a test is called that is about a file."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=by_name)
def test_links(page: Path) -> None:
    """Each link within the repository leads to a file, and to a heading of it; each reference is defined and used."""
    assert dead_links(page.read_text(encoding="utf-8"), page.parent) == []


@pytest.mark.parametrize("page", pages(), ids=by_name)
def test_paths(page: Path) -> None:
    """Each file and folder that a page names exists; but for the rooms that the architecture keeps free."""
    text = page.read_text(encoding="utf-8")
    if page.name == "architecture.md":
        text = text.replace(section(text, "Room for what comes"), "")
    assert dead_paths(text) == []


@pytest.mark.parametrize("page", pages(), ids=by_name)
def test_names(page: Path) -> None:
    """Each function, class and test that a page names together with its file is defined there."""
    assert dead_names(page.read_text(encoding="utf-8")) == []


def test_citations() -> None:
    """Each page and decision that a comment or docstring cites exists."""
    said = {path: comments_of(path.read_text(encoding="utf-8")) for path in modules()}
    said |= {path: path.read_text(encoding="utf-8") for path in settings_files()}
    dead = {by_name(path): dead_citations(text, path.parent) for path, text in said.items()}
    assert {path: found for path, found in dead.items() if found} == {}


def test_the_life_of_a_request() -> None:
    """CONTRIBUTING names the stations of a request by file and function."""
    stations = names_of(section(CONTRIBUTING, "The life of a request"))
    assert {path.split("/")[0] for path, _ in stations} == {"schemas", "journal", "services"}
    assert len(stations) >= 15


def test_each_invariant_has_a_test() -> None:
    """Each row of the table of invariants names a test; breaches are reported by the numbers of the first six."""
    rows = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", section(ARCHITECTURE, "What always holds"), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert [number for number, _, tests in rows if not names_of(tests)] == []
    checkers = (ROOT / "tests" / "support" / "system" / "invariants.py").read_text(encoding="utf-8")
    assert set(re.findall(r"invariant (\d)", checkers)) <= {number for number, _, _ in rows[:6]}


def test_the_pictures() -> None:
    """The architecture has the whole, the imports, the states, and four sequences."""
    kinds = [diagram.split()[0] for diagram in diagrams_of(ARCHITECTURE)]
    assert kinds == ["flowchart", "flowchart", "stateDiagram-v2", *["sequenceDiagram"] * 4]


def test_the_contract_marks_the_guidelines() -> None:
    """It marks as many rules as the guidelines' test has marks; one more is in the sentence that explains them."""
    (marks,) = re.findall(r"^MARKS: Final = (\d+)$", GUIDELINES_TEST.read_text(encoding="utf-8"), re.MULTILINE)
    assert CONTRACT.count("\\*") - 1 == int(marks)


@pytest.mark.parametrize(("page", "begins"), [(ARCHITECTURE, "**Reserved paths.**"), (CONTRACT, "- **Reserved**")])
def test_the_reserved_resources(page: str, begins: str) -> None:
    """The pages list those that the code refuses."""
    listed = page.partition(begins)[2].partition("([names]")[0].partition("`@action`")[0]
    assert set(re.findall(r"`([\w.-]+)`", listed)) == RESERVED_RESOURCES


def test_the_glossary() -> None:
    """What it names as the code of a word is defined."""
    glossary = (DOCS / "glossary.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\|.*\| (.*) \|$", glossary.partition("## Names on the wire")[0], re.MULTILINE)
    spans = [span.removeprefix("@") for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    names = {name for span in spans if re.fullmatch(r"[A-Za-z_]\w*(?:\.\w+)*", span) for name in span.split(".")}
    assert len(names) > 40
    assert names - defined_names() - {"ack_wait"} == set()  # of the broker


def test_the_index_has_every_page() -> None:
    """docs/README.md leads to each page of the folder."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


def test_dead_links_are_found(tmp_path: Path) -> None:
    """A link to no file, to no heading, a reference without definition, and a definition that nobody uses."""
    (tmp_path / "there.md").write_text("# One heading\n", encoding="utf-8")
    page = (
        "# Here\n[a](there.md) [b](gone.md) [c](there.md#one-heading) [d](there.md#none) [e](#here) [f](#there)\n"
        "([used], [undefined])\n```\n[in a block](gone.md)\n```\n\n"
        "[used]: there.md\n[unused]: there.md\n[wrong]: gone.md\n"
    )
    found = dead_links(page, tmp_path)
    assert found == ["gone.md", "there.md#none", "#there", "gone.md", "[undefined]", "[unused]", "[wrong]"]


def test_dead_paths_are_found() -> None:
    """A file or folder that is not there, by its whole path or by a part of it; others are not complained about."""
    page = (
        "`docs/architecture.md`, `test_append*.py`, `names.py`, `tests/unit/`, `nowhere/names.py`, `nothing.py`, "
        "`gone/`, `application/json`, `opstream up --config hooks.toml`, `tests/support/house/pages.py:ROOT`\n"
        "```\n`blocks.py`\n```\n"
    )
    assert dead_paths(page) == ["gone/", "nothing.py", "nowhere/names.py"]


def test_dead_names_are_found(tmp_path: Path) -> None:
    """A function, class, method or constant that its module does not define, and a module that is not there."""
    (tmp_path / "one.py").write_text(
        "CONSTANT: int = 1\n\n\nclass Thing:\n    async def do(self) -> None: ...\n\n\ndef act() -> None: ...\n",
        encoding="utf-8",
    )
    page = (
        "`one.py:act`, `one.py::Thing.do`, `one.py:CONSTANT`, `one.py:Thing`, "
        "`one.py:do`, `one.py::Thing.act`, `one.py:Other.do`, `two.py::act`"
    )
    assert dead_names(page, tmp_path) == ["one.py:Other.do", "one.py:Thing.act", "one.py:do", "two.py:act"]


def test_dead_citations_are_found() -> None:
    """A page or decision that is not there, cited in a comment, a docstring or the text below a constant."""
    # Put together, so that this file cites nothing dead itself.
    page, number = "style" + ".md", "9999"
    source = (
        f'"""As {page} says (docs/architecture.md, contract.md, ADR 0001, NATS ADR-31)."""\n'
        f"X = 1  # docs/adr/{number}\n"
        f'"""See docs/{page}."""\n'
        f'Y = "nothing.md"\n'
    )
    assert dead_citations(comments_of(source)) == [f"ADR {number}", f"docs/{page}", page]
