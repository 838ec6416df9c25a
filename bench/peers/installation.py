"""What the peers need: virtual environments, Restate's server from npm; Redis, PostgreSQL and strace from Debian.

`python -m bench.peers.installation`, or `make peers`, installs it. All versions are pinned: by the hashed requirements
in `requirements`, by the lock in `npm`; the Debian packages are those of the system. What is there already stays.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from opstream.terminal.console import CommandError

SAQ: Final = "saq"
CELERY: Final = "celery"
RESTATE: Final = "restate"
DBOS: Final = "dbos"
REDIS: Final = "redis-server"
POSTGRES: Final = "postgresql"
STRACE: Final = "strace"
ENVIRONMENTS: Final = (SAQ, CELERY, RESTATE, DBOS)

FOLDER_VARIABLE: Final = "OPSTREAM_BENCH_PEERS"
"""Names another folder than `.peers` for what is installed, so that several checkouts can share it."""

_HERE: Final = Path(__file__).resolve().parent
_ROOT: Final = _HERE.parents[1]
_SERVER: Final = "node_modules/@restatedev/restate-server-linux-{machine}/bin/restate-server"
_MACHINES: Final = {"x86_64": "x64", "aarch64": "arm64"}
_NPM: Final = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
_STAMP: Final = "installed.txt"
"""In each environment: the requirements that it was made from."""


def postgres_programs() -> Path | None:
    """Return the folder with `initdb` and `postgres` of the newest version of Debian; None if there is none."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return max(found, key=lambda path: int(path.parent.name)) if found else None


class Installation:
    """What is installed below a folder.

    Args:
        folder: need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def usual(cls) -> Installation:
        """In `.peers` of the checkout, or where `OPSTREAM_BENCH_PEERS` says."""
        return cls(Path(os.environ.get(FOLDER_VARIABLE) or _ROOT / ".peers"))

    def program(self, environment: str, name: str) -> Path:
        """A program of a virtual environment."""
        return self.folder / environment / "bin" / name

    def restate_server(self) -> Path:
        """The program of Restate's server itself, without its wrapper in Node."""
        machine = _MACHINES.get(platform.machine(), platform.machine())
        return self.folder / "npm" / _SERVER.format(machine=machine)

    def missing(self, needs: Collection[str]) -> Iterator[str]:
        """What of `needs` is not installed, or is of another version, as text."""
        for name in ENVIRONMENTS:
            if name in needs and not self._is_current(name):
                yield f"the virtual environment of {name}"
        if RESTATE in needs and not self._is_npm_current():
            yield "Restate's server"
        if {SAQ, CELERY} & {*needs} and shutil.which(REDIS) is None:
            yield REDIS
        if POSTGRES in needs and postgres_programs() is None:
            yield POSTGRES
        if STRACE in needs and shutil.which(STRACE) is None:
            yield STRACE

    def check(self, needs: Collection[str]) -> None:
        """Check that everything is installed.

        Raises:
            CommandError: something is not; the message names the next step.
        """
        if lacking := list(self.missing(needs)):
            raise CommandError(f"not installed, or of another version: {', '.join(lacking)}: run 'make peers'")

    def install(self) -> None:
        """Install what is missing.

        Raises:
            CommandError: something can't be installed; the message names the next step.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._install_debian()
        for name in ENVIRONMENTS:
            if not self._is_current(name):
                _say(f"making the virtual environment of {name}")
                self._install_environment(name)
        if not self._is_npm_current():
            _say("installing Restate's server")
            self._install_npm()
        _say(f"ready in {self.folder}; try: make bench ARGS='--only peers'")

    def _is_current(self, name: str) -> bool:
        stamp = self.folder / name / _STAMP
        return stamp.is_file() and stamp.read_bytes() == _requirements(name).read_bytes()

    def _is_npm_current(self) -> bool:
        lock = self.folder / "npm" / "package-lock.json"
        same = lock.is_file() and lock.read_bytes() == (_HERE / "npm" / lock.name).read_bytes()
        return same and self.restate_server().is_file()

    def _install_environment(self, name: str) -> None:
        place = self.folder / name
        venv.create(place, clear=True, with_pip=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        requirements = _requirements(name)
        _run([*pip, "--require-hashes", "--requirement", str(requirements)], f"pip can't install {requirements.name}")
        (place / _STAMP).write_bytes(requirements.read_bytes())

    def _install_npm(self) -> None:
        if shutil.which("npm") is None:
            raise CommandError("there is no npm, which Restate's server comes with: install Node 20 or later")
        place = self.folder / "npm"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(_HERE / "npm", place)
        _run([*_NPM], "npm can't install Restate's server", place)
        if not self.restate_server().is_file():
            raise CommandError(f"Restate has no server for this machine ({platform.machine()})")

    def _install_debian(self) -> None:
        lacking = [name for name in (REDIS, STRACE) if shutil.which(name) is None]
        lacking += [] if postgres_programs() else [POSTGRES]
        if not lacking:
            return
        names = " ".join(lacking)
        if shutil.which("apt-get") is None or os.geteuid() != 0:
            raise CommandError(
                f"install these, and run 'make peers' again: {names} (on Debian: apt-get install {names})"
            )
        _say(f"installing {names}")
        quiet = ["apt-get", "-qq", "-y", "--no-install-recommends"]
        _run([*quiet, "update"], "apt-get can't update")
        # Debian starts a server of its own with the package; the policy keeps it from doing so.
        variables = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        _run([*quiet, "install", *lacking], f"apt-get can't install {names}", variables=variables)


def _requirements(name: str) -> Path:
    return _HERE / "requirements" / f"{name}.txt"


def _run(command: list[str], problem: str, folder: Path | None = None, variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        how = f"{problem} (status {done.returncode})"
        raise CommandError(f"{how}: look at its output, and run 'make peers' again\n{done.stdout}")


def _say(text: str) -> None:
    sys.stderr.write(f"peers: {text}\n")


def main() -> None:
    """Install everything."""
    try:
        Installation.usual().install()
    except CommandError as error:
        sys.exit(f"peers: {error.message}")


if __name__ == "__main__":
    main()
