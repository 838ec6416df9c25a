"""A broker with a login for each role, as `opstream broker-config` sets it up, and connections with these logins.

with RoleBroker(folder, actions, durables=["mailer"]) as broker:
    connection = await broker.connect("api")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from opstream.broker_setup.server_config import ServerAddress
from opstream.broker_setup.setup_folder import ACCOUNTS_FILE, KEYS_FOLDER, SetupRequest, write_setup
from opstream_journal import Connection, connect
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.urls import BrokerCredentials
from tests.support.broker.server import Broker


class RoleBroker:
    """One server.

    Args:
        folder: gets the keys.
        actions: of the runner.
        durables: of subscribers.
    """

    def __init__(self, folder: Path, actions: Sequence[ActionAccess], *, durables: Sequence[str] = ()) -> None:
        self.folder = folder / "setup"
        server = ServerAddress(name="n1", host="127.0.0.1", port=4222)
        write_setup(
            SetupRequest(
                folder=self.folder,
                servers=(server,),
                actions=tuple(actions),
                durables=tuple(durables),
                store=str(folder / "store"),
            )
        )
        self.broker = Broker(extra=(self.folder / ACCOUNTS_FILE).read_text())

    def credentials(self, login: str) -> BrokerCredentials:
        """Of a login, by the name of its key."""
        return BrokerCredentials(nkey=str(self.folder / KEYS_FOLDER / f"{login}.nk"))

    async def connect(self, login: str) -> Connection:
        """Connect with a login."""
        url = self.broker.url
        return await connect([url], login, connect_timeout=10, credentials=self.credentials(login))

    def __enter__(self) -> Self:
        self.broker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()
