"""The examples of docs/webhooks.md work: the receiver and the file of endpoints."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opstream_schemas.names import Kind
from opstream_webhooks.config import ConfigSource
from opstream_webhooks.signature import Signer, signed_headers
from tests.support.broker.server import free_port
from tests.support.system.processes import Process
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import OTHER_SECRET, SECRET

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
BODY = b'{"subject":"op-1","type":"opstream.action.succeeded.v1"}'


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of endpoints on the page is valid as it is."""
    monkeypatch.setenv("BILLING_SECRET", SECRET)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "example.org").write_text(OTHER_SECRET)
    path = tmp_path / "hooks.toml"
    path.write_text(block("toml"))
    hooks = ConfigSource(path=path).load()
    assert [hook.name for hook in hooks.matching(Kind("book", "up"), "failed")] == ["billing"]
    assert hooks.matching(Kind("book", "up"), "canceled") == []


def test_the_receiver(tmp_path: Path) -> None:
    """The receiver on the page accepts a delivery signed with either of two secrets once, and refuses any other."""
    (tmp_path / "receiver.py").write_text(block("python"))
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": SECRET}
    with subprocess.Popen(
        [sys.executable, "receiver.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            signers = [Signer(OTHER_SECRET), Signer(SECRET)]
            headers = signed_headers("e_callback", datetime.now(UTC), BODY, signers)
            assert asyncio.run(eventually(lambda: post(port, headers))) == 204
            assert post(port, headers) == 204
            assert post(port, {**headers, "webhook-signature": "v1,AAAA"}) == 401
            assert post(port, signed_headers("x", datetime.now(UTC), BODY, signers[:1])) == 401
        finally:
            process.terminate()
            output = process.stdout.read() if process.stdout else b""
    assert output == b"op-1 opstream.action.succeeded.v1\n"


def test_trying_it(tmp_path: Path) -> None:
    """The page's example for one machine works: the program gets the outcome, and the last command shows it."""
    (tmp_path / "receiver.py").write_text(block("python"))
    lines = [line for line in block("sh").splitlines() if line]
    secret, receiver, system, submit, shown = (line.replace(".venv/bin/", f"{BIN}/") for line in lines)
    ports = {"9000": str(free_port()), "8080": str(free_port()), "4222": str(free_port())}
    environment = os.environ | {
        "NO_PROXY": "127.0.0.1",
        "OPSTREAM_PORT": ports["8080"],
        "OPSTREAM_NATS_PORT": ports["4222"],
        "OPSTREAM_NATS_URL": f"nats://127.0.0.1:{ports['4222']}",
    }

    def script(*parts: str) -> list[str]:
        return ["sh", "-c", re.sub("9000|8080", lambda found: ports[found[0]], "\n".join(parts))]

    (tmp_path / "examples").symlink_to(PAGE.parents[1] / "examples")
    with Process(cwd=tmp_path, command=script(secret, receiver, f"exec env {system}"), extra=environment) as up:
        up.wait_for("^opstream is ready: ")
        answer = subprocess.run(script(submit), cwd=tmp_path, env=environment, capture_output=True, check=True)
        operation_id = json.loads(answer.stdout)["id"]
        up.wait_for(f"^{operation_id} opstream.action.succeeded.v1$")

        def delivered() -> bool:
            found = subprocess.run(script(shown), env=environment, capture_output=True, check=True, text=True).stdout
            return [json.loads(line)["outcome"] for line in found.splitlines()] == ["delivered"]

        assert asyncio.run(eventually(delivered, within=10))


def post(port: int, headers: dict[str, str]) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", BODY, headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answered:
            return int(answered.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except urllib.error.URLError:
        return 0
