"""The oldest nats-server that opstream works with, and the check of a server's version."""

from __future__ import annotations

import re
from typing import Final

from nats.aio.client import Client

from opstream_schemas.urls import hide_credentials

MIN_SERVER: Final = (2, 15, 0)
"""Before, a server may lose what it acknowledged (#8475: compaction ignored `sync_interval: always`), forget the
position of a consumer (#8491), or stop to copy timers after a change of leader (#8488)."""

_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def explain_old_server(nc: Client) -> str:
    """Return why the server of a connection can't be used, and the next step; empty if it can."""
    url = nc.connected_url
    where = "this URL" if url is None else hide_credentials(url.geturl())
    version = str(nc._server_info.get("version", ""))  # noqa: SLF001 - nats-py raises for a version that it can't parse
    return explain_old_version(version, where)


def explain_old_version(version: str, where: str) -> str:
    """Return why a server can't be used, and the next step; empty if it can.

    A version that can't be read, as of a build from source, is accepted.

    Args:
        version: as the server tells it, `2.15.1` or `2.16.0-beta.1`.
        where: which server, for the text.
    """
    found = _VERSION.match(version)
    if found is None or tuple(map(int, found.groups())) >= MIN_SERVER:
        return ""
    needed = ".".join(map(str, MIN_SERVER))
    return (
        f"the broker at {where} is nats-server {version}, and opstream needs {needed} or later: older ones may lose "
        "what they have acknowledged, or a consumer's position. Update every server of the cluster first"
    )
