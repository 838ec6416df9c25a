"""What can be said about an exception whose own methods may raise, lie or loop.

An author's exception may define anything: `__str__`, `split`, `__class__`, `__cause__`. Whatever it does, the attempt
needs an outcome and the log a line. So nothing here calls a method of an exception without a guard.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, TypeGuard, TypeVar

from .log_guard import restore_logs

_E = TypeVar("_E", bound=BaseException)

_group_members: Final[Any] = BaseExceptionGroup.__dict__["exceptions"].__get__
_name_of_type: Final[Any] = type.__dict__["__name__"].__get__


def type_name(error: BaseException) -> str:
    """Return the name of an exception's real type."""
    return str(_name_of_type(type(error)))


def is_kind(error: BaseException, kind: type[_E]) -> TypeGuard[_E]:
    """Return True if an exception really is of a type; `isinstance` would believe its `__class__`."""
    return issubclass(type(error), kind)


def contains_only(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Return True if an exception is of one of these types, or is a group of nothing else at any depth.

    This is `split` without a call of `split`, which a class may replace.
    """
    return all(issubclass(type(one), kinds) for one in _leaves(error))


def first_of_kind(error: BaseException, kind: type[_E], *, or_else: tuple[type[BaseException], ...]) -> _E | None:
    """Return the first exception of a type in an error, if all in its group are of that type or of `or_else`.

    None for any other error, so that one that was not expected is not passed over.
    """
    leaves = list(_leaves(error))
    if not all(issubclass(type(one), (kind, *or_else)) for one in leaves):
        return None
    return next((one for one in leaves if is_kind(one, kind)), None)


def sole_exception(error: BaseException) -> BaseException:
    """Return the only exception in a group, at any depth; the error itself if it is no group, or one of several."""
    first_two = list(islice(_leaves(error), 2))
    return first_two[0] if len(first_two) == 1 else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if is_kind(one, BaseExceptionGroup):
            waiting.extend(_group_members(one))
        else:
            yield one


def log_exception(
    logger: logging.Logger, error: BaseException, text: str, *values: object, is_secret: bool = False
) -> None:
    """Log an error with the traceback of an exception, or without one if the exception can't be shown.

    Args:
        logger: of the caller.
        error: the exception.
        text: of the line.
        values: of the text.
        is_secret: leave out what the exception says, since it may quote what a confidential operation is about. The
            traceback has the lines of the code, and no values.
    """
    restore_logs()
    try:
        if is_secret:
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error(text + "; what it says is left out\n%s", *values, where.rstrip())  # noqa: G003
            return
        shown = (type(error), error, error.__traceback__)
        # Once more than needed, because a formatter that fails would leave no line of ours.
        traceback.format_exception(*shown)
        logger.error(text, *values, exc_info=shown)
    except BaseException as worse:  # noqa: BLE001 - a `__str__` may raise an exit
        logger.error(text + "; its traceback can't be shown: %s", *values, type_name(worse))  # noqa: TRY400, G003
