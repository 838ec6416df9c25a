"""How long the journal must keep events, so that no status of an operation outlives them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opstream_journal.errors import Drifted
from opstream_journal.provisioning.topology import AGE_MARGIN, Sizing, format_duration
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec


def required_age(specs: Iterable[ActionSpec]) -> float:
    """Return the minimum age of the journal in seconds, so that no status of these actions outlives its events."""
    return max(map(required_age_of, specs), default=2 * DAY_SECONDS + AGE_MARGIN)


def check_sizing(sizing: Sizing, specs: Sequence[ActionSpec]) -> None:
    """Check that a journal of this sizing keeps events for long enough.

    Raises:
        Drifted: statuses of these actions would outlive it.
    """
    if 0 < sizing.max_age < required_age(specs):
        why = (
            age_sum_text(max(specs, key=required_age_of))
            if specs
            else "an ordinary action's deadline, retention and a day are 3d"
        )
        which = f"action {max(specs, key=required_age_of).kind}: " if specs else ""
        raise Drifted(
            f"--max-age of {format_duration(sizing.max_age)} is too short: {which}{why}, so statuses would outlive "
            f"their journal. Use {format_duration(required_age(specs))} or more"
        )


def required_age_of(spec: ActionSpec) -> float:
    """Return the minimum age of the journal in seconds for one action."""
    return spec.policy.deadline + spec.policy.longest_retention + AGE_MARGIN


def age_sum_text(spec: ActionSpec) -> str:
    """Explain that minimum, for a sentence about the action."""
    policy = spec.policy
    return (
        f"its deadline ({format_duration(policy.deadline)}) "
        f"plus its longest retention ({format_duration(policy.longest_retention)}) "
        f"plus a day are {format_duration(required_age_of(spec))}"
    )
