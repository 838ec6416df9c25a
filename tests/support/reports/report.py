"""A public report of a fault in a neighbour's software, and the tests that show that opstream does not have it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[3]
FOLDER: Final = ROOT / "tests" / "reports"
BEGIN: Final = "<!-- the table is written by the test; see above -->"
GITHUB: Final = "https://github.com/"


class Report(msgspec.Struct, frozen=True):
    """One case."""

    link: str
    """The public report: an issue, or a pull request that tells of it."""
    what: str
    """What happened there, in one line."""
    tests: tuple[str, ...]
    """`path::name` from the folder `tests`, or just the name of a test in the same module."""

    @property
    def name(self) -> str:
        """Return the report's short name: `celery/celery#1018`."""
        owner, repository, _, number = self.link.removeprefix(GITHUB).split("/")
        return f"{owner}/{repository}#{number}"


def report(link: str, what: str, *tests: str) -> Report:
    """Return a case. A path below `github.com` is enough as link."""
    return Report(link if "://" in link else GITHUB + link, what, tests)


def themes() -> dict[str, list[Report]]:
    """Return the cases of each module in `tests/reports`, by the name of its theme."""
    modules = sorted({path.stem for path in FOLDER.glob("test_*.py")} - {"test_reports"})
    return {module.removeprefix("test_"): _cases(module) for module in modules}


def _cases(module: str) -> list[Report]:
    found: list[Report] = importlib.import_module(f"tests.reports.{module}").REPORTS
    return found


def located(theme: str, test: str) -> tuple[Path, str]:
    """Return the file and the name of a case's test."""
    path, _, name = test.rpartition("::")
    return (ROOT / "tests" / path if path else FOLDER / f"test_{theme}.py"), name


def table() -> str:
    """Return the table of all cases for README.md."""
    lines: list[str] = []
    for theme, cases in themes().items():
        lines += [f"## {theme.capitalize()}", "| report | what happened there | here |", "|---|---|---|"]
        lines += [*(_row(theme, case) for case in cases), ""]
    return "\n".join(lines)


def _row(theme: str, case: Report) -> str:
    shown = []
    for test in case.tests:
        path, name = located(theme, test)
        up = "../" if path.parent != FOLDER else ""
        shown.append(f"[{name}]({up}{path.relative_to(ROOT / 'tests' if up else FOLDER).as_posix()})")
    return f"| [{case.name}]({case.link}) | {case.what} | {', '.join(shown)} |"
