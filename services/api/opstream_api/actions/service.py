"""Starts what the routes of actions need in one process, on a connection that is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime

from opstream_api.settings import Settings
from opstream_journal import ActionCatalog, Connection
from opstream_journal.actions.action_controls import ActionControls
from opstream_journal.actions.action_overview import ActionOverviews
from opstream_schemas.urls import is_loopback

from .desk import ActionDesk


async def open_actions(
    stack: AsyncExitStack,
    connection: Connection,
    catalog: ActionCatalog,
    settings: Settings,
    *,
    now: Callable[[], datetime],
) -> ActionDesk:
    """Return the desk of a process. What it opens is closed with the stack.

    Args:
        stack: ends what was started.
        connection: the connection.
        catalog: started.
        settings: of the service.
        now: returns the time with a time zone.
    """
    overviews, controls = ActionOverviews(connection), ActionControls(connection)
    for one in (overviews, controls):
        await one.start()
        stack.push_async_callback(one.stop)
    # Behind a proxy, or on a network, any user could send the request, and nothing would tell which is an operator.
    is_private = is_loopback(settings.host) and not settings.trusted_proxies
    needs_credentials = not settings.auth and not is_private
    return ActionDesk(catalog, overviews, controls, needs_credentials=needs_credentials, now=now, clock=time.monotonic)
