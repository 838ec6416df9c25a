"""What a service imports of the broker's client."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

PROGRAM = """
import sys
from opstream.cli.service_process import import_broker_client
import_broker_client(sys.argv[1:])
import nats
print("aiohttp" in sys.modules)
import aiohttp
print(aiohttp.__name__)
"""


@pytest.mark.parametrize(
    ("servers", "is_loaded"),
    [
        (["nats://127.0.0.1:4222"], False),
        (["127.0.0.1:4222", "tls://n2:4222"], False),
        (["ws://127.0.0.1:8080"], True),
        (["wss://n1:443"], True),
    ],
)
def test_aiohttp_is_loaded_for_websockets_only(servers: list[str], is_loaded: bool) -> None:
    """nats-py would import it wherever it is installed: 7 MiB in each process. Actions can import it all the same."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *servers], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(is_loaded), "aiohttp"]
