"""What pulls the messages of an action: from one queue, or from those of its priorities (docs/adr/0072)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opstream_journal import Connection, PullConsumer
from opstream_journal.jetstream.shared_pulls import SharedPulls
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.operation.priority import PRIORITIES, QUEUED_PRIORITIES, order_of_turn


def pulls_of(connection: Connection, spec: ActionSpec, clock: Callable[[], float]) -> PullConsumer | SharedPulls:
    """Return what pulls the messages of an action.

    Args:
        connection: the connection.
        spec: the action.
        clock: returns monotonic seconds.
    """
    if not spec.policy.priority:
        return PullConsumer(connection, subjects.OPERATIONS_STREAM, subjects.runner_consumer(spec.kind), clock=clock)
    consumers = [subjects.runner_consumer(spec.kind, one if one in QUEUED_PRIORITIES else "") for one in PRIORITIES]
    return SharedPulls(connection, subjects.OPERATIONS_STREAM, consumers, order=_order, clock=clock)


def _order(turn: int) -> Sequence[int]:
    return [PRIORITIES.index(one) for one in order_of_turn(turn)]
