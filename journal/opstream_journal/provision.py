"""Makes what opstream needs on the broker, and tells where the broker differs from it.

`provision` is for operators (and `opstream up`); `check` is what every service calls at its start; `ensure_consumer`
is the runner's, for the consumers of its own actions. Drift is never hidden: safe differences are applied on request,
the others are reported with what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig

from opstream_schemas import subjects
from opstream_schemas.catalog import DAY, ActionSpec

from .errors import Drifted, JournalError, JournalUnavailable, NotProvisioned, RequestRefused
from .link import Link
from .topology import AGE_MARGIN, SIZING_FIELDS, Sizing, projector_consumers, runner_consumer, streams

PROVISION_HINT: Final = "run 'opstream provision'"
UPDATE_HINT: Final = "run 'opstream provision --update'"
RECREATE_HINT: Final = "this can't be changed in place: back the stream up and recreate it, or use another broker"

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
    "max_msgs_per_subject",
    "duplicate_window",
    "sources",
    *sorted(SIZING_FIELDS),
)
_CONSUMER_FIELDS: Final = (
    "filter_subjects",
    "ack_policy",
    "deliver_policy",
    "ack_wait",
    "max_deliver",
    "max_ack_pending",
    "max_waiting",
)
_SAFE: Final = frozenset(
    {
        "subjects",
        "sources",
        "duplicate_window",
        "allow_direct",
        "num_replicas",
        "max_age",
        "max_bytes",
        "max_msg_size",
        "filter_subjects",
        "ack_wait",
        "max_ack_pending",
        "max_deliver",
    }
)
_GROWS_ONLY: Final = frozenset({"max_age", "max_bytes", "max_msg_size"})
_NOT_SET: Final = {"max_age": 0, "max_bytes": -1, "max_msg_size": -1, "max_msgs_per_subject": -1, "num_replicas": 1}


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between the broker and what is wanted."""

    name: str
    """`stream OPERATIONS`, `consumer projector`."""
    field: str
    actual: str
    wanted: str
    is_safe: bool
    """Whether `--update` may apply it without losing anything."""

    def __str__(self) -> str:
        return f"{self.name}: {self.field} is {self.actual}, should be {self.wanted}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What provisioning found and did."""

    made: tuple[str, ...]
    updated: tuple[str, ...]
    drift: tuple[Drift, ...]
    """What still differs."""


async def provision(link: Link, sizing: Sizing, specs: Iterable[ActionSpec] = (), *, is_update: bool = False) -> Report:
    """Make what is missing; with `is_update` apply what differs and is safe. Idempotent.

    Args:
        link: the broker.
        sizing: replicas and limits.
        specs: actions whose existing runner consumers are compared (and updated) too; runners make them.
        is_update: whether to apply safe differences.

    Raises:
        Drifted: `sizing` would let events expire before the statuses that they explain; nothing was changed.
        JournalError: the broker refused or did not answer.
    """
    specs = list(specs)
    _check_sizing(sizing, specs)
    js = _jetstream(link)
    made: list[str] = []
    updated: list[str] = []
    drift: list[Drift] = []
    for config in streams(sizing):
        name = f"stream {config.name}"
        actual = await _stream(js, str(config.name))
        if actual is None:
            await _asked(js.add_stream(config))
            made.append(name)
            continue
        await _settle(
            name, _compare_stream(actual, config), is_update, updated, drift, _StreamUpdate(js, actual, config)
        )
    pairs = [(config, True) for config in projector_consumers()] + [(runner_consumer(spec), False) for spec in specs]
    for consumer, is_ours in pairs:
        name = f"consumer {consumer.durable_name}"
        current = await _consumer(js, str(consumer.durable_name))
        if current is not None:
            update = _ConsumerUpdate(js, consumer)
            await _settle(name, _compare_consumer(current, consumer), is_update, updated, drift, update)
        elif is_ours:
            await _asked(js.add_consumer(subjects.OPERATIONS_STREAM, consumer))
            made.append(name)
    return Report(made=tuple(made), updated=tuple(updated), drift=tuple(drift))


async def check(link: Link) -> int:
    """Check that the broker has what every service needs; the operator's sizing is not looked at.

    Returns:
        The `max_msg_size` of the journal in bytes, -1 for none.

    Raises:
        NotProvisioned: something is missing.
        Drifted: something differs.
        JournalError: the broker refused or did not answer.
    """
    js = _jetstream(link)
    limit = -1
    for config in streams(Sizing()):
        actual = await _stream(js, str(config.name))
        if actual is None:
            raise NotProvisioned(f"the broker has no stream {config.name}: {PROVISION_HINT}")
        _refuse(d for d in _compare_stream(actual, config) if d.field not in SIZING_FIELDS)
        if config.name == subjects.OPERATIONS_STREAM:
            limit = -1 if actual.max_msg_size is None else actual.max_msg_size
    for consumer in projector_consumers():
        current = await _consumer(js, str(consumer.durable_name))
        if current is None:
            raise NotProvisioned(f"the broker has no consumer {consumer.durable_name}: {PROVISION_HINT}")
        _refuse(_compare_consumer(current, consumer))
    return limit


async def ensure_consumer(link: Link, spec: ActionSpec) -> None:
    """Make the consumer of an action if there is none. An existing one is never retargeted.

    Raises:
        Drifted: there is one, and it differs.
        JournalError: the broker refused or did not answer.
    """
    js = _jetstream(link)
    wanted = runner_consumer(spec)
    current = await _consumer(js, str(wanted.durable_name))
    if current is None:
        info = await _asked(js.add_consumer(subjects.OPERATIONS_STREAM, wanted))
        current = info.config
    _refuse(_compare_consumer(current, wanted), f"{UPDATE_HINT} with the same --actions")


