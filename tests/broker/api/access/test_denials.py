"""Strangers and callers are denied, and administrators act; the access log shows it, and stays small."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
from collections import Counter
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from nats.js.errors import APIError

from opstream.cli.app import main
from opstream_api.access.denials.access_recorder import MAX_ROWS, AccessRecorder
from opstream_api.access.denials.denial import Denial
from opstream_api.http.caller_identity import CallerResolver
from opstream_journal import Connection, announce_action
from opstream_journal.access_log import AccessLog
from opstream_journal.provisioning.access_topology import access_log_stream
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.logs.access_log import DenialReason
from opstream_schemas.logs.json_formatter import BatchRecord
from opstream_schemas.subjects import ACCESS_LOG_STREAM
from tests.support.access.desk import serving_with_keys
from tests.support.api.service import serving, spec
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PROXIES = (ipaddress.ip_network("127.0.0.0/8"),)
ADDRESSES = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")


async def audit(broker: Broker, *arguments: str) -> list[dict[str, Any]]:
    """What `opstream audit --access` prints."""
    done = await asyncio.to_thread(
        CliRunner().invoke, main, ["audit", "--access", "--nats", broker.url, "--json", *arguments]
    )
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def denied_lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, str]]:
    """Status, reason and text of the lines of requests that were denied."""
    entries = [one for found in caplog.records if isinstance(found, BatchRecord) for one in found.entries]
    shown = [(json.loads(f"{{{one.members_json()}}}"), one.text()) for one in entries]
    return [(line["status"], line["denied"], text) for line, text in shown if "denied" in line]


async def attack(port: int, number: int) -> None:
    """Send requests with wrong keys over one connection, 16 at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    address = ADDRESSES[number % len(ADDRESSES)]
    for batch in range(125):
        for one in range(16):
            key = f"ops_{number}x{batch}x{one}_secret-{batch}-{one}"
            writer.write(
                f"GET /status/id-{batch}-{one} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n"
                f"Authorization: Bearer {key}\r\n\r\n".encode()
            )
        for _ in range(16):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 401 " in head[:16]
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
    writer.close()


async def test_strangers_do_not_fill_the_log(broker: Broker, link: Connection) -> None:
    """10,000 requests with wrong keys from four addresses, two of one IPv6 network, are a few records. All are counted,
    and no text that a stranger sent is in them. The journal gets none."""
    before = (await link.nc.jetstream().stream_info("OPERATIONS")).state.last_seq
    async with serving_with_keys(broker, link, trusted_proxies=PROXIES) as desk:
        await asyncio.gather(*(attack(desk.api.port, number) for number in range(5)))
    records = await audit(broker)
    assert {record["reason"] for record in records} == {"unknown-key"}
    assert sum(record["count"] for record in records) == 10_000
    assert {record["address"] for record in records} == {"192.0.2.1", "192.0.2.2", "2001:db8::/64"}
    assert len(records) <= 3 * 3  # an address and a minute; the attack takes less than two
    assert {record["path"] for record in records} == {"/status/{id}"}
    assert "secret" not in json.dumps(records)
    assert (await link.nc.jetstream().stream_info("OPERATIONS")).state.last_seq == before


