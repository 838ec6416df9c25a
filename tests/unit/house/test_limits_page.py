"""docs/limits.md: each constant that it names exists, and has the value that stands there."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from opstream_api.errors import ApiError
from opstream_api.http.caller_identity import _identity_value
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_resource_id

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
    "characters": 1,
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


def is_resource_id(text: str) -> bool:
    """Return True if a text may be a resource id."""
    try:
        check_resource_id(text)
    except InvalidName:
        return False
    return True


def is_caller(text: str) -> bool:
    """Return True if a text may be the name of a caller."""
    try:
        return bool(_identity_value({b"remote-user": [text.encode().decode("latin-1")]}, "Remote-User"))
    except ApiError:
        return False


TAKEN: Final[dict[str, Callable[[str], bool]]] = {
    "_RESOURCE_ID_MAX": is_resource_id,
    "MAX_IDENTITY_LENGTH": is_caller,
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_limit_counts_characters(name: str) -> None:
    """A limit of a text is that of its characters if the page says so, however many bytes each has in UTF-8."""
    ((_, limit, path, _),) = [row for row in ROWS if row[3] == name]
    value = value_of(path, name)
    assert limit == f"{value:,} characters"
    for letter in ("a", "é", "😀"):
        assert (TAKEN[name](letter * value), TAKEN[name](letter * (value + 1))) == (True, False)


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
