"""README.md, CONTRIBUTING.md and docs/actions.md are right: their code runs as it stands there, and whatever they name
exists. So do the links of all pages."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import click
import msgspec
import pytest

from opstream import ActionError, action
from tests.support.cli.commands import COMMANDS
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).resolve().parents[3]
DOCUMENTS: Final = ("README.md", "CONTRIBUTING.md", "docs/actions.md")
PAGES: Final = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "examples")
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
ACTIONS: Final = (ROOT / "docs" / "actions.md").read_text(encoding="utf-8")
CLIENT: Final = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
BIN: Final = Path(sys.executable).parent
OWN: Final = ".venv/bin/"
"""The names of the programs that `make setup` installs, as in the documents."""
NO_FILES: Final = frozenset({"greetings.py", "hooks.toml", "HTTP/1.1", "text/event-stream"})
"""What looks like a path of the repository: files that the reader is to write, and what is none."""

_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_PATH: Final = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")
_SUFFIXES: Final = frozenset({".lock", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"})


def section(title: str) -> dict[str, str]:
    """The code blocks of a section of the README, by language."""
    (text,) = [part for part in re.split(r"^## ", README, flags=re.MULTILINE) if part.startswith(f"{title}\n")]
    return dict(_BLOCK.findall(text))


def named(pattern: str) -> set[str]:
    """Names in the documents' code, except blocks of Python: the first group of each match."""
    return {found for document in DOCUMENTS for code in codes(document) for found in re.findall(pattern, code)}


def codes(document: str) -> Iterator[str]:
    """Lines of code blocks except Python, and inline code."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for language, block in _BLOCK.findall(text):
        if language != "python":
            yield from block.splitlines()
    yield from _SPAN.findall(_BLOCK.sub("", text))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the README's module of actions."""
    (tmp_path / "greetings.py").write_text(section("Write an action")["python"], encoding="utf-8")
    return tmp_path


@pytest.fixture
def greetings(folder: Path) -> ModuleType:
    """The README's module, imported."""
    spec = importlib.util.spec_from_file_location("greetings", folder / "greetings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_an_action_is_tested_by_calling_it(greetings: ModuleType) -> None:
    """The README's unit test passes, and the action fails as it says."""
    (call,) = re.findall(r"Test it by calling it: `await (.+?)`", README)
    greeted = await eval(call, vars(greetings))
    assert greeted == greetings.Greeted(text="Hello Ada, says operation 1")
    with pytest.raises(ActionError, match="there is nobody to greet"):
        await eval(call.replace("Ada", " "), vars(greetings))


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README calls curl, which is not installed")
def test_the_first_call(tmp_path: Path) -> None:
    """The README's first call gets the response shown there from the system of `make up`."""
    shown = _BLOCK.findall(README)[0][1].replace("\\\n", "")
    call, *_ = re.findall(r"^\$ (curl .+)$", shown, flags=re.MULTILINE)
    options = ("--actions", "bookshelf.actions", "--port", "0", "--nats-port", "0", "--data-dir", "data")
    with Process("up", *options, cwd=tmp_path) as up:
        api = up.wait_for(r"^opstream is ready: API (http://\S+),")[1]
        command = call.replace("http://127.0.0.1:8080", api)
        environment = os.environ | {"NO_PROXY": "127.0.0.1"}
        answer = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, capture_output=True, check=True, timeout=40, env=environment, text=True
        ).stdout
    head, _, body = answer.replace("\r", "").partition("\n\n")
    told = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    assert head.startswith("HTTP/1.1 202 Accepted\n")
    assert told["Operation-Location"] == f"{api}/status/{msgspec.json.decode(body)['id']}"
    assert told["Retry-After"] == "1"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README calls curl, which is not installed")
def test_the_calls(folder: Path) -> None:
    """`opstream up` with the README's action responds to the README's calls: 202, a greeting, and the history."""
    program, *options = shlex.split(section("Write an action")["sh"], comments=True)
    assert program == f"{OWN}opstream"
    submit, status, history = section("Call it")["sh"].replace("\\\n", "").splitlines()
    ports = ("--port", "0", "--nats-port", "0", "--data-dir", "data")
    with Process(*options, *ports, cwd=folder) as up:
        api = up.wait_for(r"^opstream is ready: API (http://\S+),")[1]

        def call(line: str) -> bytes:
            command = line.replace("http://127.0.0.1:8080", api)
            environment = os.environ | {"NO_PROXY": "127.0.0.1"}
            answer = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=40, env=environment)
            return answer.stdout

        first = msgspec.json.decode(call(submit))
        assert (first["id"], first["status"]) == ("greet-ada-1", "NotStarted")
        last = msgspec.json.decode(call(status))
        assert (last["status"], last["result"]) == ("Succeeded", {"text": "Hello Ada, says operation greet-ada-1"})
        assert msgspec.json.decode(call(submit)) == last
        names = re.findall(rb"^event: (.+)$", call(history), flags=re.MULTILINE)
        assert names == [b"requested", b"started", b"progressed", b"succeeded"]


