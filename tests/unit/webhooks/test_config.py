"""The file of endpoints and secrets."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from opstream_schemas.names import Kind
from opstream_schemas.webhook_delivery import WebhookDelivery
from opstream_webhooks.config import ConfigSource, EndpointUnknown, InvalidConfig
from opstream_webhooks.signature import Signer, webhook_id
from tests.support.webhooks.receiver import OTHER_SECRET, SECRET

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
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


def test_a_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints match by action and event; secrets are in the file, in the environment, or in a file beside it."""
    (tmp_path / "key").write_text(f"{OTHER_SECRET}\n")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    path = tmp_path / "hooks.toml"
    path.write_text(
        HOOK.format(secret="env:HOOK_SECRET")
        + 'actions = ["book:*", "*:send"]\nevents = ["failed"]\n'
        + '[[callbacks]]\nhost = "*.example.net"\nsecrets = ["file:key"]\n'
    )
    config = ConfigSource(path=path, callback_hosts=("a.example",), callback_secrets=(SECRET, OTHER_SECRET)).load()
    wanted = {
        (kind, event): [hook.name for hook in config.matching(Kind.parse(kind), event)]
        for kind in ("book:up", "mail:send", "mail:drop")
        for event in ("failed", "succeeded")
    }
    assert [key for key, names in wanted.items() if names == ["billing"]] == [
        ("book:up", "failed"),
        ("mail:send", "failed"),
    ]
    assert len(config.endpoint(delivery()).signers) == 1
    assert len(config.endpoint(delivery("callback", "https://a.example/x")).signers) == 2
    assert config.endpoint(delivery("callback", "https://b.example.net/x")).url.host == "b.example.net"
    with pytest.raises(EndpointUnknown, match=r"callbacks to evil\.example are not allowed"):
        config.endpoint(delivery("callback", "https://evil.example/x"))
    with pytest.raises(EndpointUnknown, match="no endpoint 'gone' is configured"):
        config.endpoint(delivery("gone"))
    assert SECRET not in repr(config)
    assert OTHER_SECRET not in repr(config)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hooks = 1", "Expected `array`"),
        ("[[hooks]", "is not TOML"),
        pytest.param("hooks = " + "[" * 100_000, "is not TOML", id="nested"),
        (HOOK.format(secret=SECRET) + 'event = ["failed"]', "unknown field `event`"),
        (HOOK.format(secret=SECRET) + 'events = ["started"]', "'started' is not an outcome"),
        (HOOK.format(secret=SECRET) + "events = []", "never be called"),
        (HOOK.format(secret=SECRET) + 'actions = ["book"]', "'book' is not an action"),
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
def test_an_invalid_config_file(tmp_path: Path, text: str, complaint: str) -> None:
    """The error is one line, says what is wrong and where, and contains no secret."""
    path = tmp_path / "hooks.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=complaint) as refused:
        ConfigSource(path=path).load()
    assert "\n" not in str(refused.value)
    for secret in ("hunter2", SECRET, "c2hvcnQ"):
        assert secret not in str(refused.value)


def test_webhook_ids() -> None:
    """A `webhook-id` names event and endpoint; an event id that a header can't carry is replaced."""
    assert webhook_id("0197-a", delivery()) == "0197-a_billing"
    assert webhook_id("a\r\nb", delivery()) == "op_billing"
    assert repr(Signer(SECRET)) == "Signer(…)"
