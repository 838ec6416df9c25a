"""A broker with a login for each role, as `opstream broker-config` sets it up, and connections with these logins.

with RoleBroker(folder, actions, durables=["mailer"]) as broker:
    connection = await broker.connect("api")

`RoleCluster` is the same with three servers.
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
from tests.support.broker.server import Broker, Cluster


class RoleLogins:
    """The keys, and the accounts that know them.

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
        self.accounts = (self.folder / ACCOUNTS_FILE).read_text()

    def credentials(self, login: str) -> BrokerCredentials:
        """Of a login, by the name of its key."""
        return BrokerCredentials(nkey=str(self.folder / KEYS_FOLDER / f"{login}.nk"))

    async def connect_to(self, urls: Sequence[str], login: str) -> Connection:
        """Connect with a login to one of these servers."""
        return await connect(urls, login, connect_timeout=10, credentials=self.credentials(login))


class RoleBroker(RoleLogins):
    """One server. The arguments are those of the logins."""

    def __init__(self, folder: Path, actions: Sequence[ActionAccess], *, durables: Sequence[str] = ()) -> None:
        super().__init__(folder, actions, durables=durables)
        self.broker = Broker(extra=self.accounts)

    async def connect(self, login: str) -> Connection:
        """Connect with a login."""
        return await self.connect_to([self.broker.url], login)

    def __enter__(self) -> Self:
        self.broker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()


class RoleCluster(RoleLogins):
    """Three servers. The arguments are those of the logins."""

    def __init__(self, folder: Path, actions: Sequence[ActionAccess], *, durables: Sequence[str] = ()) -> None:
        super().__init__(folder, actions, durables=durables)
        self.cluster = Cluster(extra=self.accounts)

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.__exit__()