async def test_the_client(folder: Path) -> None:
    """The README's command and program, and the program of docs/client.md, greet as the README's action does."""
    blocks = section("Use the client")
    documented, _with_files = re.findall(r"^```python\n(.*?)^```$", CLIENT, flags=re.MULTILINE | re.DOTALL)
    ports = ("--port", "0", "--nats-port", "0", "--data-dir", "data")
    with Process("up", "--actions", "greetings", *ports, cwd=folder) as up:
        api = up.wait_for(r"^opstream is ready: API (http://\S+),")[1]
        environment = os.environ | {"NO_PROXY": "127.0.0.1", "OPSTREAM_URL": api, "PYTHONPATH": str(folder)}

        def printed(*command: str) -> str:
            answer = subprocess.run(command, capture_output=True, check=True, timeout=20, env=environment, text=True)
            return answer.stdout

        result = msgspec.json.decode(printed("sh", "-c", blocks["sh"].replace(OWN, f"{BIN}/")))
        assert result["text"].startswith("Hello Ada, says operation ")
        for program in (blocks["python"], documented):
            lines = printed(sys.executable, "-c", program.replace("http://127.0.0.1:8080", api)).splitlines()
            assert lines[-1].startswith("Hello Ada, says operation ")
        assert [line.split()[1] for line in lines[:-1]] == ["requested", "started", "progressed", "succeeded"]


def test_the_options_of_an_action() -> None:
    """The table of docs/actions.md names every option of `@action` with its default."""
    rows = re.findall(r"^\| `(\w+)` \| `?([\w.]+|\"\")`? \|", ACTIONS, flags=re.MULTILINE)
    parameters = inspect.signature(action).parameters.values()
    wanted = {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    told = {
        name: f"{one:g}" if isinstance(one, int | float) and not isinstance(one, bool) else str(one) or '""'
        for name, one in wanted.items()
    }
    told |= {name: "none" for name, one in wanted.items() if one is None}
    assert dict(rows) == told


def test_make_targets() -> None:
    """Each `make` target exists."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = named(r"^(?:\$ )?make ([a-z]+)")
    assert found >= {"demo", "up", "test"}
    assert found - set(targets) == set()


def test_commands_and_options() -> None:
    """Each `opstream` command exists, and has the options that it is called with."""
    lines = named(r"^(?:\$ |\S*/)?opstream +([a-z].*)")
    assert {line.split()[0] for line in lines} - COMMANDS.keys() == set()
    assert {line.split()[0] for line in lines} >= {"api", "provision", "projector", "runner", "up"}
    for line in lines:
        command, *words = line.split()
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options - options_of(COMMANDS[command]) - {"--help"} == set(), line
    everywhere = set().union(*map(options_of, COMMANDS.values()))
    assert named(r"^(--[a-z-]+)") - everywhere == set()


def options_of(command: click.Command) -> set[str]:
    """All spellings of the options of a command and of its subcommands."""
    own = {name for parameter in command.params for name in parameter.opts}
    return own.union(*map(options_of, command.commands.values() if isinstance(command, click.Group) else ()))


def test_variables() -> None:
    """Each variable is read: by a command, or by a test."""
    options = [parameter for command in COMMANDS.values() for parameter in command.params]
    known = {str(one.envvar) for one in options if one.envvar}
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    found = named(r"(OPSTREAM_[A-Z_]+)")
    assert "OPSTREAM_NATS_URL" in found
    assert [one for one in found - known if not any(f'"{one}"' in source for source in sources)] == []


def test_markers() -> None:
    """Each `pytest -m` names a marker."""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [one for one in named(r"pytest -m (\w+)") if f'"{one}: ' not in pyproject] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths(document: str) -> None:
    """Each file, folder and program exists."""
    spans = [word for code in codes(document) for word in code.split()]
    paths = {word for word in spans if _PATH.fullmatch(word) and ("/" in word or Path(word).suffix in _SUFFIXES)}
    wanted = paths - NO_FILES
    assert wanted
    assert [path for path in sorted(wanted) if not located(path).exists()] == []


def test_links() -> None:
    """Each link within the repository leads to a file, and to a heading of it."""
    pages = [page for name in PAGES for page in (sorted((ROOT / name).rglob("*.md")) or [ROOT / name])]
    own = [page for page in pages if "node_modules" not in page.parts]
    links = [(page, link) for page in own for link in _LINK.findall(page.read_text(encoding="utf-8"))]
    inner = [(page, *link.partition("#")[::2]) for page, link in links if "://" not in link]
    assert {path for _, path, _ in inner} >= {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    broken = [link for link in inner if not leads_somewhere(*link)]
    assert broken == []


def leads_somewhere(page: Path, path: str, anchor: str) -> bool:
    """Return True if a link of a page is valid. An anchor is its heading in lower case, with hyphens for spaces."""
    target = page.parent / path if path else page
    if not anchor or not target.exists():
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def located(path: str) -> Path:
    """The file of a path in the documents."""
    return BIN / path.removeprefix(OWN) if path.startswith(OWN) else ROOT / path


def test_decisions() -> None:
    """The list of decisions has each page once, in order."""
    folder = ROOT / "docs" / "adr"
    pages = [page.name for page in sorted(folder.glob("[0-9]*.md"))]
    listed = re.findall(r"^\| \[(\d+)\]\((\S+)\) \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [(name[:4], name) for name in pages]
