"""Webhooks without a broker: URLs and hosts, the file of endpoints, secrets, the schedule, turns of one receiver."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream.cli.commands.deliveries import table_row
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.urls import HostRule, is_host_allowed, parse_url
from opstream_schemas.webhook_delivery import DeliveryAttempt, WebhookDelivery, decode_delivery_attempt
from opstream_webhooks.config import ConfigSource, EndpointUnknown, InvalidConfig
from opstream_webhooks.receiver_limits import Receiver, ReceiverLimits
from opstream_webhooks.retry_schedule import (
    DELAYS,
    DELIVERY_LIFETIME,
    next_attempt,
    parse_retry_after,
    redelivery_delay,
)
from opstream_webhooks.signature import Signer, webhook_id
from tests.support.webhooks.receiver import OTHER_SECRET, SECRET

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
A, B = Receiver("a"), Receiver("b")
HOOK = """
[[hooks]]
name = "billing"
url = "https://billing.example.com/hooks?tenant=7"
secrets = ["{secret}"]
"""


def delivery(endpoint: str = "billing", callback: str = "") -> WebhookDelivery:
    return WebhookDelivery(
        operation_id="op",
        action="book:up",
        event="succeeded",
        sequence=1,
        endpoint=endpoint,
        callback=callback,
        begun=NOW,
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://a.example/", "must begin with https://"),
        ("//a.example/", "must be absolute"),
        ("/hook", "must be absolute"),
        ("https:///x", "must be absolute"),
        ("https://user@a.example/", "no user or password"),
        ("https://user:pw@a.example/", "no user or password"),
        ("https://a.example/#x", "no fragment"),
        ("https://a.example\\@b.example/", "visible ASCII"),
        ("https://a.example/a b", "visible ASCII"),
        ("https://\u00e4.example/", "visible ASCII"),
        ("https://a..example/", "a name or an address"),
        ("https://-a.example/", "a name or an address"),
        ("https://a.example:0/", "a port is 1 to 65535"),
        ("https://a.example:70000/", "a port is 1 to 65535"),
        ("https://a.example/" + "x" * 2048, "2048 are allowed"),
        ("ftp://a.example/", "must be absolute"),
        ("", "must be absolute"),
    ],
)
def test_what_is_no_url(text: str, complaint: str) -> None:
    """Anything but an absolute https URL without user and fragment is refused, and not repeated in the message."""
    with pytest.raises(InvalidName, match=complaint) as refused:
        parse_url(text)
    assert "pw" not in str(refused.value)


def test_urls() -> None:
    """Host in lower case, the scheme's port where none is given, the query left out of what is shown."""
    url = parse_url("HTTPS://A.Example?token=1")
    assert (url.host, url.port, url.path, url.query, url.redacted) == (
        "a.example",
        443,
        "/",
        "?token=1",
        "https://a.example/",
    )
    assert parse_url("https://[2606:4700::1]:8443/x@y").redacted == "https://[2606:4700::1]:8443/x@y"


@pytest.mark.parametrize(
    ("rule", "url", "expected"),
    [
        ("hooks.example.org", "https://hooks.example.org/x", True),
        ("Hooks.Example.org", "https://HOOKS.example.ORG/", True),
        ("hooks.example.org", "https://hooks.example.org:8443/", False),
        ("hooks.example.org:8443", "https://hooks.example.org:8443/", True),
        ("hooks.example.org:8443", "https://hooks.example.org/", False),
        ("hooks.example.org", "https://a.hooks.example.org/", False),
        ("*.example.org", "https://a.b.example.org/", True),
        ("*.example.org", "https://example.org/", False),
        ("*.example.org", "https://evilexample.org/", False),
        ("example.org", "https://example.org.evil.example/", False),
    ],
)
def test_hosts(rule: str, url: str, expected: bool) -> None:
    """A host is meant exactly, a wildcard all below it, and a port only if it is named."""
    assert is_host_allowed(parse_url(url), [HostRule.parse(rule)]) is expected


