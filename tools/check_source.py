# ruff: noqa: INP001 - a script, in no package
"""House rules that no linter knows: rooms, names and words (docs/adr/0029-the-house.md).

`make check` calls it. It prints each breach as `file:line: what to do` and exits with status 1 if there is one.
`check_source.py FOLDER` checks a tree of the same layout elsewhere, as its test does.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = (
    "schemas/opstream_schemas",
    "index/opstream_index",
    "journal/opstream_journal",
    "payloads/opstream_payloads",
    "services/api/opstream_api",
    "services/runner/opstream_runner",
    "services/projector/opstream_projector",
    "services/webhooks/opstream_webhooks",
    "opstream",
    "examples/bookshelf/bookshelf",
    "examples/orders/orders",
)
OTHERS: Final = ("tests", "bench", "tools")
PAGES: Final = ("README.md", "CONTRIBUTING.md", "docs", "examples", "tests")

MAX_LINES: Final = 400
MAX_MODULES: Final = 12
MIN_DOCSTRING_WORDS: Final = 20
"""The fewest words with which a package says what lives in it, where to begin, and what is not allowed in."""

UNCAPPED_FOLDERS: Final = {"opstream/cli/commands": "one module a command"}
SHARED_CLASS_NAMES: Final = {
    "Settings": "each service has one, in a module of that name",
    "Event": "the wire's event in schemas, and the one that a subscriber's handler gets: public names",
    "Operation": "the folded state in schemas, and what the client returns: public names",
}
ING_MODULES: Final = {
    "testing": "the package that authors import to test their actions",
    "authoring": "what authors of actions import, named by who uses it",
    "provisioning": "the field's word for making streams, buckets and consumers",
}
UNFINISHED: Final = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
WORDS: Final = {
    "whoever": "name who acts: the caller, the runner, the client",
    "whomever": "name who acts: the caller, the runner, the client",
    "somebody": "name who acts: the caller, an operator, another process",
    "anew": "write 'again', or say what is made",
    "nobody tells": "say what does not arrive",
    "what is told": "say what is printed, sent or returned",
    "whose turn": "say which one is next",
}
_WORD: Final = re.compile(
    r"\b(?:" + "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in WORDS) + r")\b", re.IGNORECASE
)


class Module(NamedTuple):
    """A parsed source file."""

    path: Path
    """Relative to the root."""
    text: str
    tree: ast.Module


def breaches(root: Path = ROOT) -> Iterator[str]:
    """Yield every breach below `root`, ready to print.

    Raises:
        SyntaxError: a source is no Python.
    """
    modules = [_parse(root, path) for folder in PACKAGES for path in _sources(root, folder)]
    yield from _folders(modules)
    yield from _class_names(modules)
    for module in modules:
        yield from _size(module)
        yield from _name(module)
        yield from _package_docstring(module)
    for other in OTHERS:
        modules += [_parse(root, path) for path in _sources(root, other)]
    for module in modules:
        if module.path.name in {Path(__file__).name, f"test_{Path(__file__).name}"}:
            continue  # they have to name the words
        yield from _unfinished(module)
        yield from _prose(module.path, _comments_and_strings(module))
    for page in _pages(root):
        lines = (root / page).read_text(encoding="utf-8").splitlines()
        yield from _prose(page, enumerate(lines, start=1))


def _sources(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).rglob("*.py"))


def _parse(root: Path, path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(path.relative_to(root), text, ast.parse(text, filename=str(path)))


def _pages(root: Path) -> Iterator[Path]:
    for name in PAGES:
        found = [root / name] if name.endswith(".md") else sorted((root / name).rglob("*.md"))
        yield from (path.relative_to(root) for path in found if path.is_file() and "node_modules" not in path.parts)


def _folders(modules: list[Module]) -> Iterator[str]:
    """Check how many modules lie in one folder."""
    folders = defaultdict(list)
    for module in modules:
        if module.path.name != "__init__.py":
            folders[module.path.parent].append(module.path.name)
    for folder, names in folders.items():
        if len(names) > MAX_MODULES and folder.as_posix() not in UNCAPPED_FOLDERS:
            yield f"{folder}:1: {len(names)} modules, over {MAX_MODULES}: make a folder for a concept among them"


def _class_names(modules: list[Module]) -> Iterator[str]:
    """Check that each class name is defined once, since one name stands for one thing."""
    places = defaultdict(list)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and node.name not in SHARED_CLASS_NAMES:
                places[node.name].append(f"{module.path}:{node.lineno}")
    for name, found in places.items():
        for place in found[1:]:
            yield f"{place}: class {name} is defined at {found[0]} already: give one of them another name"


def _size(module: Module) -> Iterator[str]:
    count = len(module.text.splitlines())
    if count > MAX_LINES:
        yield f"{module.path}:{count}: over {MAX_LINES} lines: split it by concept"


def _name(module: Module) -> Iterator[str]:
    """Check that a module, or the folder of a package, is named by a noun."""
    stem = module.path.parent.name if module.path.name == "__init__.py" else module.path.stem
    if stem.endswith("ing") and stem not in ING_MODULES:
        yield f"{module.path}:1: {stem} says what is done, not what lives here: name it by a noun"


def _package_docstring(module: Module) -> Iterator[str]:
    if module.path.name != "__init__.py":
        return
    words = (ast.get_docstring(module.tree) or "").split()
    if len(words) < MIN_DOCSTRING_WORDS:
        yield (
            f"{module.path}:1: say in the docstring what lives here, where to begin and what is not allowed in "
            f"({MIN_DOCSTRING_WORDS} words at least)"
        )


def _unfinished(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), start=1):
        if found := UNFINISHED.search(line):
            yield f"{module.path}:{number}: {found[0]}: finish it, or file an issue"


def _comments_and_strings(module: Module) -> Iterator[tuple[int, str]]:
    """Yield what people read in a source: each comment and string, with its first line's number."""
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type in {tokenize.COMMENT, tokenize.STRING} or tokenize.tok_name[token.type] == "FSTRING_MIDDLE":
            yield token.start[0], token.string


def _prose(path: Path, texts: Iterator[tuple[int, str]]) -> Iterator[str]:
    for first, text in texts:
        for found in _WORD.finditer(text):
            word = " ".join(found[0].split())
            line = first + text.count("\n", 0, found.start())
            yield f"{path}:{line}: '{word}': {WORDS[word.lower()]}"


def main() -> None:
    """Check all sources and pages."""
    found = list(breaches(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
    for one in found:
        sys.stdout.write(f"{one}\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
