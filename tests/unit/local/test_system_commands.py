"""The health ports of `opstream up`: four in a row, each given to the process that serves it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from opstream.local.ports import ListenAddress, free_ports
from opstream.local.system_commands import LOOPBACK, Settings, SystemCommands

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("is_apart", [False, True])
def test_health_ports(is_apart: bool) -> None:
    """Prometheus finds the services in the order of the page, on this machine only."""
    (first,) = free_ports([ListenAddress(LOOPBACK, 0, "--health-port")])
    commands = SystemCommands(
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
            is_archiving=False,
            log_level="info",
            health_port=first,
            is_apart=is_apart,
        )
    )
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
