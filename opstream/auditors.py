"""The commands for auditors and analysts, which read the history from the broker itself. Part of `cli`.

They need no service of opstream's to run, and change nothing. As in `cli`, what does the work is loaded only when one
of them runs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from . import options as service_options
from . import replay_options as options


@click.command(short_help="Print the history of all operations.")
@options.select_options
@options.replay_follow_option
@options.format_option
@service_options.nats_option
@service_options.connect_timeout_option
def replay(*, is_following: bool, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Print the events that the broker holds, oldest first.

    Events go to stdout, everything else to stderr. The last line there says with which --from-sequence to go on later,
    so that nothing is left out or comes twice. What is no event is passed over and told, and so are sequences that are
    missing; the exit status is then 1. It is 0 if all was printed, 130 after Ctrl-C.

    \b
    Example:
      opstream replay --since 2h --action 'book:*' --type failed | jq -r .data.error.message
    """
    wanted = options.wanted(datetime.now(UTC), given, is_following=is_following)
    from .replaying import Replay, replay

    replay(Replay(wanted=wanted, **given))


COMMANDS: Final = (replay,)
