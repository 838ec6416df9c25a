"""Signatures by the Standard Webhooks specification, with its official library.

A secret becomes a `Signer` as soon as it is read; nothing can display it after that.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from opstream_schemas.webhook_delivery import WebhookDelivery

KEY_PREFIX: Final = "whsec_"
_MIN_KEY_BYTES: Final = 24
_MAX_KEY_BYTES: Final = 64
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Signer:
    """Signs with one secret.

    Args:
        secret: `whsec_` and 24 to 64 bytes in base64.

    Raises:
        ValueError: it is not a secret. The message does not contain it.
    """

    def __init__(self, secret: str) -> None:
        try:
            key = base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith(KEY_PREFIX) or not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
            raise ValueError(
                f"a secret is {KEY_PREFIX} and {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} bytes in base64: {KEY_HINT}"
            )
        self._webhook = Webhook(key)

    def __repr__(self) -> str:
        return "Signer(…)"

    def sign(self, webhook_id: str, at: datetime, body: str) -> str:
        """Return one signature, `v1,…`."""
        return self._webhook.sign(webhook_id, at, body)


KEY_HINT: Final = """make one with  echo "whsec_$(head -c 32 /dev/urandom | base64)\""""


def webhook_id(event_id: str, delivery: WebhookDelivery) -> str:
    """Return the `webhook-id`: equal in all attempts, different per endpoint. Receivers recognize repetitions by it."""
    # opstream's own event ids are UUIDs. Another writer's id may be any text, which a header can't carry.
    known = event_id if _SAFE_ID.fullmatch(event_id) else delivery.operation_id
    return f"{known}_{delivery.endpoint}"


def signed_headers(identity: str, at: datetime, body: bytes, signers: Iterable[Signer]) -> dict[str, str]:
    """Return the headers of Standard Webhooks, with one signature per secret.

    Args:
        identity: the `webhook-id`.
        at: the time of the attempt, with zone.
        body: of the request, UTF-8.
        signers: the newest first.
    """
    moment = at.astimezone(UTC)
    text = body.decode()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signer.sign(identity, moment, text) for signer in signers),
    }