async def test_each_denial_has_its_reason(broker: Broker, link: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """A caller is named once its credentials prove who it is; a stranger by its address. The line of the request has
    the same word as the access log, and nothing that the client sent."""
    caplog.set_level(logging.INFO)
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, allowed_hosts=("127.0.0.1",)) as desk:
        ann = await desk.caller("acme", "ann", "submit", "read", "cancel")
        bob = await desk.caller("acme", "bob", "read")
        old = await desk.caller("acme", "old", "read")
        await desk.revoke(old)
        assert (await ann.submit(headers={"Operation-Id": "one"})).status_code == 202

        async def is_revoked() -> bool:
            return (await old.get("/openapi.json")).status_code == 401

        await eventually(is_revoked, within=2)
        assert (await bob.submit()).status_code == 403
        for _ in range(3):
            assert (await bob.get("/status/one")).status_code == 404
        assert (await bob.get("/status/never")).status_code == 404
        assert (
            await ann.client.post("/book/1:upload-start", headers={"Origin": "http://evil.test"})
        ).status_code == 403
        async with httpx.AsyncClient(base_url=desk.api.url, trust_env=False) as stranger:
            assert (await stranger.get("/status/one")).status_code == 401
            assert (await stranger.get("/status/one?token=abc")).status_code == 404
            assert (await stranger.get("/status/one", headers={"Host": "evil.test"})).status_code == 421
            wrong = {"Authorization": f"Bearer ops_{ann.record.id}_guess"}
            assert (await stranger.get("/status/one", headers=wrong)).status_code == 401
            for malformed in ("Basic guess", "Bearer", "Bearer guess"):
                answer = await stranger.get("/status/one", headers={"Authorization": malformed})
                assert answer.status_code == 401
    records = await audit(broker)
    seen: Counter[tuple[str, ...]] = Counter()
    for one in records:
        who = one.get("caller") or one["address"]
        seen[one["reason"], who, one.get("keyId", "")] += one["count"]
    here = "127.0.0.1"
    assert seen.pop(("revoked-key", "old", old.record.id)) >= 1
    seen.pop(("unknown-key", here, ""), None)  # keys that the service did not know yet
    assert seen == {
        ("missing-scope", "bob", bob.record.id): 1,
        ("foreign-operation", "bob", bob.record.id): 3,
        ("cross-site", here, ""): 1,
        ("no-credentials", here, ""): 1,
        ("malformed-credentials", here, ""): 3,
        ("invalid-status-token", here, ""): 1,
        ("unknown-host", here, ""): 1,
        ("wrong-secret", here, ann.record.id): 1,
    }
    assert await audit(broker, "--caller", "acme/bob") == [one for one in records if one.get("caller") == "bob"]
    assert "guess" not in json.dumps(records)
    lines = denied_lines(caplog)
    assert {(status, reason) for status, reason, _ in lines} >= {
        (401, "malformed-credentials"),
        (401, "no-credentials"),
        (401, "revoked-key"),
        (401, "wrong-secret"),
        (403, "cross-site"),
        (403, "missing-scope"),
        (404, "invalid-status-token"),
        (421, "unknown-host"),
    }
    assert all(f" denied={reason} " in text for _, reason, text in lines)
    assert "guess" not in str(lines)
    assert await audit(broker, "--until", "2000-01-01") == []


async def test_acts_of_administrators_are_recorded(broker: Broker, link: Connection) -> None:
    """A cancel of another caller's operation, by its admin; a key that is made or revoked, by the command. A caller
    that cancels its own operation is no administrator."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", "submit", "read", "cancel")
        root = await desk.caller("acme", "root", "admin")
        for own_id in ("one", "two"):
            assert (await ann.submit(headers={"Operation-Id": own_id})).status_code == 202
        assert (await ann.cancel("one")).status_code == 200
        assert (await root.cancel("two")).status_code == 200
        stored = desk.ids.stored_id("acme", "two")

        async def is_recorded() -> bool:  # at once, and not only at the end of the minute
            return (await link.nc.jetstream().stream_info(ACCESS_LOG_STREAM)).state.messages >= 1

        await eventually(is_recorded, within=5)
    for arguments in (["add", "--subject", "ci", "--scope", "read"], ["revoke", root.record.id]):
        done = await asyncio.to_thread(CliRunner().invoke, main, ["apikey", *arguments, "--nats", broker.url])
        assert done.exit_code == 0, done.stderr
        assert "access log" not in done.stderr
    canceled, added, revoked = [one for one in await audit(broker) if one["type"] == "act"]
    assert (canceled["act"], canceled["by"], canceled["tenant"]) == ("canceled", "root", "acme")
    assert (canceled["target"], canceled["keyId"]) == (stored, root.record.id)
    assert (added["act"], added["detail"]) == ("key-added", "of ci: read")
    assert (revoked["act"], revoked["target"], revoked["detail"]) == ("key-revoked", root.record.id, "of acme/root")
    assert "@" in revoked["by"]


async def test_what_provision_made_is_recorded(broker: Broker, link: Connection) -> None:
    """A run that makes or changes something is an act, with what it made; one that has nothing to do is none."""
    for arguments in (["--archive"], [], ["--max-age", "60d", "--update"]):
        done = await asyncio.to_thread(CliRunner().invoke, main, ["provision", "--nats", broker.url, *arguments])
        assert done.exit_code == 0, done.stderr
    made, changed = await audit(broker)
    assert (made["type"], made["act"], made.get("tenant", "")) == ("act", "provisioned", "")
    assert "stream ARCHIVE" in made["detail"]
    assert "@" in made["by"]
    assert (changed["act"], "max_age" in changed["detail"]) == ("provisioned", True)


async def test_a_broker_of_an_earlier_version_has_no_log(
    broker: Broker, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The service works as before, and says once what to run. What it counted is there once the stream is made."""
    await link.nc.jetstream().delete_stream(ACCESS_LOG_STREAM)
    recorder = AccessRecorder(AccessLog(link), CallerResolver(), principal_of=lambda _: None)
    with caplog.at_level(logging.WARNING):
        recorder._count(Denial(DenialReason.UNKNOWN_KEY), "192.0.2.1", "GET", "/status/{id}")
        for _ in range(3):
            await recorder.flush(math.inf)
    (line,) = [one.getMessage() for one in caplog.records]
    assert "opstream provision --update" in line
    async with serving(broker.url, allowed_hosts=("127.0.0.1",)) as api:
        assert (await api.client.get("/docs", headers={"Host": "evil.test"})).status_code == 421
        ready = await api.client.get("/readyz")
        assert (ready.status_code, "ACCESS_LOG" in ready.text) == (200, False)
    done = await asyncio.to_thread(CliRunner().invoke, main, ["audit", "--access", "--nats", broker.url])
    assert done.exit_code == 1
    assert "opstream provision --update" in done.stderr
    await provision(link, Sizing())
    await recorder.flush(math.inf)
    (record,) = await audit(broker)
    assert (record["reason"], record["count"]) == ("unknown-key", 1)


