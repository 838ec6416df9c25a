"""Validation of the options of `@action`. Each error message says what to change."""

from __future__ import annotations

import re
import typing
from math import inf
from typing import Final, Literal

from opstream_runner.errors import InvalidAction
from opstream_schemas.action_spec import DAY_SECONDS, Policy
from opstream_schemas.names import Kind
from opstream_schemas.operation.rate_limit import parse_rate

Isolation = Literal["none", "process"]
Exclusive = Literal["", "resource"]
OnConflict = Literal["queue", "reject", "replace"]
PriorityOption = Literal["", "high", "normal", "low"]

_MIN_LEASE: Final = 1.0
_MIN_DEADLINE: Final = 1.0
_MAX_DURATION: Final = 3650 * DAY_SECONDS
"""Seconds. Much longer durations fit into neither a date nor the broker's nanoseconds."""
_MAX_VERSION: Final = 2**53 - 1
"""The largest integer that every JSON reader can represent."""
_MAX_ATTEMPTS: Final = 1_000_000
_MAX_RETRY_AFTER: Final = 3600
_MAX_CONCURRENCY: Final = 10_000
_DURATION_OPTIONS: Final = (
    *("lease", "timeout", "backoff", "backoff_max", "deadline"),
    *("retention", "retention_failed", "retention_canceled", "cancel_grace"),
)
_GROUP_PATTERN: Final = re.compile(r"[a-z0-9-]{1,40}")


def validate_policy(kind: Kind, version: int, policy: Policy) -> None:
    """Validate the options of an action.

    Args:
        kind: the action, for the message.
        version: its `action_version`.
        policy: all other options.

    Raises:
        InvalidAction: an option is out of its range, or conflicts with another option.
    """
    _validate_integers(kind, version, policy)
    if type(policy.clean_up) is not bool:
        raise InvalidAction(f"action {kind}: clean_up must be True or False, not {policy.clean_up!r}")
    for message, is_wrong in (_duration_rules(policy) | _count_rules(version, policy) | _choice_rules(policy)).items():
        if is_wrong:
            raise InvalidAction(f"action {kind}: {message}")


def as_seconds(kind: Kind, option: str, value: float) -> float:
    """Return an option's value, a float or an integer, as seconds.

    Args:
        kind: the action, for the message.
        option: the option's name, for the message.
        value: the option's value.

    Raises:
        InvalidAction: the value is not a number.
    """
    if type(value) not in {int, float}:  # True is an int, but not on the wire
        raise InvalidAction(f"action {kind}: {option} must be a number of seconds, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        return inf  # `validate_policy` refuses it with the range


def _validate_integers(kind: Kind, version: int, policy: Policy) -> None:
    whole = {
        "version": version,
        "max_attempts": policy.max_attempts,
        "retry_after": policy.retry_after,
        "max_concurrency": policy.max_concurrency,
    }
    for option, value in whole.items():
        if type(value) is not int:  # True is an int, but not on the wire
            raise InvalidAction(f"action {kind}: {option} must be a whole number, not {value!r}")


def _duration_rules(policy: Policy) -> dict[str, bool]:
    # Infinity has no JSON, so the API could not read the announced action.
    least = {
        f"lease must be at least {_MIN_LEASE:g} second, not {policy.lease:g}": not _MIN_LEASE <= policy.lease < inf,
        f"timeout must be more than 0 seconds, or 0 for none, not {policy.timeout:g}": not 0 <= policy.timeout < inf,
        f"backoff must be more than 0 seconds, not {policy.backoff:g}": not 0 < policy.backoff < inf,
        f"backoff_max must be at least backoff ({policy.backoff:g} seconds), not {policy.backoff_max:g}": not (
            policy.backoff <= policy.backoff_max < inf
        ),
        f"deadline must be at least {_MIN_DEADLINE:g} second, not {policy.deadline:g}": not (
            _MIN_DEADLINE <= policy.deadline < inf
        ),
        f"retention must be at least {DAY_SECONDS:g} seconds (24 hours), not {policy.retention:g}": not (
            DAY_SECONDS <= policy.retention < inf
        ),
        f"cancel_grace must be more than 0 seconds, not {policy.cancel_grace:g}": not 0 < policy.cancel_grace < inf,
    }
    by_outcome = {
        f"{option} must be at least {DAY_SECONDS:g} seconds (24 hours), or 0 for that of "
        f"retention, not {seconds:g}": not (seconds == 0 or DAY_SECONDS <= seconds < inf)
        for option, seconds in (
            ("retention_failed", policy.retention_failed),
            ("retention_canceled", policy.retention_canceled),
        )
    }
    most = {
        f"{option} must be at most {_MAX_DURATION:g} seconds (ten years), not {getattr(policy, option):g}": (
            getattr(policy, option) > _MAX_DURATION
        )
        for option in _DURATION_OPTIONS
    }
    return least | by_outcome | most


def _count_rules(version: int, policy: Policy) -> dict[str, bool]:
    return {
        f"version must be 1 to {_MAX_VERSION}, not {version}": not 1 <= version <= _MAX_VERSION,
        f"max_attempts must be 1 to {_MAX_ATTEMPTS}, not {policy.max_attempts}": not (
            1 <= policy.max_attempts <= _MAX_ATTEMPTS
        ),
        f"retry_after must be 1 to {_MAX_RETRY_AFTER} whole seconds, not {policy.retry_after}": not (
            1 <= policy.retry_after <= _MAX_RETRY_AFTER
        ),
        f"max_concurrency must be 1 to {_MAX_CONCURRENCY}, or 0 for no limit, not {policy.max_concurrency}": not (
            0 <= policy.max_concurrency <= _MAX_CONCURRENCY
        ),
    }


def _choice_rules(policy: Policy) -> dict[str, bool]:
    group = policy.exclusive_group
    return {
        _choice_message("isolation", Isolation, policy.isolation): policy.isolation not in typing.get_args(Isolation),
        _choice_message("exclusive", Exclusive, policy.exclusive): policy.exclusive not in typing.get_args(Exclusive),
        f"exclusive_group must be {_GROUP_PATTERN.pattern} in full, not {group!r}": group != ""
        and not _is_group(group),
        'exclusive_group must come with exclusive="resource"': group != "" and policy.exclusive == "",
        _choice_message("on_conflict", OnConflict, policy.on_conflict): policy.on_conflict
        not in typing.get_args(OnConflict),
        f'on_conflict must come with exclusive="resource" to be {policy.on_conflict!r}': (
            policy.on_conflict != "queue" and policy.exclusive == ""
        ),
        f"rate must be a whole number for each s, m, h or d, as in '100/m', not {policy.rate!r}": (
            policy.rate != "" and not _is_rate(policy.rate)
        ),
        f"confidential must be True or False, not {policy.confidential!r}": type(policy.confidential) is not bool,
        _choice_message("priority", PriorityOption, policy.priority): policy.priority
        not in typing.get_args(PriorityOption),
        "priority can't come with max_concurrency, which limits one queue, and an action with priorities has three: "
        "limit its attempts by --concurrency and the number of runners": (
            policy.priority != "" and policy.max_concurrency != 0
        ),
        "priority can't come with rate, whose slots are given in the order of the requests": (
            policy.priority != "" and policy.rate != ""
        ),
    }


def _choice_message(option: str, words: object, value: object) -> str:
    return f"{option} must be one of {', '.join(map(repr, typing.get_args(words)))}, not {value!r}"


def _is_group(value: object) -> bool:
    return isinstance(value, str) and _GROUP_PATTERN.fullmatch(value) is not None


def _is_rate(value: object) -> bool:
    try:
        parse_rate(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True
