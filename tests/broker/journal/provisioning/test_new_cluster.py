"""`opstream provision` on servers that have just started, and do not know each other yet."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from opstream.cli.commands import provision as command
from opstream.terminal.console import CommandError
from opstream_journal import BrokerRefused
from opstream_journal.provisioning import provision as provisioning
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

SETTINGS = command.ProvisionSettings(
    servers=(),
    connect_timeout=10.0,
    modules=(),
    is_update=False,
    is_archiving=False,
    replicas=None,
    max_age=None,
    max_bytes=None,
    max_msg_size=None,
    max_body=None,
    max_result=None,
    archive_max_age=None,
)


class RefusedAtFirst:
    """The broker's answer while the leader of the metadata does not know enough peers."""

    def __init__(self, times: int) -> None:
        self.left = times
        self._provision = provisioning.provision

    async def __call__(self, *args: Any, **options: Any) -> Any:
        if self.left:
            self.left -= 1
            raise BrokerRefused(400, 10005, "no suitable peers for placement, peer offline")
        return await self._provision(*args, **options)


async def test_it_is_tried_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within some seconds they know each other, and everything is made."""
    refused = RefusedAtFirst(2)
    monkeypatch.setattr(provisioning, "provision", refused)
    monkeypatch.setattr(command, "known_servers", lambda _: 3)
    await asyncio.to_thread(command.provision_broker, _on(broker))
    assert refused.left == 0


@pytest.mark.parametrize(("known", "patience"), [(2, 0.0), (0, 3600.0)], ids=["too-few", "no-cluster"])
async def test_it_is_given_up(broker: Broker, monkeypatch: pytest.MonkeyPatch, known: int, patience: float) -> None:
    """A cluster that stays too small, and a server without one, are an error with the next step."""
    monkeypatch.setattr(provisioning, "provision", RefusedAtFirst(1_000))
    monkeypatch.setattr(command, "known_servers", lambda _: known)
    monkeypatch.setattr(command, "PEERS_TIMEOUT", patience)
    with pytest.raises(CommandError, match="start more servers with the same cluster name"):
        await asyncio.to_thread(command.provision_broker, _on(broker))


def _on(broker: Broker) -> command.ProvisionSettings:
    return msgspec.structs.replace(SETTINGS, servers=(broker.url,))
