"""docs/limits.md: each constant that it names exists, and has the value that stands there."""

from __future__ import annotations

import ast
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.unit

ROOT: Final = Path(__file__).resolve().parents[3]
ROWS: Final = re.findall(
    r"^\| (.+?) \| (.+?) \|.*?`([\w/]+\.py):(\w+)`.*\|$",
    (ROOT / "docs" / "limits.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)
UNITS: Final = {
    "KiB": 1024,
    "MiB": 1024**2,
    "s": 1,
    "hours": 3600,
    "days": 86_400,
    "bytes": 1,
    "bytes of UTF-8": 1,
    "levels": 1,
}


def value_of(path: str, name: str) -> Any:
    """The value of a module's constant. Constants of the same module, and of times, are known."""
    known: dict[str, Any] = {"timedelta": timedelta, "DAY": 86_400, "DAY_SECONDS": 86_400}
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            try:
                known[node.target.id] = eval(ast.unparse(node.value), {"__builtins__": {}}, known)
            except (NameError, TypeError, AttributeError):
                continue
    return known[name]


def spellings(value: Any) -> set[str]:
    """How the page may write a value."""
    if isinstance(value, str):
        return {value, value.replace("MiB", " MiB")}
    if isinstance(value, timedelta):
        value = value.total_seconds()
    found = {f"{value:,g}" if isinstance(value, float) else f"{value:,}", f"{value * 100:g} %"}
    for unit, size in UNITS.items():
        if value % size == 0 or unit == "s":
            found.add(f"{int(value) // size:,} {unit}")
    return found


def test_the_page_has_rows() -> None:
    """The pattern finds the rows of the page, so the next test has something to compare."""
    assert len(ROWS) > 40


@pytest.mark.parametrize(("what", "limit", "path", "name"), ROWS, ids=[f"{row[3]}-{n}" for n, row in enumerate(ROWS)])
def test_a_limit(what: str, limit: str, path: str, name: str) -> None:
    """The limit on the page is the value of the constant."""
    value = value_of(path, name)
    words = limit.replace("`", "")
    assert any(re.search(rf"(?<![\w.,]){re.escape(one)}(?![\w,])", words) for one in spellings(value)), (
        f"{what}: {limit!r} on the page, {value!r} in the code"
    )
