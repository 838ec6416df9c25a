"""Every command of `opstream`, imported: `main` itself imports a command only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from opstream.cli.app import main


def _load() -> dict[str, click.Command]:
    context = click.Context(main, info_name="opstream")
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


COMMANDS: Final[Mapping[str, click.Command]] = _load()
