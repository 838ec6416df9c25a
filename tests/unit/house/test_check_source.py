"""The house rules: each finds the breach that is planted for it, and nothing in a tree that keeps them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[3]
SCRIPT: Final = ROOT / "tools" / "check_source.py"
PACKAGE: Final = "journal/opstream_journal"
DOCSTRING: Final = f'"""{"What lives here, where to begin, and what is not allowed in. " * 2}"""\n'
LONG: Final = "x = 1\n" * 401

pytestmark = pytest.mark.unit


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree that keeps every rule, at the limit of each."""
    write(tmp_path, f"{PACKAGE}/__init__.py", DOCSTRING)
    write(tmp_path, f"{PACKAGE}/stores/__init__.py", DOCSTRING)
    for number in range(12):
        write(tmp_path, f"{PACKAGE}/stores/store_{number}.py", f"class Store{number}:\n    pass\n")
    write(tmp_path, f"{PACKAGE}/provisioning.py", "x = 1\n" * 400)
    write(tmp_path, "tests/unit/test_it.py", '"""A store keeps what it is given."""\n')
    write(tmp_path, "docs/page.md", "A caller reads this page.\n")
    return tmp_path


def write(tree: Path, name: str, text: str) -> None:
    """Write a file and the folders above it."""
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(text, encoding="utf-8")


def check(tree: Path) -> tuple[int, list[str]]:
    """Return the script's exit status and the lines that it prints."""
    done = subprocess.run([sys.executable, str(SCRIPT), str(tree)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def planted() -> Iterator[tuple[str, str, str]]:
    """Yield breaches: the file, its text, and how the line about it goes on after the file's name."""
    yield f"{PACKAGE}/stores/store_12.py", "x = 1\n", "13 modules, over 12"
    yield f"{PACKAGE}/long.py", LONG, "401: over 400 lines"
    yield f"{PACKAGE}/twin.py", "class Store3:\n    pass\n", "1: class Store3 is defined at"
    yield f"{PACKAGE}/ending.py", "x = 1\n", "1: ending says what is done"
    yield f"{PACKAGE}/parking/__init__.py", DOCSTRING, "1: parking says what is done"
    yield f"{PACKAGE}/empty/__init__.py", '"""Too short."""\n', "1: say in the docstring what lives here"
    yield f"{PACKAGE}/silent/__init__.py", "", "1: say in the docstring what lives here"
    yield "tests/unit/test_later.py", "x = 1  # TODO\n", "1: TODO: finish it"
    yield f"{PACKAGE}/note.py", "x = 1\n# Whoever comes first\n", "2: 'Whoever': name who acts"
    yield f"{PACKAGE}/text.py", '"""Read.\n\nIt is read\nanew.\n"""\n', "4: 'anew': write 'again'"
    yield f"{PACKAGE}/error.py", 'x = 1\ny = f"{x} was taken by somebody"\n', "2: 'somebody': name who acts"
    yield "bench/load.py", "# What is\ttold\n", "1: 'What is told': say what is printed"
    yield "docs/adr/0001-x.md", "One line.\n\nNobody tells it.\n", "3: 'Nobody tells': say what does not arrive"
    yield "README.md", "It is told whose turn it is.\n", "1: 'whose turn': say which one is next"


def test_the_sources_keep_the_rules() -> None:
    """This very tree has no breach."""
    assert check(ROOT) == (0, [])


def test_a_tree_at_the_limits_has_no_breach(tree: Path) -> None:
    """Twelve modules, 400 lines and a listed exception are allowed."""
    assert check(tree) == (0, [])


@pytest.mark.parametrize(("name", "text", "expected"), list(planted()), ids=lambda value: value[:40])
def test_a_planted_breach_is_found(tree: Path, name: str, text: str, expected: str) -> None:
    """One breach gives one line, which names the file and says what to do, and exit status 1."""
    write(tree, name, text)

    status, lines = check(tree)

    assert status == 1
    assert len(lines) == 1
    assert expected in lines[0]


def test_the_folder_of_commands_has_no_cap(tree: Path) -> None:
    """It holds one module a command, however many there are."""
    for folder in ("opstream", "opstream/cli", "opstream/cli/commands"):
        write(tree, f"{folder}/__init__.py", DOCSTRING)
    for number in range(20):
        write(tree, f"opstream/cli/commands/command_{number}.py", "x = 1\n")

    assert check(tree) == (0, [])


def test_names_that_are_public_twice_are_allowed(tree: Path) -> None:
    """Each service has its `Settings`."""
    for number in range(2):
        write(tree, f"{PACKAGE}/settings_{number}.py", "class Settings:\n    pass\n")

    assert check(tree) == (0, [])
