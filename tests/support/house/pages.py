"""What the pages and the comments of the repository name, and whether it is there.

Each checker takes texts and returns what it found dead, so that a test can plant something dead and see it found.
"""

from __future__ import annotations

import ast
import fnmatch
import io
import os
import re
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]

_SOURCES: Final = (
    "schemas",
    "index",
    "journal",
    "payloads",
    "services",
    "opstream",
    "examples",
    "tests",
    "bench",
    "tools",
)
_NOT_OURS: Final = frozenset({".git", ".venv", "node_modules", "__pycache__", ".opstream"})
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_INLINE_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_DEFINITION: Final = re.compile(r"^\[([\w-]+)\]: (\S+)$", re.MULTILINE)
_REFERENCE: Final = re.compile(r"(?<![\]\w`])\[([\w-]+)\](?![\[(:])")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SUFFIXES: Final = ("cfg", "js", "lock", "md", "mjs", "py", "toml", "yaml", "yml")
_FILE: Final = re.compile(rf"[\w.*{{}},/-]*[\w*}}]\.(?:{'|'.join(_SUFFIXES)})")
_FOLDER: Final = re.compile(r"[\w.-]+(?:/[\w.-]+)*/")
_NAME: Final = re.compile(r"([\w./-]+\.py)::?([A-Za-z_]\w*(?:\.\w+)*)")
_PAGE: Final = re.compile(r"(?<![\w/.-])((?:[\w.-]+/)*[\w.-]*\w\.md)(#[\w-]+)?\b")
_DECISION: Final = re.compile(r"\b(?:ADR |docs/adr/)(\d{4})\b")

THEIRS: Final = frozenset(
    {
        "azure/Guidelines.md",  # of the repository microsoft/api-guidelines
        "greetings.py",  # what the reader is told to write
        "hooks.toml",
        "mailer.py",
        "orders.py",
        "test_orders.py",
        "receiver.py",
    }
)
"""What is named and lies elsewhere."""


def pages() -> list[Path]:
    """All pages."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted(page for page in found if not _NOT_OURS & set(page.parts))


def modules() -> list[Path]:
    """All modules."""
    found = (path for folder in _SOURCES for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if not _NOT_OURS & set(path.parts))


def settings_files() -> list[Path]:
    """Files that are neither pages nor modules, and have comments."""
    found = [ROOT / "Makefile", ROOT / "Dockerfile", *ROOT.glob("*.toml"), *ROOT.glob("*.yaml")]
    found += [path for folder in ("tests", "examples") for path in (ROOT / folder).rglob("*.*js")]
    return sorted(path for path in found if not _NOT_OURS & set(path.parts))


def diagrams_of(page: str) -> list[str]:
    """The diagrams of a page."""
    return [block for language, block in _FENCE.findall(page) if language == "mermaid"]


def dead_links(page: str, folder: Path) -> list[str]:
    """Links within the repository that lead to no file, to no heading, or have no target.

    Args:
        page: its text.
        folder: where it lies.
    """
    text = _FENCE.sub("", page)
    definitions = dict(_DEFINITION.findall(text))
    targets = [*_INLINE_LINK.findall(text), *definitions.values()]
    dead = [target for target in targets if "://" not in target and not _leads_somewhere(target, page, folder)]
    if definitions:
        used = set(_REFERENCE.findall(_SPAN.sub("", text)))
        dead += sorted(f"[{name}]" for name in used ^ set(definitions))
    return dead


def _leads_somewhere(target: str, page: str, folder: Path) -> bool:
    path, _, anchor = target.partition("#")
    file = folder / path
    if path and not file.exists():
        return False
    return not anchor or anchor in _anchors(file.read_text(encoding="utf-8") if path else page)


def _anchors(page: str) -> set[str]:
    """A heading in small letters, without what is no letter, and with hyphens for spaces."""
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in _HEADING.findall(page)}


def dead_paths(page: str) -> list[str]:
    """Files and folders that a page names in code, outside of blocks, and that are not there.

    A name without its folder stands for any file of the repository that has it; `*` stands for any text.
    """
    spans = _SPAN.findall(_FENCE.sub("", page))
    named = {word.rstrip(",;:") for span in spans for word in span.split() if "://" not in word}
    paths = {word.partition(":")[0] for word in named if _FILE.fullmatch(word.partition(":")[0])}
    folders = {word for word in named if _FOLDER.fullmatch(word)}
    return sorted(path for path in paths | folders if path not in THEIRS and not _exists(path))


def _exists(path: str) -> bool:
    pattern = path.rstrip("/")
    return any(fnmatch.fnmatchcase(f"/{known}", f"*/{pattern}") for known in _known_paths())


@lru_cache
def _known_paths() -> tuple[str, ...]:
    """All files and folders of the repository, relative to it."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [one for one in folders if one not in _NOT_OURS]
        place = Path(folder).relative_to(ROOT)
        found += [(place / name).as_posix() for name in (*folders, *files)]
    return tuple(found)


def dead_names(page: str, root: Path = ROOT) -> list[str]:
    """Each `path:function` and `path::Class.method` of a page that its module does not define.

    Args:
        page: its text.
        root: what the paths are relative to.
    """
    named = sorted(set(_NAME.findall(page)))
    return [f"{path}:{name}" for path, name in named if not _defines(root / path, name)]


def names_of(page: str) -> set[tuple[str, str]]:
    """Each `path:function` and `path::Class.method` of a page."""
    return set(_NAME.findall(page))


def _defines(path: Path, name: str) -> bool:
    if not path.is_file():
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    *classes, last = name.split(".")
    for one in classes:
        found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == one]
        if not found:
            return False
        body = found[0].body
    return any(last in _names_made_by(node) for node in body)


def _names_made_by(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def comments_of(source: str) -> str:
    """The comments and docstrings of a module."""
    return "\n".join(_comments_and_docstrings(source))


@lru_cache
def defined_names() -> frozenset[str]:
    """All classes, functions, constants and attributes that modules define."""
    found: set[str] = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.stmt):
                found.update(_names_made_by(node))
    return frozenset(found)


def dead_citations(said: str, folder: Path = ROOT) -> list[str]:
    """Pages and decisions that a text cites, and that are not there.

    Args:
        said: the text; of a module its comments (`comments_of`).
        folder: where it lies; a page may also be named as seen from there.
    """
    dead = [page for page, _ in _PAGE.findall(said) if page not in THEIRS and not _is_page(page, folder)]
    dead += [f"ADR {number}" for number in _DECISION.findall(said) if not _exists(f"docs/adr/{number}-*.md")]
    return sorted(dead)


def _is_page(page: str, folder: Path) -> bool:
    return (folder / page).exists() or (ROOT / page).exists() or (ROOT / "docs" / page).exists()


def _comments_and_docstrings(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        # A docstring, or the text below a constant or a member, which documents that.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
