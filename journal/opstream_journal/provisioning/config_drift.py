"""Differences between the broker's configuration and the expected one, and whether they are safe to apply. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from nats.js.api import ConsumerConfig, StreamConfig

from opstream_schemas import subjects

from .topology import OPTIONAL_FIELDS, SIZING_FIELDS, format_duration

_STREAM_FIELDS: Final = (
    "subjects",
    "retention",
    "discard",
    "storage",
    "deny_delete",
    "deny_purge",
    "allow_direct",
    "allow_msg_ttl",
    "allow_msg_schedules",
    "allow_rollup_hdrs",
    *sorted(OPTIONAL_FIELDS),
    "max_msgs_per_subject",
    "duplicate_window",
    "sources",
    *sorted(SIZING_FIELDS),
)
_CONSUMER_FIELDS: Final = (
    "filter_subjects",
    "ack_policy",
    "deliver_policy",
    "replay_policy",
    "ack_wait",
    "max_deliver",
    "max_ack_pending",
    "max_waiting",
    "backoff",
    "headers_only",
    "inactive_threshold",
)
_SAFE_FIELDS: Final = frozenset(
    {
        "subjects",
        "sources",
        "republish",
        "discard",
        "compression",
        "duplicate_window",
        "allow_direct",
        "num_replicas",
        "max_age",
        "max_bytes",
        "max_msg_size",
        "max_msgs_per_subject",
        "filter_subjects",
        "ack_wait",
        "max_ack_pending",
        "max_deliver",
        "backoff",
        "headers_only",
        "inactive_threshold",
    }
)
_SWITCH_ON_ONLY_FIELDS: Final = frozenset(
    {"deny_delete", "deny_purge", "allow_msg_ttl", "allow_msg_schedules", "allow_rollup_hdrs", *OPTIONAL_FIELDS}
)
"""Safe to switch on. The broker refuses to switch most of them off."""
_GROW_ONLY_FIELDS: Final = frozenset({"max_age", "max_bytes", "max_msg_size", "max_msgs_per_subject"})
_DURATION_FIELDS: Final = frozenset({"max_age", "duplicate_window", "ack_wait", "inactive_threshold"})
_SIZE_FIELDS: Final = frozenset({"max_bytes", "max_msg_size"})
_SIZE_UNITS: Final = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), (" bytes", 1))
_DEFAULTS: Final = {"max_age": 0, "max_bytes": -1, "max_msg_size": -1, "max_msgs_per_subject": -1, "num_replicas": 1}


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between the broker and the expected configuration."""

    name: str
    """`stream OPERATIONS`, `consumer projector`."""
    field: str
    actual: str
    wanted: str
    is_safe: bool
    """True if `--update` may apply it without loss."""

    def __str__(self) -> str:
        return f"{self.name}: {self.field} is {self.actual}, should be {self.wanted}"


def compare_stream(actual: StreamConfig, wanted: StreamConfig) -> list[Drift]:
    """Return the differences of a stream.

    Compression is only compared if it is expected, and republishing if there is none: else they are the operator's. The
    subjects of event types that this version does not know are no difference.
    """
    fields = _STREAM_FIELDS if wanted.compression is None else (*_STREAM_FIELDS, "compression")
    if actual.republish is not None:
        fields = tuple(one for one in fields if one != "republish")
    newer = newer_event_subjects(actual, wanted)
    if newer:
        actual = actual.evolve(subjects=[one for one in actual.subjects or () if one not in newer])
    return _compare(actual, wanted, fields, f"stream {wanted.name}")


def newer_event_subjects(actual: StreamConfig, wanted: StreamConfig) -> tuple[str, ...]:
    """Return the subjects of event types that a stream takes for a newer version of opstream, which provisioned it.

    Services of this version work beside that one, and after a rollback from it: they leave such events to it
    (docs/adr/0008). To remove these subjects would stop its runners.
    """
    further = set(actual.subjects or ()).difference(wanted.subjects or ())
    return tuple(sorted(filter(_is_of_one_event_type, further)))


def _is_of_one_event_type(subject: str) -> bool:
    name = subject.rpartition(".")[2]
    return name not in {"*", ">"} and subject == subjects.event_type_subject(name)


def compare_consumer(actual: ConsumerConfig, wanted: ConsumerConfig) -> list[Drift]:
    """Return the differences of a consumer."""
    return _compare(actual, wanted, _CONSUMER_FIELDS, f"consumer {wanted.durable_name}")


def _compare(actual: Any, wanted: Any, fields: Iterable[str], name: str) -> list[Drift]:  # noqa: ANN401 - two config types
    found = []
    for field in fields:
        is_, should = _normalized(actual, field), _normalized(wanted, field)
        if is_ != should:
            is_safe = field in _SAFE_FIELDS and not (field in _GROW_ONLY_FIELDS and _shrinks(is_, should))
            is_safe = is_safe or (field in _SWITCH_ON_ONLY_FIELDS and should is True)
            found.append(
                Drift(
                    name=name, field=field, actual=_display(field, is_), wanted=_display(field, should), is_safe=is_safe
                )
            )
    return found


def _normalized(config: Any, field: str) -> Any:  # noqa: ANN401
    value = getattr(config, field)
    if field == "filter_subjects":
        single = getattr(config, "filter_subject", None)
        return sorted(value or ([single] if single else []))
    if field == "subjects":
        return sorted(value or [])
    if field == "sources":
        return sorted(
            (
                source.name,
                source.filter_subject or "",
                tuple(sorted((t.src, t.dest) for t in source.subject_transforms or [])),
            )
            for source in value or []
        )
    if field == "republish":
        return f"{value.src} to {value.dest}" if value is not None else None
    if field == "compression":
        return str(getattr(value, "value", value) or "none")
    if field == "replay_policy":
        return str(getattr(value, "value", value) or "instant")
    if field in _DEFAULTS and value in {None, 0, -1}:
        return _DEFAULTS[field]
    if isinstance(value, float):
        return round(value, 6)  # the broker cuts to nanoseconds: 1.001 s comes back as 1.000999999
    return value or False


def _shrinks(actual: Any, wanted: Any) -> bool:  # noqa: ANN401
    unlimited = {0, -1}
    return wanted not in unlimited and (actual in unlimited or wanted < actual)


def _display(field: str, value: Any) -> str:  # noqa: ANN401
    if field in _DURATION_FIELDS and (value or field == "max_age"):
        return format_duration(value)
    if field in _SIZE_FIELDS:
        return "unlimited" if value == _DEFAULTS[field] else _size(value)
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(getattr(value, "value", value))


def _size(count: int) -> str:
    """Format bytes as `--max-bytes` accepts them, without loss."""
    unit, size = next((unit, size) for unit, size in _SIZE_UNITS if not count % size)
    return f"{count // size}{unit}"