async def test_a_minute_is_written_soon_after_its_end(broker: Broker, link: Connection) -> None:
    """The task writes it, and no earlier; more strangers than there are rows are one record, with the right sum."""
    now = 1_800_000_030.0
    recorder = AccessRecorder(
        AccessLog(link), CallerResolver(), principal_of=lambda _: None, now=lambda: now, period=0.05
    )
    for number in range(MAX_ROWS + 200):
        recorder._count(Denial(DenialReason.UNKNOWN_KEY), f"10.0.{number // 250}.{number % 250}", "GET", "/{path}")
    recorder.start()

    async def stored() -> int:
        return (await link.nc.jetstream().stream_info(ACCESS_LOG_STREAM)).state.messages

    async def has_others() -> bool:
        return await stored() == 1

    await eventually(has_others, within=5)
    now += 60

    async def has_all() -> bool:
        return await stored() == MAX_ROWS + 1

    await eventually(has_all, within=20)
    await recorder.stop()
    records = await audit(broker)
    assert sum(record["count"] for record in records) == MAX_ROWS + 200
    (others,) = [record for record in records if record.get("isOthers")]
    assert (others["count"], "address" in others) == (200, False)


async def test_a_caller_above_its_limit_is_recorded(
    broker: Broker, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A 429 is a denial of the caller, whose key the record names. Record and line say which limit it was."""
    caplog.set_level(logging.INFO)
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, caller_requests="5/h", caller_open_operations=1) as desk:
        bob = await desk.caller("acme", "bob", "submit")
        assert [(await bob.submit()).status_code for _ in range(2)] == [202, 429]
        ann = await desk.caller("acme", "ann", "read", is_awaited=False)

        async def is_above() -> bool:
            return (await ann.get("/openapi.json")).status_code == 429

        await eventually(is_above, within=5)
    (record,) = [one for one in await audit(broker, "--caller", "acme/ann") if one["reason"] == "too-many-requests"]
    assert (record["count"], record["keyId"]) == (1, ann.record.id)
    (record,) = await audit(broker, "--caller", "acme/bob")
    assert (record["reason"], record["count"], record["keyId"]) == ("too-many-open-operations", 1, bob.record.id)
    assert {line[:2] for line in denied_lines(caplog)} >= {
        (429, "too-many-requests"),
        (429, "too-many-open-operations"),
    }


async def test_the_log_is_bounded_whatever_is_written(broker: Broker, link: Connection) -> None:
    """The stream keeps so many records of each kind and drops the oldest, so strangers push out no act; and it can be
    neither purged nor deleted from."""
    js = link.nc.jetstream()
    config = (await js.stream_info(ACCESS_LOG_STREAM)).config
    assert (config.max_msgs, config.max_msgs_per_subject, config.max_msg_size) == (100_000, 10_000, 2_048)
    assert (str(config.discard), config.max_age, config.deny_delete, config.deny_purge) == (
        "old",
        7_776_000,
        True,
        True,
    )
    await js.delete_stream(ACCESS_LOG_STREAM)
    await js.add_stream(access_log_stream(1).evolve(max_msgs_per_subject=20))  # the same with less to write
    act = b'{"type":"act","act":"restored","at":"2026-11-30T00:00:00Z"}'
    await js.publish("access_log.act.restored", act)
    for _ in range(100):
        await js.publish("access_log.denied.stranger", b"{}")
    state = (await js.stream_info(ACCESS_LOG_STREAM)).state
    assert (state.messages, state.last_seq) == (21, 101)
    assert (await js.get_last_msg(ACCESS_LOG_STREAM, "access_log.act.restored")).data == act
    for refused in (js.purge_stream(ACCESS_LOG_STREAM), js.delete_msg(ACCESS_LOG_STREAM, 1)):
        with pytest.raises(APIError):
            await refused
