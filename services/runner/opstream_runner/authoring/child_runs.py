"""The part of the context that begins children: other operations, for whose results a handler waits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from opstream_runner.steps.child_call import ChildCall
from opstream_runner.steps.children import Child
from opstream_runner.steps.pending_calls import PendingCalls, caller_place, is_in_loop
from opstream_runner.steps.step_table import StepTable


class ChildRuns(ABC):
    """What `ActionContext` has for children."""

    _calls: PendingCalls

    def run(
        self,
        action: str,
        input: Any = None,  # noqa: A002, ANN401 - the author's word and type
        *,
        resource_id: str = "",
        name: str = "",
        key: str | int = "",
        returns: Any = Any,  # noqa: ANN401 - any type
    ) -> Any:  # noqa: ANN401 - an async handler awaits it, a plain one has the result
        """Run an action as a child, an operation of its own, and return its result; an async handler awaits it.

        While the child is open this operation waits, and holds neither a slot nor an exclusive resource: the attempt
        ends here, and the next one begins from the first line. It finds the child again, by its name. The child has no
        later deadline than this operation, and is canceled if this one ends first (docs/children.md).

        Args:
            action: `resource:action`, of any runner of the installation.
            input: what has the JSON of its input; None for an action that takes none.
            resource_id: of its resource; empty for an action without one.
            name: by which later attempts find it; empty for the action's. Unique among the steps of an attempt,
                together with `key`.
            key: which of several of the name, as in a loop.
            returns: the type of the result, as which its JSON is decoded.

        Raises:
            InvalidStep: the attempt had a step of that name and key before, or something about it is not valid.
            ChildFailed: it has failed, or was canceled.
            ChildRefused: there is no such action, or the input does not fit it.
            StepInputChanged: an earlier attempt has begun another child under that name.
        """
        place = caller_place()
        call = ChildCall(
            self._table(),
            [Child(action, input, resource_id)],
            name or action,
            key,
            is_alone=True,
            max_parallel=0,
            fail="first",
            returns=returns,
            place=place,
        )
        return self._outcome(call, "run", name or action, place)

    def run_all(
        self,
        children: Sequence[Child],
        *,
        name: str = "children",
        key: str | int = "",
        max_parallel: int = 0,
        fail: Literal["first", "all"] = "first",
        returns: Any = Any,  # noqa: ANN401 - any type
    ) -> Any:  # noqa: ANN401 - an async handler awaits it, a plain one has the results
        """Run actions as children, and return the list of their results, in order; an async handler awaits it.

        Args:
            children: at most 10,000. A later attempt must name the same ones in the same order.
            name: see `run`.
            key: see `run`.
            max_parallel: how many of them may be open at once; 0 for any number.
            fail: `"first"` raises as soon as one of them has not succeeded, `"all"` once all have ended.
            returns: the type of each result.

        Raises:
            InvalidStep, ChildFailed, ChildRefused, StepInputChanged: as `run`. After `ChildFailed` those that are open
                go on until this operation ends; then they are canceled.
        """
        place = caller_place()
        call = ChildCall(
            self._table(),
            list(children),
            name,
            key,
            is_alone=False,
            max_parallel=max_parallel,
            fail=fail,
            returns=returns,
            place=place,
        )
        return self._outcome(call, "run_all", name, place)

    @abstractmethod
    def _table(self) -> StepTable:
        """Return the steps of the attempt."""

    def _outcome(self, call: ChildCall, method: str, name: str, place: str) -> Any:  # noqa: ANN401
        if is_in_loop():
            what = "child" if method == "run" else "children"
            return self._calls.coroutine(call.run_async, method, what, name, place)
        return call.run()
