"""Children as an author names them, and what an attempt asks its runner about them."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import msgspec

from opstream_runner.errors import ActionError
from opstream_schemas.children.lineage import ChildGroup
from opstream_schemas.children.plan import ChildState
from opstream_schemas.children.requests import ChildItem
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError


class Child(msgspec.Struct, frozen=True):
    """An operation that an action begins with `ActionContext.run_all`.

    Args:
        action: `resource:action`, of any runner of the same installation.
        input: what has the JSON of its input; None for an action that takes none.
        resource_id: of its resource; empty for an action without one.
    """

    action: str
    input: Any = None
    resource_id: str = ""


class ChildFailed(ActionError):
    """A child has failed, or was canceled. Caught, the parent goes on; otherwise it fails with this error.

    Attributes:
        operation_id: of the child.
        state: `failed` or `canceled`.
        error: the child's own error; None if it was canceled.
    """

    def __init__(self, message: str, *, operation_id: str, state: str, error: OperationError | None) -> None:
        super().__init__(ErrorCode.CHILD_FAILED, message, target=operation_id)
        self.operation_id = operation_id
        self.state = state
        self.error = error


class ChildRefused(ActionError):
    """The API does not accept a child: there is no such action, or its input does not fit it."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.CHILD_REFUSED, message)


class ChildOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a child has ended."""

    state: ChildState
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: OperationError | None = None
    reason: str = ""


class LookAtChildren(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the states of children, from a place on."""

    group: ChildGroup
    first: int = 0


class SubmitChildren(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks to begin some children."""

    group: ChildGroup
    items: tuple[ChildItem, ...]


class FetchOutcomes(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the outcomes of children that have ended, by their places. The answer may have fewer, the first ones."""

    group: ChildGroup
    places: tuple[int, ...]


ChildrenAsk = LookAtChildren | SubmitChildren | FetchOutcomes


class ChildrenReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to any of them."""

    states: tuple[ChildState, ...] = ()
    outcomes: tuple[ChildOutcome, ...] = ()
    refusal: str = ""
    """Why children are not accepted, for good; empty if they are."""
    is_unanswered: bool = False
    """True if no API has accepted them now, and asking again later may help."""


ChildrenAsker = Callable[[ChildrenAsk], "concurrent.futures.Future[ChildrenReply]"]
"""Asks the runner; callable from any thread. The future's exception is `ActionCanceledError` if the attempt is over."""
