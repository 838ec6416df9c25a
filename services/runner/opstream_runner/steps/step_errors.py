"""What `ActionContext.step` raises besides the errors of the step's own function. All of them end the operation.

A further attempt would come to the same point and raise the same, so there is none.
"""

from __future__ import annotations

from opstream_runner.errors import ActionError, RunnerError
from opstream_schemas.errors import ErrorCode


class InvalidStep(ActionError):
    """The action uses a step wrongly: a name twice, arguments without JSON, a result that is not of its type.

    Args:
        why: for the author; the client reads only that it is so, since places in the code are not for it.
    """

    def __init__(self, why: str) -> None:
        super().__init__(ErrorCode.INVALID_STEP, "the action uses a step wrongly; the runner's log has the details")
        self.why = why

    def __str__(self) -> str:
        """Return what the author has to mend."""
        return self.why


class StepInputChanged(ActionError):
    """The step was recorded with other arguments, and `on_changed` is `"fail"`."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.STEP_INPUT_CHANGED, message)


class StepInterrupted(ActionError):
    """A step with `at_most_once=True` has begun in an earlier attempt, and what became of it is not known."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.STEP_INTERRUPTED, message)


class StepResultTooLarge(ActionError):
    """The result of a step has more bytes of JSON than a result may have."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.STEP_RESULT_TOO_LARGE, message)


class StepUnreadable(RunnerError):
    """The recorded result of a step is a payload, and its store has other bytes, or none. The attempt fails.

    The step does not run again, since its effect is there. Another attempt finds what an operator has restored.
    """


class StepNotRecorded(RunnerError):
    """The broker refused what a step has returned. The attempt fails, and another one runs the step again."""
