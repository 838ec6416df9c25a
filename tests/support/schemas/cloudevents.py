"""Checks stored bytes with the official CloudEvents SDK and the specification."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import OPTIONAL_ATTRIBUTES, REQUIRED_ATTRIBUTES

from opstream_schemas.events import RecordedEvent, decode_event

ATTRIBUTES: Final = frozenset({*REQUIRED_ATTRIBUTES, *OPTIONAL_ATTRIBUTES})
EXTENSIONS: Final = frozenset({"position", "previoushash"})
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,20}")
_RFC3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})")
_URI_REFERENCE: Final = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")


def read(payload: bytes) -> BaseCloudEvent:
    """Read structured JSON with the SDK, which detects the version."""
    return JSONFormat().read(None, payload)


def write(event: BaseCloudEvent) -> bytes:
    """Write an event as JSON with the SDK."""
    return JSONFormat().write(event)


def check_same(event: BaseCloudEvent, mine: RecordedEvent) -> None:
    """Check that the SDK and opstream's decoder read the same attributes, extensions and data, and nothing else."""
    assert event.get_specversion() == "1.0"
    assert event.get_id() == mine.id
    assert event.get_source() == mine.source
    assert event.get_type() == mine.type
    assert event.get_subject() == mine.operation_id
    assert event.get_time() == mine.time
    assert event.get_datacontenttype() == "application/json"
    assert event.get_extension("position") == mine.position
    assert event.get_extension("previoushash") == mine.previous_hash
    assert event.get_attributes().keys() == {*ATTRIBUTES - {"dataschema"}, *EXTENSIONS}
    assert event.get_data() == msgspec.json.decode(mine.stored)["data"]


def check_round_trip(payload: bytes) -> None:
    """Check that an event keeps its meaning when the SDK reads and writes it."""
    mine = decode_event(payload, 1)
    again = write(read(payload))
    check_same(read(again), mine)
    other = decode_event(again, 1)
    assert _meaning(other) == _meaning(mine)


def check_rules(payload: bytes) -> None:
    """Check the specification's rules that the SDK does not: names, sizes and grammars of attributes."""
    members: dict[str, Any] = msgspec.json.decode(payload)
    extensions = members.keys() - ATTRIBUTES - {"data"}
    assert extensions == EXTENSIONS
    assert all(_EXTENSION.fullmatch(name) for name in extensions)
    assert all(members[name] for name in ("id", "source", "type", "subject"))
    assert _URI_REFERENCE.fullmatch(members["source"])
    urlsplit(members["source"])
    assert _RFC3339.fullmatch(members["time"])
    assert 1 <= members["position"] < 2**31
    texts = [value for name, value in members.items() if name != "data" and isinstance(value, str)]
    assert all(text.isprintable() for text in texts)


def _meaning(event: RecordedEvent) -> dict[str, Any]:
    """All members except the bytes, since the SDK may format JSON differently."""
    data = msgspec.json.decode(event.stored)["data"]
    members = {name: value for name, value in msgspec.structs.asdict(event).items() if name not in ("stored", "data")}
    return {**members, "data": data}
