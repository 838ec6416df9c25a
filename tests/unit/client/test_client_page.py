"""docs/client.md names all calls, errors, commands and statuses, and no others."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Final

import pytest

import opstream
from opstream import AsyncOperationsClient, OperationsClient, OperationsError
from opstream.cli.app import SECTIONS
from opstream.cli.client_session import EXIT_CANCELED, EXIT_TIMED_OUT
from opstream.terminal.console import EXIT_INTERRUPTED
from tests.support.cli.commands import COMMANDS

pytestmark = pytest.mark.unit

TEXT: Final = (Path(__file__).resolve().parents[3] / "docs" / "client.md").read_text(encoding="utf-8")


def public(client: type) -> dict[str, inspect.Signature]:
    """The calls of a client, except those that close it."""
    found = inspect.getmembers(client, inspect.isfunction)
    return {name: inspect.signature(call) for name, call in found if not name.startswith("_") and "close" not in name}


def test_calls() -> None:
    """The table has every call; both clients have the same ones with the same arguments and defaults."""
    calls = public(OperationsClient)
    assert set(re.findall(r"^\| `(\w+)\(", TEXT, flags=re.MULTILINE)) == set(calls)
    others = public(AsyncOperationsClient)
    assert {name: call.parameters for name, call in calls.items()} == {
        name: call.parameters for name, call in others.items()
    }
    timeouts = dict(re.findall(r"^\| `(\w+)\(.*\| (\d+|none)[^|]*\|$", TEXT, flags=re.MULTILINE))
    assert {name: str(int(call.parameters["timeout"].default or 0)) for name, call in calls.items()} == {
        name: seconds.replace("none", "0") for name, seconds in timeouts.items()
    }


def test_errors() -> None:
    """The table has every error that is exported."""
    exported = {
        name
        for name in opstream.__all__
        if inspect.isclass(value := getattr(opstream, name)) and issubclass(value, OperationsError)
    }
    assert set(re.findall(r"^\| `([A-Z]\w+)` \|", TEXT, flags=re.MULTILINE)) == exported - {"OperationsError"}


def test_commands() -> None:
    """The table has every command; each option that is named exists."""
    commands = {name: COMMANDS[name] for name in SECTIONS["Use a running API"]}
    named = re.findall(r"^\| `opstream (\w+) \w+(?: NAME)?(?: (--[a-z-]+))?`", TEXT, flags=re.MULTILINE)
    assert {name for name, _ in named} == set(commands)
    options = {name for command in commands.values() for parameter in command.params for name in parameter.opts}
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]*", TEXT)) <= options


def test_exit_statuses() -> None:
    """The table has the exit statuses of the code."""
    listed = {int(status) for status in re.findall(r"^\| (\d+) \|", TEXT, flags=re.MULTILINE)}
    assert listed == {0, 1, 2, EXIT_CANCELED, EXIT_TIMED_OUT, EXIT_INTERRUPTED}