def _check_sizing(sizing: Sizing, specs: Sequence[ActionSpec]) -> None:
    needed = max((spec.policy.deadline + spec.policy.retention for spec in specs), default=2 * DAY) + AGE_MARGIN
    if 0 < sizing.max_age < needed:
        raise Drifted(
            f"--max-age of {sizing.max_age:g} s is shorter than the longest deadline plus retention plus a day "
            f"({needed:g} s): operations would lose their journal while they run. Use {needed:g} s or more"
        )


def _refuse(drift: Iterable[Drift], hint: str = UPDATE_HINT) -> None:
    found = list(drift)
    if found:
        todo = hint if all(one.is_safe for one in found) else RECREATE_HINT
        raise Drifted(f"the broker differs from what this version needs: {'; '.join(map(str, found))}. {todo}")


class _StreamUpdate:
    def __init__(self, js: JetStreamContext, actual: StreamConfig, wanted: StreamConfig) -> None:
        self._js, self._actual, self._wanted = js, actual, wanted

    async def __call__(self, fields: list[str]) -> None:
        # Only the safe fields change; whatever else the operator set on the stream stays.
        changes = {field: getattr(self._wanted, field) for field in fields}
        await _asked(self._js.update_stream(self._actual.evolve(**changes)))


class _ConsumerUpdate:
    def __init__(self, js: JetStreamContext, wanted: ConsumerConfig) -> None:
        self._js, self._wanted = js, wanted

    async def __call__(self, fields: list[str]) -> None:
        current = await _consumer(self._js, str(self._wanted.durable_name))
        if current is None:
            raise NotProvisioned(f"consumer {self._wanted.durable_name} is gone: {PROVISION_HINT}")
        changes = {field: getattr(self._wanted, field) for field in fields}
        if "filter_subjects" in changes:
            changes["filter_subject"] = None
        await _asked(self._js.add_consumer(subjects.OPERATIONS_STREAM, current.evolve(**changes)))


async def _settle(
    name: str,
    found: list[Drift],
    is_update: bool,  # noqa: FBT001 - private
    updated: list[str],
    drift: list[Drift],
    update: _StreamUpdate | _ConsumerUpdate,
) -> None:
    found = [msgspec.structs.replace(one, name=name) for one in found]
    safe = [one for one in found if one.is_safe]
    if is_update and safe:
        await update([one.field for one in safe])
        updated.extend(str(one) for one in safe)
        found = [one for one in found if not one.is_safe]
    drift.extend(found)


def _compare_stream(actual: StreamConfig, wanted: StreamConfig) -> list[Drift]:
    return _compare(actual, wanted, _STREAM_FIELDS, f"stream {wanted.name}")


def _compare_consumer(actual: ConsumerConfig, wanted: ConsumerConfig) -> list[Drift]:
    return _compare(actual, wanted, _CONSUMER_FIELDS, f"consumer {wanted.durable_name}")


def _compare(actual: Any, wanted: Any, fields: Iterable[str], name: str) -> list[Drift]:  # noqa: ANN401 - two config types
    found = []
    for field in fields:
        is_, should = _normal(actual, field), _normal(wanted, field)
        if is_ != should:
            is_safe = field in _SAFE and not (field in _GROWS_ONLY and _shrinks(is_, should))
            found.append(Drift(name=name, field=field, actual=_shown(is_), wanted=_shown(should), is_safe=is_safe))
    return found


def _normal(config: Any, field: str) -> Any:  # noqa: ANN401
    value = getattr(config, field)
    if field == "filter_subjects":
        single = getattr(config, "filter_subject", None)
        return sorted(value or ([single] if single else []))
    if field == "subjects":
        return sorted(value or [])
    if field == "sources":
        return sorted(
            (source.name, tuple(sorted((t.src, t.dest) for t in source.subject_transforms or [])))
            for source in value or []
        )
    if field in _NOT_SET and value in {None, 0, -1}:
        return _NOT_SET[field]
    return value if value is not None else False


def _shrinks(actual: Any, wanted: Any) -> bool:  # noqa: ANN401
    unlimited = {0, -1}
    return wanted not in unlimited and (actual in unlimited or wanted < actual)


def _shown(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(getattr(value, "value", value))


def _jetstream(link: Link) -> JetStreamContext:
    return link.nc.jetstream(timeout=5.0)


async def _stream(js: JetStreamContext, name: str) -> StreamConfig | None:
    try:
        info = await _asked(js.stream_info(name))
    except RequestRefused as error:
        if error.code == 404:
            return None
        raise
    config: StreamConfig = info.config
    return config


async def _consumer(js: JetStreamContext, name: str) -> ConsumerConfig | None:
    try:
        info = await _asked(js.consumer_info(subjects.OPERATIONS_STREAM, name))
    except RequestRefused as error:
        if error.code == 404:
            return None
        raise
    config: ConsumerConfig = info.config
    return config


async def _asked(request: Any) -> Any:  # noqa: ANN401 - nats-py's answers
    try:
        return await request
    except nats.js.errors.APIError as error:
        raise RequestRefused(error.code or 0, error.err_code or 0, error.description or "") from error
    except (nats.errors.TimeoutError, TimeoutError, nats.errors.NoRespondersError) as error:
        raise JournalUnavailable(
            "JetStream does not answer: is it enabled on this broker ('jetstream {}' in its configuration)?",
            maybe_stored=True,
        ) from error
    except nats.errors.Error as error:
        raise JournalError(f"the broker refused: {error}") from error
