"""The command `opstream rebuild`. Part of `cli`; `rebuilding` works, and is loaded only when it runs."""

from __future__ import annotations

from typing import Any

import click

from opstream.cli.options import common as options
from opstream.terminal import logs


@click.command(short_help="Bring the view in line with the journal.")
@options.nats_option
@options.option("--json", "is_json", variable="JSON", is_flag=True, help="Print the summary as JSON.")
@options.connect_timeout_option
@options.log_level_option
def rebuild(log_level: str, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Fold the whole journal, and rewrite every entry of the view that differs, in place.

    Everything may go on meanwhile: statuses stay right, and nothing that a projector writes is set back. Run it after
    the view was lost or damaged, as often as you like; if it is stopped, run it again. Entries of operations that the
    journal does not know are removed. Progress goes to stderr, one line of summary to stdout. The exit status is 0 if
    all that can be folded is in the view.

    \b
    Example:
      opstream rebuild --nats nats://n1:4222
    """
    logs.configure(log_level)
    from .rebuild import Rebuild, rebuild

    rebuild(Rebuild(**given))
