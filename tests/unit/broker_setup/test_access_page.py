"""docs/broker-access.md has the table of the code, and commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import click
import pytest

from opstream.broker_setup.access_table import access_table
from tests.support.cli.commands import COMMANDS

pytestmark = pytest.mark.unit

PAGE: Final = (Path(__file__).resolve().parents[3] / "docs" / "broker-access.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_code() -> None:
    """What the page says of each role is what `broker-config` writes."""
    assert access_table() in PAGE


def test_the_options_exist() -> None:
    """Each option of the page's commands is one of that command."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in block.splitlines() if line.startswith("opstream ")]
    assert [line[1] for line in lines] == ["broker-config", "provision", "api", "runner"]
    for _, command, *arguments in lines:
        known = {name for one in COMMANDS[command].params if isinstance(one, click.Option) for name in one.opts}
        assert {one for one in arguments if one.startswith("--")} <= known


def test_each_command_has_a_login() -> None:
    """The page says of each command that logs in, and has no role of its own, which key it needs."""
    (commands,) = re.findall(r"^- \*\*Commands\.\*\*.*?(?=^- )", PAGE, flags=re.MULTILINE | re.DOTALL)
    services = {"api", "runner", "projector", "webhooks", "hub"}
    leaves = {one: getattr(command, "commands", {"": command}).values() for one, command in COMMANDS.items()}
    needed = {one for one, found in leaves.items() if any(_has_login(leaf) for leaf in found)} - services
    assert {"doctor", "backup", "restore", "apikey", "verify"} <= needed
    assert {one for one in needed if f"`{one}" not in commands} == set()


def _has_login(command: click.Command) -> bool:
    return any("--nats-nkey" in one.opts for one in command.params)
