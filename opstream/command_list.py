"""The commands that have modules of their own. Caller: `cli`, which holds those that start the services."""

from __future__ import annotations

from typing import Final

from . import auditors, operate, parked, rebuild_command, verify_command, webhooking

COMMANDS: Final = (
    *operate.COMMANDS,
    operate.fail,
    parked.parked,
    *auditors.COMMANDS,
    rebuild_command.rebuild,
    *verify_command.COMMANDS,
    *webhooking.COMMANDS,
)
