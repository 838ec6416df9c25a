"""One call of `ActionContext.run` or `run_all`: begins children, and ends the attempt until they have ended.

Each attempt looks at the children again: those that have ended give their results, those that are missing are begun.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from opstream_runner.containment.json_text import NoJson, encode_json
from opstream_runner.errors import ActionCanceledError
from opstream_schemas.children.lineage import MAX_CHILDREN, ChildGroup
from opstream_schemas.children.plan import UNENDED, ChildrenPlan, ChildState, plan_children, wait_of_plan
from opstream_schemas.children.requests import MAX_ITEMS, ChildItem
from opstream_schemas.errors import InvalidName
from opstream_schemas.event_types.clean_up import StepName
from opstream_schemas.events import ChildWait, StepStarted, WaitBegun
from opstream_schemas.names import Kind, check_resource_id

from .children import (
    Child,
    ChildFailed,
    ChildOutcome,
    ChildRefused,
    ChildrenReply,
    FetchOutcomes,
    LookAtChildren,
    SubmitChildren,
)
from .clean_up import CleanUp
from .step_call import checked_name
from .step_errors import InvalidStep, StepInputChanged
from .step_table import StepTable

_MAX_BYTES: Final = 256 * 1024
"""Of the inputs in one request, if it has more than one."""
_UNANSWERED_PAUSE: Final = 15.0
"""Seconds until a parent asks again that found no API."""

_Asking = Generator["concurrent.futures.Future[Any] | None", Any, list[Any]]
"""What is asked, one after the other; None: the handler is to be canceled here, to clean up."""


class ChildCall:
    """Children that the attempt has come to. Making it claims the name.

    Args:
        table: the attempt's steps.
        children: what to begin, in order.
        name: by which later attempts find them; unique among the steps of an attempt, together with `key`.
        key: which of several of that name; empty for none.
        is_alone: whether it is one child that has no place among others.
        max_parallel: how many of them may be open at once; 0 for any number.
        fail: `first` or `all`.
        returns: the type of their results.
        place: where in the code, for messages.

    Raises:
        InvalidStep: something about it is not valid, or the attempt had a step of that name and key.
    """

    def __init__(
        self,
        table: StepTable,
        children: Sequence[Child],
        name: str,
        key: str | int,
        *,
        is_alone: bool,
        max_parallel: int,
        fail: str,
        returns: Any,  # noqa: ANN401 - any type
        place: str,
    ) -> None:
        self._table = table
        self._returns = returns
        self._max_parallel, self._fails_fast = _checked_options(name, max_parallel, fail)
        if len(children) > MAX_CHILDREN:
            raise InvalidStep(f"children {name!r}: {len(children)} are more than {MAX_CHILDREN}: begin some in a child")
        self._group = ChildGroup(
            name=checked_name(name, "name"),
            key=checked_name(key, "key") if key != "" else "",
            count=len(children),
            is_alone=is_alone,
        )
        self._items = [_item(name, child, None if is_alone else index) for index, child in enumerate(children)]
        self._hash = _hash_of(self._items)
        table.claim(self._group.name, self._group.key, place)

    def run(self) -> Any:  # noqa: ANN401
        """Return the results of the children, in order, or that of the only one, once all have ended.

        Raises:
            AttemptSuspended: they have not.
            ChildFailed: one of them has failed, or was canceled.
            ChildRefused: the API does not accept one.
            StepInputChanged: an earlier attempt has begun others under this name.
            ActionCanceledError: the attempt should stop, or is over, or cleans up from here on.
        """
        asking = self._ask()
        try:
            future = next(asking)
            while True:
                if future is None:
                    self._clean_up().stop_here()
                future = asking.send(None if future is None else future.result())
        except StopIteration as end:
            return self._shown(end.value)
        except ActionCanceledError:
            self._table.note_canceled(self._group.name, self._group.key)
            raise

    async def run_async(self) -> Any:  # noqa: ANN401
        """Do as `run` does, in an event loop."""
        asking = self._ask()
        try:
            future = next(asking)
            while True:
                if future is None:
                    await self._clean_up().stop_here_async()
                future = asking.send(None if future is None else await asyncio.wrap_future(future))
        except StopIteration as end:
            return self._shown(end.value)
        except (asyncio.CancelledError, ActionCanceledError):
            self._table.note_canceled(self._group.name, self._group.key)
            raise

    def _clean_up(self) -> CleanUp:
        if self._table.clean_up is None:
            raise RuntimeError("only an attempt that cleans up is canceled at its children")
        return self._table.clean_up

    @property
    def _is_canceled_here(self) -> bool:
        """True if the handler was canceled here, or before, and cleans up."""
        clean_up = self._table.clean_up
        if clean_up is None or not clean_up.is_due:
            return False
        place = StepName(name=self._group.name, key=self._group.key)
        return clean_up.record.awaited == place or clean_up.history.started(place.name, place.key) is None

    def _shown(self, results: list[Any]) -> Any:  # noqa: ANN401
        return results[0] if self._group.is_alone else results

    def _ask(self) -> _Asking:
        group = self._group
        if not self._items:
            return []
        if self._is_canceled_here:
            yield None
        yield from self._begin()
        waits = self._table.child_waits(group.name, group.key)
        ended = waits[-1].ended if waits else 0
        looked: ChildrenReply = yield self._table.ask(LookAtChildren(group=group, first=ended))
        states = list(looked.states)
        plan = plan_children(states, max_parallel=self._max_parallel, waits=len(waits), ended=ended)
        if self._fails_fast:
            failed = [index for index, state in enumerate(states, start=ended) if state not in _FINE]
            if failed:
                reply: ChildrenReply = yield self._table.ask(FetchOutcomes(group=group, places=(failed[0],)))
                raise self._failure([(failed[0], reply.outcomes[0])])
        clean_up = self._table.clean_up
        if clean_up is not None and clean_up.is_due:
            if plan.watch is not None:  # some are open, or were never begun
                yield None
            clean_up.pass_step(group.name, group.key)
        for items in _chunks([self._items[index] for index in plan.begin]):
            reply = yield self._table.ask(SubmitChildren(group=group, items=tuple(items)))
            if reply.refusal:
                raise ChildRefused(reply.refusal)
            if reply.is_unanswered:
                self._suspend(
                    ChildWait(ended=plan.ended), self._table.clock.now() + timedelta(seconds=_UNANSWERED_PAUSE)
                )
        if plan.watch is not None:
            self._wait(plan, plan.watch, len(waits))
        outcomes: list[ChildOutcome] = []
        while (first := len(outcomes)) < len(self._items):
            places = tuple(range(first, min(first + MAX_ITEMS, len(self._items))))
            reply = yield self._table.ask(FetchOutcomes(group=group, places=places))
            outcomes += reply.outcomes
        if bad := [(index, one) for index, one in enumerate(outcomes) if one.state is not ChildState.SUCCEEDED]:
            raise self._failure(bad)
        return [self._decoded(outcome) for outcome in outcomes]

    def _begin(self) -> Generator[concurrent.futures.Future[Any] | None, Any, None]:
        """Record that these children are about to begin, so that what ends the parent can find them."""
        group = self._group
        begun = self._table.history.started(group.name, group.key)
        if begun is None:
            if (marked := self._table.mark_clean_up()) is not None:
                yield marked
            yield self._table.record(
                StepStarted(
                    attempt=self._table.attempt,
                    step=group.name,
                    key=group.key,
                    input_hash=self._hash,
                    children=0 if group.is_alone else group.count,
                )
            )
        elif begun.input_hash != self._hash:
            raise StepInputChanged(
                f"children {group.name!r} were begun in attempt {begun.attempt} with other inputs: give them another "
                "name, or pass what a step has recorded"
            )

    def _wait(self, plan: ChildrenPlan, watch: int, waits: int) -> None:
        child = self._group.child_id(self._table.operation_id, watch)
        fail_fast = self._fails_fast and not self._group.is_alone
        wait, until = wait_of_plan(plan, child, self._table.clock.now(), waits=waits, fail_fast=fail_fast)
        self._suspend(wait, until)

    def _suspend(self, wait: ChildWait, until: datetime) -> None:
        group = self._group
        self._table.on_wait(
            WaitBegun(attempt=self._table.attempt, wait=group.name, key=group.key, until=until, child=wait)
        )

    def _failure(self, failed: list[tuple[int, ChildOutcome]]) -> ChildFailed:
        index, outcome = failed[0]
        child = self._group.child_id(self._table.operation_id, index)
        what = f"{self._items[index].action} ({child}) "
        if outcome.error is None:
            what += f"was canceled: {outcome.reason}" if outcome.reason else "was canceled"
        else:
            what += f"failed with {outcome.error.code}: {outcome.error.message}"
        if len(failed) > 1:
            what = f"{len(failed)} of {len(self._items)} children have not succeeded; the first: {what}"
        return ChildFailed(what, operation_id=child, state=outcome.state, error=outcome.error)

    def _decoded(self, outcome: ChildOutcome) -> Any:  # noqa: ANN401 - the author's type
        if isinstance(outcome.result, msgspec.UnsetType):
            return None
        try:
            return msgspec.json.decode(outcome.result, type=self._returns)
        except msgspec.ValidationError as error:
            why = f"a result is not of the type {self._returns}: {error}"
            raise InvalidStep(f"children {self._group.name!r}: {why}") from error


_FINE: Final = UNENDED | {ChildState.SUCCEEDED}


def _item(name: str, child: Child, index: int | None) -> ChildItem:
    if not isinstance(child, Child):
        raise InvalidStep(f"children {name!r}: give opstream.Child(action, input), not {child!r}")
    try:
        kind = Kind.parse_routable(child.action)
        resource_id = child.resource_id and check_resource_id(child.resource_id)
        encoded = b"{}" if child.input is None else encode_json(child.input)
    except (InvalidName, NoJson, AttributeError, TypeError) as error:
        raise InvalidStep(f"children {name!r}: {child.action!r}: {error}") from error
    return ChildItem(index=index, action=str(kind), resource_id=resource_id, input=msgspec.Raw(encoded))


def _hash_of(items: list[ChildItem]) -> str:
    """Return the SHA-256 (hex) of what is asked for: the same for equal inputs, in whatever order their members are."""
    asked = [(item.action, item.resource_id, msgspec.json.decode(item.input)) for item in items]
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()


def _checked_options(name: str, max_parallel: int, fail: str) -> tuple[int, bool]:
    if type(max_parallel) is not int or max_parallel < 0:
        raise InvalidStep(f"children {name!r}: max_parallel is a whole number from 1 on, or 0, not {max_parallel!r}")
    if fail not in {"first", "all"}:
        raise InvalidStep(f"children {name!r}: fail is 'first' or 'all', not {fail!r}")
    return max_parallel, fail == "first"


def _chunks(items: list[ChildItem]) -> Iterator[list[ChildItem]]:
    chunk: list[ChildItem] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) == MAX_ITEMS or size + len(item.input) > _MAX_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.input) + len(item.resource_id)
    if chunk:
        yield chunk
