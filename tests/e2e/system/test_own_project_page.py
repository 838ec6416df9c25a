"""docs/your-own-project.md: its module, its tests and its commands work as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.system.processes import Process, environment, run

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).resolve().parents[3]
OFFLINE: Final = "--no-index --no-build-isolation"
PAGE: Final = (ROOT / "docs" / "your-own-project.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(
    re.findall(r"^```(?:python|toml)\n# (\w+\.(?:py|toml))\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
)
COMMANDS: Final = re.findall(r"^\.venv/bin/(.+)$", PAGE, flags=re.MULTILINE)


INSTALLS: Final = [one for one in COMMANDS if one.startswith("pip install")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the page: the clone, beside it the wheel that its first block makes, and the project."""
    folder = tmp_path_factory.mktemp("install")
    (folder / "opstream").symlink_to(ROOT)
    (folder / "shop").mkdir()
    (command,) = re.findall(r"^python3 -m (pip wheel .+)$", PAGE, flags=re.MULTILINE)
    made = pip(f"{command} {OFFLINE}", folder)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def pip(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the page with the pip of these tests. A shell expands `*`."""
    text = f"{shlex.quote(sys.executable)} -m {command} --disable-pip-version-check"
    return subprocess.run(
        ["/bin/sh", "-c", text],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        env=environment(),
    )


@pytest.mark.parametrize("command", INSTALLS)
def test_an_install(wheel: Path, command: str) -> None:
    """Pip takes each command of the page. All that opstream needs is here already, so none needs a network."""
    if "git+" in command and not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    here = command.replace("git+URL-OF-THIS-REPOSITORY", f"git+file://localhost{ROOT}")
    done = pip(f"{here} {OFFLINE} --dry-run", wheel / "shop")
    assert done.returncode == 0, done.stdout + done.stderr
    brings_opstream = ".whl" in command or "git+" in command
    assert ("Would install opstream-" in done.stdout) is brings_opstream


def test_the_order_of_installs() -> None:
    """Whatever installs comes after the environment is made, and goes into it: from a wheel, from git, by the lock."""
    before, made, after = PAGE.partition("python3 -m venv .venv")
    assert made
    assert "pip install" not in before
    assert "python3 -m pip install" not in after
    for part in ("opstream-*.whl pytest", "git+", "--require-hashes -r ../opstream/requirements.lock", "--no-deps"):
        assert any(part in one for one in INSTALLS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project of the page."""
    for name, source in BLOCKS.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    return tmp_path


def test_the_tests(folder: Path) -> None:
    """The tests of the page pass, run as the page says."""
    (command,) = [one for one in COMMANDS if one.startswith("pytest")]
    assert BLOCKS.keys() == {"orders.py", "test_orders.py", "pyproject.toml"}
    tested = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=environment({"PYTHONPATH": str(folder)}),
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "4 passed" in tested.stdout
    assert "warning" not in (tested.stdout + tested.stderr).lower()


def test_the_commands(folder: Path) -> None:
    """The system of the page starts, and its operation succeeds in the second attempt."""
    (up,) = [shlex.split(one) for one in COMMANDS if one.startswith("opstream up")]
    (submit,) = [shlex.split(one) for one in COMMANDS if one.startswith("opstream run ")]
    ports = ("--port", "0", "--nats-port", "0", "--data-dir", "data")
    for word in ("OPSTREAM_URL", "OPSTREAM_NATS_URL"):
        assert word in PAGE
    with Process(*up[1:], *ports, cwd=folder) as system:
        api = system.wait_for(r"^opstream is ready: API (http://\S+),")[1]
        done = run(*submit[1:], extra={"OPSTREAM_URL": api, "NO_PROXY": os.environ.get("NO_PROXY", "127.0.0.1")})
        assert done.returncode == 0, done.stderr
        parcel = json.loads(done.stdout)["parcel"]
        assert parcel.startswith("parcel-")
        # The page says which commands need which address of a system with ports of its own.
        nats = system.wait_for(r"^opstream is ready: API \S+, broker (\S+)$")[1]
        audit = run("audit", parcel.removeprefix("parcel-"), extra={"OPSTREAM_NATS_URL": nats})
        assert audit.returncode == 0, audit.stderr
        assert "attempt 2" in audit.stdout
        # The help of `opstream up` shows a call of the same action.
        (line,) = re.findall(r"opstream (run order/.+)", run("up", "--help").stdout)
        shown = run(*shlex.split(line, comments=True), extra={"OPSTREAM_URL": api, "NO_PROXY": "127.0.0.1"})
        assert shown.returncode == 0, shown.stderr
        system.wait_for(r"INFO .*attempt 1 failed: 503; the next follows at")
        system.wait_for(r"INFO +orders: operation \S+: shipped 2 items")
