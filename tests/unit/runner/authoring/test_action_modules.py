"""Modules of actions that can't be imported: one error that names the author's line and the cause."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opstream_runner import InvalidAction
from opstream_runner.authoring.action_modules import load_actions

pytestmark = pytest.mark.unit

HEAD = "import msgspec\nfrom opstream import ActionContext, action\n"
HANDLER = "def act(request: None, ctx: ActionContext) -> None: ...\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, from which modules are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mine", "helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


CASES = {
    "a syntax error": ("def act(:\n", "mine.py:1: the module 'mine' can't be imported: SyntaxError: invalid syntax"),
    "an indentation": ("if True:\nact = 1\n", "mine.py:2: the module 'mine' can't be imported: IndentationError: "),
    "an exception": (
        "\n\nprice = 1 / 0\n",
        "mine.py:3: the module 'mine' can't be imported: ZeroDivisionError: division by zero",
    ),
    "a missing package": (
        "import no_such_package\n",
        (
            "mine.py:1: the module 'mine' can't be imported: ModuleNotFoundError: No module named 'no_such_package': "
            "install it for the Python that runs opstream"
        ),
    ),
    "a missing name": (
        "from json import parse\n",
        "mine.py:1: the module 'mine' can't be imported: ImportError: cannot import name 'parse' from 'json'",
    ),
    "a former name": (
        "from opstream import ActionFailed\n",
        (
            "mine.py:1: the module 'mine' can't be imported: ImportError: opstream has no ActionFailed: what an action "
            "raises is opstream.ActionError, and the event that subscribers get is opstream.events.ActionFailed"
        ),
    ),
    "no parentheses": (
        f"{HEAD}@action\n{HANDLER}",
        "mine.py:3: write the decorator with parentheses and a name, e.g. @action('book:upload'), not @action on act",
    ),
    "no name": (f"{HEAD}@action(7)\n{HANDLER}", "mine.py:3: its name must be a text, e.g. @action('book:upload'), not"),
    "an unknown option": (
        f"{HEAD}@action('a:b', max_attemps=3)\n{HANDLER}",
        (
            "mine.py:3: the module 'mine' can't be imported: TypeError: action() got an unexpected keyword argument "
            "'max_attemps': did you mean 'max_attempts'?"
        ),
    ),
    "a strange option": (f"{HEAD}@action('a:b', zzz=3)\n{HANDLER}", "'zzz': the options are version, lease, "),
    "a bad option": (f"{HEAD}@action('a:b', lease=0)\n{HANDLER}", "mine.py:3: action a:b: lease must be at least 1"),
    "no types": (
        f"{HEAD}@action('a:b')\ndef act(request, ctx):\n    ...\n",
        "mine.py:3: action a:b: write the handler as",
    ),
    "an interrupt": (
        "\nraise KeyboardInterrupt\n",
        "mine.py:2: the module 'mine' can't be imported: KeyboardInterrupt",
    ),
    "an exit": (
        "import sys\nsys.exit(0)\n",
        "mine.py:2: the module 'mine' ends the process while it is imported: move that below",
    ),
    "a cancellation": (
        "import asyncio\nraise asyncio.CancelledError\n",
        "mine.py:2: the module 'mine' can't be imported: asyncio.exceptions.CancelledError",
    ),
    "a group with an exit": (
        "raise BaseExceptionGroup('both', [SystemExit(0)])\n",
        "mine.py:1: the module 'mine' can't be imported: ",
    ),
    "an error of a library": (
        "import json\n\njson.loads('{')\n",
        "mine.py:3: the module 'mine' can't be imported: json.decoder.JSONDecodeError: ",
    ),
    "two lines": (
        "raise RuntimeError('the shop is closed\\nsecond line')\n",
        "mine.py:1: the module 'mine' can't be imported: RuntimeError: the shop is closed …",
    ),
    "an empty first line": (
        "raise RuntimeError('\\n\\n  the shop is closed\\nmore')\n",
        "mine.py:1: the module 'mine' can't be imported: RuntimeError: the shop is closed …",
    ),
    "a note": (
        "error = ValueError('no price')\nerror.add_note('see the list')\nraise error\n",
        "mine.py:3: the module 'mine' can't be imported: ValueError: no price …",
    ),
    "a syntax error of two lines": (
        "raise SyntaxError('bad\\nworse')\n",
        "mine.py:1: the module 'mine' can't be imported: SyntaxError: bad …",
    ),
    "no message": ("raise RuntimeError\n", "mine.py:1: the module 'mine' can't be imported: RuntimeError"),
    "a module that it imports": ("import helper\n", "helper.py:2: the module 'mine' can't be imported: KeyError: 'x'"),
}


@pytest.mark.parametrize(("source", "said"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong(folder: Path, source: str, said: str) -> None:
    """The error is one line: file and line of the author's code, then the cause."""
    (folder / "helper.py").write_text("\n{}['x']\n", encoding="utf-8")
    (folder / "mine.py").write_text(source, encoding="utf-8")
    with pytest.raises(InvalidAction) as caught:
        load_actions(("mine",))
    text = str(caught.value)
    assert said in text
    assert "\n" not in text


def test_a_module_that_is_not_there(folder: Path) -> None:
    """A missing module names the options that find modules; so does one in a package that is not there."""
    for name in ("nowhere", "nowhere.actions"):
        with pytest.raises(InvalidAction, match=f"there is no module '{name}': check --actions and PYTHONPATH"):
            load_actions((name,))


def test_an_interrupt_is_none_of_it(folder: Path) -> None:
    """Ctrl-C while a module is imported stays Ctrl-C, and has its usual handler afterwards."""
    (folder / "mine.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        load_actions(("mine",))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_handler_of_a_module_stays(folder: Path) -> None:
    """A module that handles Ctrl-C itself goes on doing so."""
    before = signal.getsignal(signal.SIGINT)
    (folder / "mine.py").write_text(
        f"{HEAD}import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n@action('a:b')\n{HANDLER}",
        encoding="utf-8",
    )
    try:
        load_actions(("mine",))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_context_of_an_import(folder: Path) -> None:
    """Each module is imported in a context of its own, in order."""
    (folder / "helper.py").write_text(f"{HEAD}@action('a:b')\n{HANDLER}", encoding="utf-8")
    (folder / "mine.py").write_text("1 / 0\n", encoding="utf-8")
    seen: list[str] = []

    @contextmanager
    def importing(name: str) -> Iterator[None]:
        seen.append(f"begin {name}")
        try:
            yield
        finally:
            seen.append(f"end {name}")

    with pytest.raises(InvalidAction):
        load_actions(("helper", "mine"), importing=importing)
    assert seen == ["begin helper", "end helper", "begin mine", "end mine"]