@pytest.mark.parametrize("text", ["", "*", "*.org", "https://a.example", "a.example/x", "a b", "*.10.0.0.1", "a:0"])
def test_what_is_no_host(text: str) -> None:
    """A list of hosts that would allow more than was meant is refused."""
    with pytest.raises(InvalidName):
        HostRule.parse(text)


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints by action and event; secrets as they are, from the environment, from a file beside it."""
    (tmp_path / "key").write_text(f"{OTHER_SECRET}\n")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    path = tmp_path / "hooks.toml"
    path.write_text(
        HOOK.format(secret="env:HOOK_SECRET")
        + 'actions = ["book:*", "*:send"]\nevents = ["failed"]\n'
        + '[[callbacks]]\nhost = "*.example.net"\nsecrets = ["file:key"]\n'
    )
    hooks = ConfigSource(path=path, callback_hosts=("a.example",), callback_secrets=(SECRET, OTHER_SECRET)).load()
    wanted = {
        (kind, event): [hook.name for hook in hooks.matching(Kind.parse(kind), event)]
        for kind in ("book:up", "mail:send", "mail:drop")
        for event in ("failed", "succeeded")
    }
    assert [key for key, names in wanted.items() if names == ["billing"]] == [
        ("book:up", "failed"),
        ("mail:send", "failed"),
    ]
    assert len(hooks.endpoint(delivery()).signers) == 1
    assert len(hooks.endpoint(delivery("callback", "https://a.example/x")).signers) == 2
    assert hooks.endpoint(delivery("callback", "https://b.example.net/x")).url.host == "b.example.net"
    with pytest.raises(EndpointUnknown, match=r"callbacks to evil\.example are not allowed"):
        hooks.endpoint(delivery("callback", "https://evil.example/x"))
    with pytest.raises(EndpointUnknown, match="no endpoint 'gone' is configured"):
        hooks.endpoint(delivery("gone"))
    assert SECRET not in repr(hooks)
    assert OTHER_SECRET not in repr(hooks)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hooks = 1", "Expected `array`"),
        ("[[hooks]", "is not TOML"),
        pytest.param("hooks = " + "[" * 100_000, "is not TOML", id="nested"),
        (HOOK.format(secret=SECRET) + 'event = ["failed"]', "unknown field `event`"),
        (HOOK.format(secret=SECRET) + 'events = ["started"]', "'started' is no outcome"),
        (HOOK.format(secret=SECRET) + "events = []", "never be called"),
        (HOOK.format(secret=SECRET) + 'actions = ["book"]', "'book' is no action"),
        (HOOK.format(secret=SECRET) * 2, "two hooks have the name 'billing'"),
        (HOOK.format(secret=SECRET).replace("https", "http"), "hook billing: the URL must begin with https"),
        (HOOK.format(secret=SECRET).replace("billing", "callback"), "choose another name"),
        (HOOK.format(secret=SECRET).replace('"billing"', '"Billing"'), "hook name 'Billing' must be"),
        (HOOK.format(secret=SECRET).replace(f'"{SECRET}"', ""), "a secret is needed"),
        (HOOK.format(secret="hunter2"), "a secret is written whsec_"),
        (HOOK.format(secret="whsec_c2hvcnQ="), "24 to 64 bytes"),
        (HOOK.format(secret="whsec_!!!!"), "24 to 64 bytes"),
        (HOOK.format(secret="env:NOT_THERE"), "NOT_THERE, which is not set"),
        (HOOK.format(secret="file:nowhere"), "can't be read from"),
        ('[[callbacks]]\nhost = "*"\nsecrets = []', "is not a host"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, complaint: str) -> None:
    """One line says what is wrong and where, and shows no secret."""
    path = tmp_path / "hooks.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=complaint) as refused:
        ConfigSource(path=path).load()
    assert "\n" not in str(refused.value)
    for secret in ("hunter2", SECRET, "c2hvcnQ"):
        assert secret not in str(refused.value)


def test_ids_are_headers() -> None:
    """The id of a delivery names event and endpoint; an event id that no header could carry is not used."""
    assert webhook_id("0197-a", delivery()) == "0197-a_billing"
    assert webhook_id("a\r\nb", delivery()) == "op_billing"
    assert repr(Signer(SECRET)) == "Signer(…)"


def test_a_record_can_t_steer_a_terminal() -> None:
    """Nothing of a record, which others than opstream may have written, reaches a terminal as a control sequence."""
    evil = "\x1b[2J\n"
    shared = {"action": "a:b", "event": "failed", "attempt": 1, "at": NOW, "duration": 1.0, "outcome": "gave-up"}
    attempt = msgspec.convert({**shared, "operationId": evil, "endpoint": evil, "error": evil}, DeliveryAttempt)
    for room in (None, 80, 250):
        assert "".join(table_row(attempt, is_on=False, room=room).splitlines()).isprintable()


def test_a_record_of_the_end_of_time() -> None:
    """A time of a foreign record that UTC has no name for is shown as it is, and ends no table."""
    shared = {"operationId": "op", "action": "a:b", "event": "failed", "endpoint": "x", "attempt": 1, "duration": 1.0}
    shared |= {"outcome": "retrying", "at": "0001-01-01T00:00:00+14:00", "nextAt": "9999-12-31T23:59:59-14:00"}
    shown = table_row(decode_delivery_attempt(msgspec.json.encode(shared)), is_on=False, room=None)
    assert "1-01-01 00:00:00" in shown
    assert "next at 9999-12-31 23:59:59" in shown


def test_the_schedule() -> None:
    """Ten attempts, more and more apart, over most of a day; then no more."""
    begun, now, gaps = NOW, NOW, []
    for attempt in range(1, 20):
        at = next_attempt(attempt, now=now, begun=begun, jitter=lambda: 0.5)
        if at is None:
            break
        gaps.append((at - now).total_seconds())
        now = at
    assert gaps == list(DELAYS)
    assert timedelta(hours=20) < now - begun < timedelta(hours=24)


@given(st.integers(1, 12), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True), st.floats(0, 30))
def test_a_receiver_may_ask_for_time(attempt: int, asked: float, jitter: float, hours: float) -> None:
    """`Retry-After` makes the next attempt later, never earlier, by six hours at most, and never beyond the end."""
    now = NOW + timedelta(hours=hours)
    plain = next_attempt(attempt, now=now, begun=NOW, jitter=lambda: jitter)
    later = next_attempt(attempt, now=now, begun=NOW, jitter=lambda: jitter, asked=asked)
    if later is not None:
        assert plain is not None
        assert plain <= later <= max(plain, now + timedelta(hours=6))
        assert later - NOW <= DELIVERY_LIFETIME
    assert next_attempt(attempt, now=now, begun=NOW, jitter=lambda: jitter, status=410) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Tue, 24 Nov 2026 12:01:00 GMT", 60),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0),
        ("Tue, 24 Nov 2026 11:00:00 -0000", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("9" * 5000, 9999999999),
        ("Tue, 24 Nov 99999999999999999999 11:00:00 GMT", None),
        ("Tue, 24 Nov 2026 11:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Seconds or a date; anything else asks for nothing."""
    assert parse_retry_after(text, NOW) == seconds


