"""`opstream demo`: the whole system at work."""

from __future__ import annotations

import click


@click.command
def demo() -> None:
    """Show the whole system at work: start it in a temporary folder, upload a book over HTTP, read its events.

    It takes a few seconds, needs no network and leaves nothing behind.

    \b
    Example:
      opstream demo
    """
    from opstream.local.demo import run_demo

    run_demo()
