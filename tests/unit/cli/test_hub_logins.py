"""`opstream hub --nats-nkeys`: each service of the process logs in at the broker with the key of its role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from opstream.cli.app import main

pytestmark = pytest.mark.unit

NAMES = ("api", "projector", "webhooks")


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The services that a hub would run."""
    found: list[Any] = []

    async def note(services: Any) -> None:
        found.extend(services)

    monkeypatch.setattr("opstream.cli.joint_process.serve_together", note)
    monkeypatch.setattr("opstream.cli.commands.hub.prepare_process", lambda *_: None)
    return found


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the keys of the three, and that of another role."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in (*NAMES, "runner"):
        (folder / f"{name}.nk").touch()
    return folder


@pytest.mark.parametrize("is_variable", [False, True])
def test_each_service_has_the_key_of_its_role(joint: list[Any], keys: Path, *, is_variable: bool) -> None:
    """From the folder; what the options of TLS name counts for all of them."""
    ca = keys / "runner.nk"
    words = [] if is_variable else ["--nats-nkeys", str(keys)]
    variables = {"OPSTREAM_NATS_NKEYS": str(keys)} if is_variable else {}
    done = CliRunner().invoke(main, ["hub", "--nats-tls-ca", str(ca), *words], env=variables)
    assert (done.exit_code, done.output) == (0, "")
    found = {service.name: service.serve.args[0].credentials for service in joint}
    assert {name: one.nkey for name, one in found.items()} == {name: str(keys / f"{name}.nk") for name in NAMES}
    assert {one.tls_ca for one in found.values()} == {str(ca)}


def test_a_key_that_is_missing(joint: list[Any], keys: Path) -> None:
    """It is named, before anything starts."""
    (keys / "webhooks.nk").unlink()
    (keys / "projector.nk").unlink()
    done = CliRunner().invoke(main, ["hub", "--nats-nkeys", str(keys)])
    assert done.exit_code == 2
    assert f"{keys} has no projector.nk, webhooks.nk: copy what is missing" in " ".join(done.output.split())
    assert joint == []


@pytest.mark.parametrize("is_variable", [False, True])
def test_another_login_besides(joint: list[Any], keys: Path, *, is_variable: bool) -> None:
    """Which of the two would count can't be seen, so neither does."""
    words = [] if is_variable else ["--nats-nkey", str(keys / "api.nk")]
    variables = {"OPSTREAM_NATS_TOKEN": "secret"} if is_variable else {}
    done = CliRunner().invoke(main, ["hub", "--nats-nkeys", str(keys), *words], env=variables)
    assert done.exit_code == 2
    assert "leave out --nats-creds, --nats-nkey" in " ".join(done.output.split())
    assert joint == []