def test_pauses() -> None:
    """They double, up to some minutes."""
    assert [redelivery_delay(deliveries) for deliveries in (1, 2, 3, 9, 10, 10_000)] == [2, 4, 8, 512, 512, 512]


async def test_turns() -> None:
    """As many at once as there are slots; some wait, the others are sent away, each to come later than the last."""
    gate = ReceiverLimits(lambda: 100.0, random.random, slots=2, waiting=1)
    assert [await gate.acquire(A), await gate.acquire(A)] == [True, True]
    waiting = asyncio.create_task(gate.acquire(A))
    await asyncio.sleep(0)
    assert not await gate.acquire(A)
    waits = [gate.reserve_retry(A) for _ in range(10)]
    assert all(0 < wait <= 61 for wait in waits)
    assert waits[-1] > waits[0]
    assert await gate.acquire(B)
    gate.release(A, duration=0.1, is_failed=False)
    assert await waiting


async def test_a_failing_receiver_has_one_turn_at_a_time() -> None:
    """After a failure nobody waits here for it, and it gets one attempt at once until one succeeds."""
    gate = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    assert [await gate.acquire(A), await gate.acquire(A)] == [True, True]
    waiting = asyncio.create_task(gate.acquire(A))
    await asyncio.sleep(0)
    gate.release(A, duration=15, is_failed=True)
    assert not await waiting
    gate.release(A, duration=15, is_failed=True)
    assert [await gate.acquire(A), await gate.acquire(A)] == [True, False]
    gate.release(A, duration=0.1, is_failed=False)
    assert [await gate.acquire(A), await gate.acquire(A)] == [True, True]


async def test_a_dead_receiver_costs_little() -> None:
    """However many deliveries wait for a receiver that answers nothing, few of them are looked at in a second; those
    that come once it is well again do not wait behind them."""
    gate = ReceiverLimits(lambda: 100.0, lambda: 0.0, slots=2)
    assert await gate.acquire(A)
    gate.release(A, duration=15, is_failed=True)
    waits = [gate.reserve_retry(A) for _ in range(10_000)]
    assert max(Counter(map(int, waits)).values()) <= 51
    assert waits == sorted(waits)
    assert waits[-1] < 300
    assert await gate.acquire(A)
    gate.release(A, duration=0.1, is_failed=False)
    assert gate.reserve_retry(A) < 10


