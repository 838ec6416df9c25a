"""The fixtures of `opstream.testing.plugin`, in a project of a user's own, with a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from opstream.testing import StartFailed, serving
from tests.support.system.processes import environment

pytestmark = pytest.mark.e2e

ACTIONS: Final = """
import msgspec
from opstream import ActionContext, action

class Order(msgspec.Struct):
    amount: int

@action("order:pay")
async def pay(order: Order, ctx: ActionContext) -> str:
    return f"charge-{ctx.resource_id}-{order.amount}"
"""
CONFTEST: Final = """
import pytest

pytest_plugins = ["opstream.testing.plugin"]

@pytest.fixture(scope="session")
def opstream_actions() -> list[str]:
    return ["shop_orders"]
"""
TESTS: Final = """
def test_pay(opstream_client):
    operation = opstream_client.submit("order/7:pay", {"amount": 12})
    assert opstream_client.result(operation) == "charge-7-12"

def test_the_same_system(opstream_system):
    assert opstream_system.url.startswith("http://127.0.0.1:")
    assert opstream_system.broker_url.startswith("nats://127.0.0.1:")
    assert "order:pay" in opstream_system.output
"""


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", *options, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=environment(),
    )


def test_a_project_with_the_plugin(tmp_path: Path) -> None:
    """Two tests share one opstream on free ports; it finds the actions where the tests do, and is gone at the end."""
    (tmp_path / "shop_orders.py").write_text(ACTIONS, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_shop.py").write_text(TESTS, encoding="utf-8")
    done = pytest_in(tmp_path, f"--basetemp={tmp_path / 'temp'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_project_that_names_no_actions(tmp_path: Path) -> None:
    """The error says which fixture is missing."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["opstream.testing.plugin"]\n', encoding="utf-8")
    (tmp_path / "test_shop.py").write_text("def test_pay(opstream_client): ...\n", encoding="utf-8")
    done = pytest_in(tmp_path)
    assert done.returncode != 0
    assert "define a fixture 'opstream_actions' with scope='session' in conftest.py" in done.stdout


def test_actions_that_can_not_be_imported() -> None:
    """The error has the lines in which opstream says why it did not start."""
    with pytest.raises(StartFailed, match=r"no_such_module"), serving("no_such_module"):
        pass
    with pytest.raises(StartFailed, match="needs the import paths"), serving():
        pass
