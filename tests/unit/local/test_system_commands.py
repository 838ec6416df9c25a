"""The processes of `opstream up`: their health ports, and the index that projector and API share."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from opstream.local.ports import ListenAddress, free_ports
from opstream.local.system_commands import HUB, LOOPBACK, Settings, SystemCommands

pytestmark = pytest.mark.unit


def commands_of(**changes: Any) -> SystemCommands:
    """The commands of a system."""
    return SystemCommands(
        Settings(
            host=LOOPBACK,
            port=0,
            public_url=None,
            nats_port=0,
            data_dir=Path("data"),
            modules=("echoes",),
            concurrency=1,
            drain=0.0,
            max_body=1,
            max_result=1,
            upload_limit=1,
            is_archiving=False,
            log_level="info",
            **changes,
        )
    )


@pytest.mark.parametrize(
    ("index", "given"),
    [(None, f"sqlite:{Path('data').absolute() / 'index.db'}"), ("off", "off"), ("sqlite:x", "sqlite:x")],
)
def test_an_index_as_it_comes(index: str | None, given: str) -> None:
    """Projector and API get the same index: a file in the data folder, unless another one is named, or none. No option
    has it, since its URL may have a password."""
    commands = commands_of(index=index)
    assert {commands.environment(name)["OPSTREAM_INDEX"] for name in (HUB, "api", "projector")} == {given}
    assert not any(given in options for options in commands.services().values())


@pytest.mark.parametrize("is_apart", [False, True])
def test_health_ports(is_apart: bool) -> None:
    """Prometheus finds the services in the order of the page, on this machine only."""
    (first,) = free_ports([ListenAddress(LOOPBACK, 0, "--health-port")])
    commands = commands_of(health_port=first, is_apart=is_apart)
    assert commands.metrics() == [f"{LOOPBACK}:{first + further}" for further in range(4)]
    pairs = {
        (name if option == "--health-port" else option.removeprefix("--").removesuffix("-health-port"), value)
        for name, options in commands.services().items()
        for option, value in itertools.pairwise(options)
        if option.endswith("health-port")
    }
    names = ("api", "projector", "runner", "webhooks")
    assert pairs == {(name, str(first + further)) for further, name in enumerate(names)}
    options = itertools.chain(*map(itertools.pairwise, commands.services().values()))
    assert {value for option, value in options if option == "--health-host"} == {LOOPBACK}
