"""A real PostgreSQL on a loopback port, in a folder of its own, for the tests of an index in it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from opstream.local.ports import ListenAddress, free_ports

_BINARIES: Final = Path("/usr/lib/postgresql")
_ROOT: Final = 0
_OTHER_USER: Final[dict[str, Any]] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
"""PostgreSQL refuses to run as root."""
_START_TIMEOUT: Final = 30.0
_USER: Final = "opstream"


def find_binaries() -> Path | None:
    """Return the folder with `initdb` and `postgres` of the newest version; None if it is not installed."""
    found = [path for path in _BINARIES.glob("*/bin") if (path / "initdb").exists()]
    return max(found, key=lambda path: int(path.parent.name)) if found else None


class PostgresServer:
    """A server. Each test makes a database of its own.

    Args:
        binaries: see `find_binaries`.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="opstream-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        (self.port,) = free_ports([ListenAddress("127.0.0.1", 0, "")])

    def __enter__(self) -> Self:
        if os.getuid() == _ROOT:
            shutil.chown(self._folder, _OTHER_USER["user"], _OTHER_USER["group"])
        self._run("initdb", "--no-sync", "--username", _USER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ("-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder), "-F")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as_user(),
            )
        until = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self._folder / "log").read_text()
                time.sleep(0.05)  # a server that starts says nothing; there is no better sign
            else:
                return

    def stop(self) -> None:
        """Stop it at once, as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(3)  # SIGQUIT: without a checkpoint
            process.wait(_START_TIMEOUT)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make a database, and return its URL."""
        name = f"index_{next(self._numbers)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        url = database if "://" in database else self.url(database)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type] # a text of the test
            return cursor.fetchall() if cursor.description else []

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _as_user(self) -> dict[str, Any]:
        return _OTHER_USER if os.getuid() == _ROOT else {}

    def _run(self, program: str, *options: str) -> None:
        subprocess.run(
            [self._binaries / program, "-D", self._data, *options],
            check=True,
            cwd=self._folder,
            capture_output=True,
            timeout=60,
            **self._as_user(),
        )
