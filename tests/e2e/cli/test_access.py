"""Keys and tokens with real processes: a key is made by one command, known to two APIs, ended by another command."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from opstream_journal import announce_action
from tests.support.access.identity_provider import AUDIENCE, IdentityProvider, SigningKey
from tests.support.api.service import INPUT, spec
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that has been provisioned."""
    with Broker() as broker:
        assert run("provision", "--nats", broker.url).returncode == 0
        yield broker


def port_of(api: Process) -> int:
    """The port of an API that serves."""
    return int(api.wait_for(r"serving on \S+ port (\d+)")[1])


def made(broker: Broker, *options: str) -> str:
    """A new key."""
    done = run("apikey", "add", "--nats", broker.url, "--subject", "ci", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_a_key_is_known_and_revoked_within_a_second_in_every_api(broker: Broker, tmp_path: Path) -> None:
    """Neither API is restarted; a request that waits ends, too. The commands send the key, and show it nowhere."""
    options = ("api", "--nats", broker.url, "--port", "0", "--auth", "keys")
    with Process(*options, cwd=tmp_path) as one, Process(*options, cwd=tmp_path) as other:
        urls = [f"http://127.0.0.1:{port_of(api)}" for api in (one, other)]
        key = made(broker, "--scope", "read,submit")
        async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {key}"}) as http:

            async def answers(status: int) -> bool:
                found = [(await http.get(f"{url}/openapi.json")).status_code for url in urls]
                return found == [status, status]

            await eventually(lambda: answers(200), within=2)
            shown = run("status", "none", "--url", urls[0], extra={"OPSTREAM_TOKEN": key})
            assert (shown.returncode, "no operation with the id" in shown.stderr) == (1, True)
            script = tmp_path / "token.py"
            script.write_text(f"print('{key}')", encoding="utf-8")
            by_command = run("status", "none", "--url", urls[1], "--token-command", f"python3 {script}")
            assert by_command.stderr == shown.stderr.replace(urls[0], urls[1])
            assert run("status", "none", "--url", urls[0]).returncode == 1
            done = run("apikey", "revoke", "--nats", broker.url, key.split("_")[1])
            assert done.returncode == 0, done.stderr
            await eventually(lambda: answers(401), within=2)
        secret = key.split("_", 2)[2]
        assert secret not in one.output + other.output + shown.stdout + shown.stderr + done.stderr


async def test_a_key_of_a_file_ends_within_a_second(broker: Broker, tmp_path: Path) -> None:
    """It is made, taken and revoked without a restart; another key of the file stays."""
    file = str(tmp_path / "keys.json")
    leaked, kept = [_made_in(file, subject) for subject in ("ci", "ops")]
    async with linked(broker.url) as link:
        await announce_action(link, spec())
    options = ("--port", "0", "--auth", "keys", "--auth-keys-file", file)
    with Process("api", "--nats", broker.url, *options, cwd=tmp_path) as api:
        url = f"http://127.0.0.1:{port_of(api)}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
            submitted = await http.post("/book/42:upload-start", json=INPUT, headers=bearer(leaked))
            assert submitted.status_code == 202, submitted.text
            done = run("apikey", "revoke", "--file", file, leaked.split("_")[1])
            assert done.returncode == 0, done.stderr
            await eventually(lambda: _answers(http, leaked, 401), within=2)
            assert await _answers(http, kept, 200)
            late = _made_in(file, "late")
            await eventually(lambda: _answers(http, late, 200), within=2)


async def test_tokens_of_an_identity_provider(broker: Broker, tmp_path: Path) -> None:
    """An API trusts what the provider signs, for its audience only, as the tenant of the token; it takes the next key
    of the provider without a restart, and no longer the one that the provider has withdrawn."""
    async with IdentityProvider() as provider, linked(broker.url) as link:
        await announce_action(link, spec())
        options = ("--jwt-issuer", provider.issuer, "--jwt-audience", AUDIENCE, "--jwt-tenant-claim", "org")
        started = ("api", "--nats", broker.url, "--port", "0", "--auth", "jwt", *options, "--jwt-refetch", "1s")
        with Process(*started, cwd=tmp_path) as api:
            url = f"http://127.0.0.1:{await asyncio.to_thread(port_of, api)}"
            claims = {"org": "acme", "sub": "ann", "scope": "submit:book:* read"}
            token = provider.token(**claims)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=15) as http:
                submitted = await http.post("/book/42:upload-start", json=INPUT, headers=bearer(token))
                assert submitted.status_code == 202, submitted.text
                operation_id = submitted.headers["Operation-Id"]
                path = f"/status/{operation_id}"
                given = {"OPSTREAM_TOKEN": token}
                shown = await asyncio.to_thread(run, "status", operation_id, "--url", url, extra=given)
                assert (shown.returncode, operation_id in shown.stdout) == (0, True), shown.stderr
                for refused in (
                    {},
                    bearer(SigningKey("k1").sign(provider.claims(**claims))),
                    bearer(provider.token(**{**claims, "aud": "https://other.example"})),
                    bearer(provider.token(sub="ann", scope="read")),
                ):
                    assert (await http.get(path, headers=refused)).status_code == 401
                stranger = await http.get(path, headers=bearer(provider.token(**{**claims, "org": "other"})))
                assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "OperationNotFound")
                provider.keys = [SigningKey("k2")]
                renewed = provider.token(**claims)
                await eventually(lambda: _reads(http, path, renewed, 200), within=10)
                assert await _reads(http, path, token, 401)
                assert token.rpartition(".")[2] not in api.output


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


def _made_in(file: str, subject: str) -> str:
    done = run("apikey", "add", "--file", file, "--subject", subject, "--scope", "submit,read")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def _answers(http: httpx.AsyncClient, key: str, status: int) -> bool:
    return await _reads(http, "/openapi.json", key, status)


async def _reads(http: httpx.AsyncClient, path: str, token: str, status: int) -> bool:
    return (await http.get(path, headers=bearer(token))).status_code == status


def test_other_machines_are_not_served_by_mistake(broker: Broker) -> None:
    """The process ends with what to do; by name it serves."""
    for command in ("api", "hub"):
        refused = run(command, "--nats", broker.url, "--host", "0.0.0.0", "--port", "0")
        assert refused.returncode == 2
        assert re.search(r"--auth keys .* or --insecure", refused.stderr)
    with Process("api", "--nats", broker.url, "--host", "0.0.0.0", "--port", "0", "--insecure") as api:
        assert httpx.get(f"http://127.0.0.1:{port_of(api)}/healthz", trust_env=False).status_code == 200


def test_a_broken_key_file_ends_the_start(broker: Broker, tmp_path: Path) -> None:
    """With the file's name, and not with a door that is open."""
    path = tmp_path / "keys.json"
    done = run("api", "--nats", broker.url, "--port", "0", "--auth", "keys", "--auth-keys-file", str(path))
    assert done.returncode == 1
    assert str(path) in done.stderr
