"""Each case has its report and its test, and README.md lists them all."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.support.reports.report import BEGIN, FOLDER, Report, located, table, themes

pytestmark = pytest.mark.unit

README: Final = FOLDER / "README.md"
LINK: Final = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/[0-9]+")
CASES: Final = [(theme, case) for theme, cases in themes().items() for case in cases]
LEAST: Final = 60


def collected(path: Path) -> set[str]:
    """Return the names of the tests that pytest collects from a file, without those that are always skipped."""
    assert path.name.startswith("test_")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {
        one.name
        for one in tests
        if one.name.startswith("test_")
        and not any(ast.unparse(decorator).startswith("pytest.mark.skip") for decorator in one.decorator_list)
    }


@pytest.mark.parametrize(("theme", "case"), CASES, ids=[case.name for _, case in CASES])
def test_a_case_is_complete(theme: str, case: Report) -> None:
    """It has a link, one line, and tests that exist."""
    assert LINK.fullmatch(case.link)
    assert 20 <= len(case.what) <= 160
    assert not case.what.endswith(".")
    assert not set("|\n") & set(case.what)
    assert case.tests
    for test in case.tests:
        path, name = located(theme, test)
        assert name in collected(path), f"{path} has no test {name}"


def test_no_case_comes_twice() -> None:
    """No link is there twice with the same test."""
    pairs = Counter((case.link, test) for _, case in CASES for test in case.tests)
    assert [pair for pair, count in pairs.items() if count > 1] == []


def test_there_are_many() -> None:
    """The habit is kept: cases are added, and none goes without a reason."""
    assert len(CASES) >= LEAST


def test_every_own_test_belongs_to_a_case() -> None:
    """A test in this folder shows something of a report."""
    used = {located(theme, test) for theme, case in CASES for test in case.tests}
    for path in FOLDER.glob("test_*.py"):
        if path != Path(__file__):
            assert {(path, name) for name in collected(path)} <= used


def test_the_page_lists_every_case() -> None:
    """README.md has the table; `OPSTREAM_WRITE_GOLDEN=1` writes it."""
    text = README.read_text(encoding="utf-8")
    head = text[: text.index(BEGIN) + len(BEGIN)]
    expected = f"{head}\n\n{table()}".rstrip() + "\n"
    if os.environ.get("OPSTREAM_WRITE_GOLDEN") == "1":
        README.write_text(expected, encoding="utf-8")
        pytest.fail("written; look at the difference and run again without OPSTREAM_WRITE_GOLDEN")
    assert text == expected
