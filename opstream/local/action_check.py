"""Whether modules of actions can be imported, found out in a process of its own.

The supervisor imports no action: an action may start threads, change the process, or end it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from opstream.terminal.console import CommandError

from .processes import die_with_supervisor

CHECK_COMMAND: Final = (sys.executable, "-P", "-c", "from opstream.local.action_check import main; main()")
"""The command of that process; the modules follow."""


def main() -> None:
    """Import the modules that the process was started with; print what is wrong with the first one that can't be.

    Raises:
        SystemExit: with status 1, after the line on stderr.
    """
    die_with_supervisor()
    sys.path.insert(0, str(Path.cwd()))
    from opstream_runner import InvalidAction
    from opstream_runner.authoring.action_modules import load_actions

    try:
        load_actions(tuple(sys.argv[1:]))
    except InvalidAction as error:
        CommandError(str(error)).show()
        sys.exit(1)