async def test_who_waited_behind_a_quick_failure_is_counted() -> None:
    """Where failures are quick, some wait here for their turn all the same, one after the other; each of these turns
    counts among those of receivers that fail."""
    gate = ReceiverLimits(lambda: 100.0, random.random, slots=1, failing=1)
    assert [await gate.acquire(A), await gate.acquire(B)] == [True, True]
    waiting = asyncio.create_task(gate.acquire(A))
    await asyncio.sleep(0)
    for receiver in (A, B):
        gate.release(receiver, duration=0.001, is_failed=True)
    assert await waiting
    assert not await gate.acquire(B)
    gate.release(A, duration=0.001, is_failed=True)
    assert await gate.acquire(B)


async def test_failing_receivers_leave_room() -> None:
    """All receivers that fail have a part of the process between them, so that the others always find a slot."""
    gate = ReceiverLimits(lambda: 100.0, random.random, failing=2)
    a, b, c, d = map(Receiver, "abcd")
    for receiver in (a, b, c):
        assert await gate.acquire(receiver)
        gate.release(receiver, duration=15, is_failed=True)
    assert [await gate.acquire(receiver) for receiver in (a, b, c, d)] == [True, True, False, True]
    gate.release(a, duration=15, is_failed=True)
    assert await gate.acquire(c)


async def test_new_callback_hosts_leave_room() -> None:
    """Whoever may submit can name a new host for each callback. Such hosts hold no more than those that fail until
    they have answered, be it with attempts or with what waits for its turn; configured endpoints find a slot."""
    gate = ReceiverLimits(lambda: 100.0, random.random, failing=4)
    hosts = [Receiver(f"{number}.example", is_callback=True) for number in range(5)]
    assert [await gate.acquire(host) for host in hosts[:3]] == [True, True, True]
    waiting = asyncio.create_task(gate.acquire(hosts[0]))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert [await gate.acquire(host) for host in hosts] == [False] * 5
    assert await gate.acquire(A)
    gate.release(hosts[0], duration=0.1, is_failed=False)
    assert await waiting
    assert [await gate.acquire(hosts[number]) for number in (0, 0, 3, 4)] == [True, True, True, True]
    assert not await gate.acquire(hosts[1])


async def test_who_was_not_called_is_what_it_was() -> None:
    """An attempt for which there was nothing to send says nothing of the receiver, and its slot is free again."""
    gate = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    host = Receiver("a.example", is_callback=True)
    for receiver, expected in ((A, [True, True]), (host, [True, False])):
        assert await gate.acquire(receiver)
        gate.release(receiver, duration=15, is_failed=None)
        asked = [asyncio.create_task(gate.acquire(receiver)) for _ in range(2)]
        await asyncio.sleep(0)
        assert [one.done() for one in asked] == expected
        for _ in asked:
            gate.release(receiver, duration=0.1, is_failed=False)
            await asyncio.sleep(0)


async def test_a_host_is_no_endpoint() -> None:
    """A callback's host that is called as a configured endpoint is another receiver, and takes none of its turns."""
    gate = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    host = Receiver(A.name, is_callback=True)
    assert await gate.acquire(host)
    gate.release(host, duration=15, is_failed=True)
    assert [await gate.acquire(A), await gate.acquire(A)] == [True, True]


async def test_receivers_are_forgotten() -> None:
    """Of endless hosts not more than some are remembered; those that have answered last, and endpoints for good."""
    gate = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    good = Receiver("good.example", is_callback=True)
    for receiver, is_failed in ((A, True), (good, False)):
        assert await gate.acquire(receiver)
        gate.release(receiver, duration=15, is_failed=is_failed)
    for number in range(20_005):
        host = Receiver(f"{number}.example", is_callback=True)
        assert await gate.acquire(host)
        gate.release(host, duration=15, is_failed=True)
    assert len(gate._receivers) <= 10_000
    assert [await gate.acquire(A), await gate.acquire(A)] == [True, False]
    assert [await gate.acquire(good), await gate.acquire(good)] == [True, True]


async def test_who_is_cancelled_takes_no_turn() -> None:
    """A waiter that is cancelled leaves its turn to the next one."""
    gate = ReceiverLimits(lambda: 100.0, random.random, slots=1)
    assert await gate.acquire(A)
    first, second = asyncio.create_task(gate.acquire(A)), asyncio.create_task(gate.acquire(A))
    await asyncio.sleep(0)
    gate.release(A, duration=0.1, is_failed=False)  # it is the first one's turn, which does not know it yet
    first.cancel()
    assert await second
