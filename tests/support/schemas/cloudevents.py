"""What the official CloudEvents SDK and the specification say of stored bytes. Callers: tests of conformance."""

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
    """What the SDK's reader of the structured JSON format makes of them; it picks the version by itself."""
    return JSONFormat().read(None, payload)


def write(event: BaseCloudEvent) -> bytes:
    """The SDK's own JSON of an event."""
    return JSONFormat().write(event)


def check_same(event: BaseCloudEvent, mine: RecordedEvent) -> None:
    """What the SDK read is what our decoder did: each attribute, extension and the data, and nothing else."""
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
    """Read and written again by the SDK, an event means what it meant, to it and to us."""
    mine = decode_event(payload, 1)
    again = write(read(payload))
    check_same(read(again), mine)
    other = decode_event(again, 1)
    assert _meaning(other) == _meaning(mine)


def check_rules(payload: bytes) -> None:
    """The specification's rules that the SDK does not check: names, sizes and grammars of attributes."""
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
    """All but the bytes, of which only the SDK's spelling differs."""
    data = msgspec.json.decode(event.stored)["data"]
    members = {name: value for name, value in msgspec.structs.asdict(event).items() if name not in ("stored", "data")}
    return {**members, "data": data}
