"""The mark of a restore that has not ended: an entry in the metadata of each stream that it makes (docs/adr/0051).

`opstream restore` writes it with the stream itself, and removes it from all streams at its end, from the journal last.
Every service reads these configurations when it starts, so none begins on a broker of which a part is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nats.js.api import StreamConfig

RESTORE_MARK: Final = "opstream.restore"
"""Key in a stream's metadata. Its value says which backup is restored."""

_BROKERS_OWN: Final = "_nats."
"""Prefix of keys that the broker adds to the metadata when it answers."""


def restore_mark(config: StreamConfig) -> str:
    """Return which backup a stream is being restored from; empty if no restore is under way."""
    return (config.metadata or {}).get(RESTORE_MARK, "")


def own_metadata(config: Mapping[str, Any], mark: str = "") -> dict[str, str]:
    """Return the metadata of a configuration in the broker's form, without what the broker adds, and with this mark.

    An empty `mark` removes one that is there.
    """
    kept = {
        key: value
        for key, value in (config.get("metadata") or {}).items()
        if key != RESTORE_MARK and not key.startswith(_BROKERS_OWN)
    }
    return {**kept, RESTORE_MARK: mark} if mark else kept


def explain_unfinished_restore(name: str, mark: str) -> str:
    """Return that a stream is only a part of a backup so far, with the next step."""
    return (
        f"stream {name} belongs to a restore that has not ended ({mark}): wait until it has, or run 'opstream restore' "
        "again with the same folder and options, which begins again"
    )
