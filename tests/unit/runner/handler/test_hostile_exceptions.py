"""Exceptions whose own methods raise, lie or loop: each is the end of an attempt, and a line in the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, NoReturn

import msgspec
import pytest

from opstream_runner import ActionCanceledError, ActionContext, ActionError, RetryAfter, action
from opstream_runner.containment.exceptions import contains_only, log_exception, type_name
from opstream_runner.handler.invocation import (
    UNEXPECTED_ERROR,
    UNSHOWN_ERROR,
    HandlerOutcome,
    Raised,
    Stopped,
    invoke,
    invoke_in_this_thread,
)
from opstream_schemas.events import OperationError

pytestmark = pytest.mark.unit


def refuse(*_: object) -> NoReturn:
    raise RuntimeError("not with me")


def leave(*_: object) -> NoReturn:
    raise SystemExit(0)


class Group(BaseExceptionGroup[BaseException]):
    """A group that can't be split."""

    split: Any = refuse
    derive: Any = refuse
    subgroup: Any = refuse


class LyingGroup(BaseExceptionGroup[BaseException]):
    """A group that says it has no members."""

    exceptions: Any = property(refuse)


class Mute(Exception):
    """It can't be shown."""

    __str__: Any = leave
    __repr__: Any = leave


class Noted(Exception):
    """Its notes raise."""

    __notes__: Any = property(leave)


class Caused(Exception):
    """Its cause raises."""

    __cause__: Any = property(refuse)
    __context__: Any = property(refuse)


class Traceless(Exception):
    """Its traceback raises."""

    __traceback__: Any = property(leave)
    with_traceback: Any = refuse


class Liar(Exception):
    """It claims to be a client's error."""

    __class__: Any = property(lambda _: ActionError)


class Nameless(type):
    __name__: Any = property(refuse)
    __module__: Any = property(refuse)


class Unnamed(Exception, metaclass=Nameless):
    """Its type has no name."""


class Text(str):
    """A text whose methods raise."""

    __slots__ = ()

    __str__: Any = refuse
    encode: Any = refuse
    __len__: Any = refuse


class Tidy(str):
    """A text that shows itself, and whose methods raise."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    encode: Any = refuse


def looped() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def endless(depth: int) -> BaseException:
    error: BaseException = ValueError("at the bottom")
    for _ in range(depth):
        error = BaseExceptionGroup("", [error])
    return error


def meant(**members: object) -> ActionError:
    error = ActionError("Code", "m")
    for name, value in members.items():
        setattr(error, name, value)
    return error


HOSTILE: list[BaseException] = [
    Group("", [ActionCanceledError(), ValueError("inside")]),
    LyingGroup("", [ValueError("inside")]),
    Mute(),
    Noted(),
    Caused(),
    Traceless(),
    Liar(),
    Unnamed(),
    looped(),
    endless(5000),
]


def run_plain(error: BaseException, context: ActionContext) -> HandlerOutcome:
    @action("book:act")
    def handler(request: None, ctx: ActionContext) -> None:
        raise error

    return invoke_in_this_thread(handler, msgspec.Raw(b"null"), context, 1000, contextlib.nullcontext())


def run_async(error: BaseException, context: ActionContext) -> HandlerOutcome:
    @action("book:act")
    async def handler(request: None, ctx: ActionContext) -> None:
        raise error

    return asyncio.run(invoke(handler, msgspec.Raw(b"null"), context, 1000))


both = pytest.mark.parametrize("run", [run_plain, run_async])


@both
@pytest.mark.parametrize("is_canceled", [False, True])
@pytest.mark.parametrize("error", HOSTILE, ids=type_name)
def test_an_attempt_ends(error: BaseException, is_canceled: bool, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an exception does, its attempt has failed, and a line says which operation it was."""
    context = ActionContext(operation_id="op-1", cancel_requested=lambda: is_canceled)
    assert run(error, context) == Raised(UNEXPECTED_ERROR, is_meant=False)
    (record,) = [one for one in caplog.records if "op-1" in one.getMessage()]
    assert (record.levelno, "book:act raised" in record.getMessage()) == (logging.ERROR, True)


@both
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (meant(code=Mute()), OperationError(code=500, message="m")),
        (meant(message=Text("a message")), OperationError(code="Code", message="a message")),
        (meant(message=Mute()), OperationError(code="Code", message=UNSHOWN_ERROR)),
        (meant(target=Mute()), OperationError(code="Code", message="m")),
    ],
)
def test_a_meant_error_stays_one(error: ActionError, outcome: OperationError, run: Any) -> None:
    """Whatever the values of an ActionError do, it is final: the author has decided that nothing is repeated."""
    assert run(error, ActionContext(operation_id="op-1")) == Raised(outcome, is_meant=True)


@both
def test_cancellations_in_a_hostile_group(run: Any) -> None:
    """A group of cancellations is a cancellation, whatever the methods of the group do."""
    for error in (Group("", [ActionCanceledError()]), LyingGroup("", [Group("", [asyncio.CancelledError()])])):
        assert run(error, ActionContext(operation_id="op-1", cancel_requested=lambda: True)) == Stopped()


@both
def test_a_text_with_methods_of_its_own(run: Any) -> None:
    """What a client reads is a real text."""
    outcome = run(ActionError(Tidy("Code"), Tidy("m"), target=Tidy("t")), ActionContext(operation_id="op-1"))
    assert outcome == Raised(OperationError(code="Code", message="m", target="t"), is_meant=True)
    assert isinstance(outcome, Raised)
    assert [type(one) for one in (outcome.error.code, outcome.error.message, outcome.error.target)] == [str] * 3
    assert type(run(RetryAfter(1, Tidy("m")), ActionContext(operation_id="op-1")).error.message) is str


def test_a_group_is_split_without_its_methods() -> None:
    """What a group contains is found at any depth."""
    stops = (asyncio.CancelledError, ActionCanceledError)
    assert contains_only(ActionCanceledError(), stops)
    assert contains_only(BaseExceptionGroup("", [ActionCanceledError(), asyncio.CancelledError()]), stops)
    assert not contains_only(BaseExceptionGroup("", [ActionCanceledError(), KeyError()]), stops)
    assert not contains_only(endless(10_000), stops)


def test_a_line_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A traceback that can't be shown is left out, and the line says so."""
    log_exception(logging.getLogger("opstream_runner"), Noted(), "op-%s failed", 1)
    (record,) = caplog.records
    assert record.getMessage() == "op-1 failed; its traceback can't be shown: SystemExit"
    assert record.exc_info is None
