"""A system that runs on a version of the past, and is upgraded from it.

system = UpgradableSystem(folder, stack, before="0.1.0")
system.begin()            # every process is of the version before
system.stop("runner")
system.start_upgraded("runner")  # a process of this version
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.releases.sources import environment_of, unpack
from tests.support.system import kill_actions
from tests.support.system.processes import Process, run
from tests.support.system.services import BROKER, System

_STOP_TIMEOUT: Final = 20.0


def shown_otherwise(version: str) -> frozenset[str]:
    """Members of an ended operation's status that a version left as the last progress was, and this one does not."""
    return frozenset({"percentComplete", "message"} if version < "0.3.0" else ())


class UpgradableSystem(System):
    """A system whose processes begin as those of an earlier version.

    Args:
        folder: the working directory; each version has a folder with its module of actions in it.
        stack: ends what still runs.
        before: the earlier version, one of `BEFORE`.
        replicas: of each service.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, before: str, replicas: int = 2) -> None:
        super().__init__(folder, stack, "kill_actions", replicas=replicas)
        self.shown_otherwise = shown_otherwise(before)
        self._before = unpack(before, folder)
        self.auth: tuple[str, ...] = ()
        """Further options of API processes of this version that start from now on."""
        self.keks: tuple[str, ...] = ()
        """Those of API and runner processes of this version."""
        self._upgraded: set[str] = set()
        self._old_folder = folder / "before"
        self._old_folder.mkdir()
        kill_actions.write_module(folder)
        source = (folder / "kill_actions.py").read_text(encoding="utf-8")
        if "ActionError" not in (self._before / "opstream" / "__init__.py").read_text(encoding="utf-8"):
            source = source.replace("ActionError", "ActionFailed")  # what an author has to rename
        (self._old_folder / "kill_actions.py").write_text(source, encoding="utf-8")
        (self._old_folder / "data").symlink_to(folder / "data")
        (folder / "data").mkdir()

    @property
    def old_environment(self) -> dict[str, str]:
        """Variables under which `opstream` is the earlier version."""
        return environment_of(self._before)

    def begin(self) -> str:
        """Start the earlier version of everything, wait until it serves, and return what `provision` printed."""
        self.start(BROKER)
        self.wait_ready(BROKER)
        done = run(
            "provision",
            "--nats",
            self.nats,
            "--actions",
            "kill_actions",
            cwd=self._old_folder,
            extra=self.old_environment,
        )
        assert (done.returncode, done.stderr) == (0, "")
        for name in self.names:
            self.start(name)
        self.wait_ready(*self.names)
        return done.stdout

    def provision(self) -> str:
        """Bring streams, buckets and consumers to this version, as CHANGELOG.md asks; return what it printed."""
        done = run("provision", "--update", "--nats", self.nats, "--actions", "kill_actions", cwd=self.folder)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    def start(self, name: str) -> Process:
        """Start one, of the version that it is to have."""
        is_upgraded = name in self._upgraded
        process = self._stack.enter_context(
            Process(
                *self._command(name),
                *(self.auth if is_upgraded and name.startswith("api") else ()),
                *(self.keks if is_upgraded and name.startswith(("api", "runner")) else ()),
                cwd=self.folder if is_upgraded else self._old_folder,
                extra={} if is_upgraded else self.old_environment,
            )
        )
        self.processes[name] = process
        self.runs.append((name, process))
        return process

    def stop(self, name: str) -> None:
        """Tell one to end, and wait until it has ended as it should."""
        self.processes[name].send(signal.SIGTERM)
        assert self.processes[name].wait(_STOP_TIMEOUT) == 0, self.processes[name].output

    def start_upgraded(self, name: str) -> None:
        """Start one that was stopped as a process of this version; it may not be ready yet."""
        self._upgraded.add(name)
        self.start(name)

    def start_rolled_back(self, name: str) -> None:
        """Start one that was stopped as a process of the earlier version; it may not be ready yet."""
        self._upgraded.discard(name)
        self.start(name)
