"""Upcasts: what an author writes so that a new version of an action runs what was requested for an earlier one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from opstream_runner.errors import InvalidAction, UnreadableInput
from opstream_schemas.names import Kind

logger = logging.getLogger(__name__)

Upcast = Callable[[Any, int], Any]
"""Takes an input as decoded JSON, and the version that it was made for; returns it as the action's version has it."""


def check_upcast(kind: Kind, version: int, upcast: object) -> None:
    """Check the option `upcast` of an action.

    Raises:
        InvalidAction: it can't be called with an input and a version, or there is no earlier version.
    """
    if upcast is None:
        return
    if not callable(upcast) or inspect.iscoroutinefunction(upcast):
        raise InvalidAction(f"action {kind}: upcast must be a plain function (input, version) -> input")
    try:
        inspect.signature(upcast).bind({}, 1)
    except (TypeError, ValueError) as error:
        raise InvalidAction(f"action {kind}: upcast must take an input and a version: {error}") from error
    if version == 1:
        raise InvalidAction(f"action {kind}: upcast is for inputs of earlier versions, so version must be 2 or higher")


def upcasted(kind: Kind, upcast: Upcast, document: msgspec.Raw, version: int, *, is_secret: bool = False) -> bytes:
    """Return an input of an earlier version as JSON of the action's version.

    Args:
        kind: the action, for the log.
        upcast: the author's function.
        document: the input as it was requested.
        version: which it was requested for.
        is_secret: keep what the author's function raises out of the log.

    Raises:
        UnreadableInput: the author's function raised, or returned what has no JSON. A `ValueError` is its way to refuse
            an input, and its text is for the client; any other exception is a mistake, and in the log.
    """
    try:
        return msgspec.json.encode(upcast(msgspec.json.decode(document), version))
    except ValueError as error:
        raise UnreadableInput(f"its upcast refused it: {error}") from None
    except Exception as error:
        name = type.__dict__["__name__"].__get__(type(error))
        if is_secret:
            logger.error("the upcast of %s from version %d raised %s", kind, version, name)  # noqa: TRY400
        else:
            logger.exception("the upcast of %s from version %d failed", kind, version)
        raise UnreadableInput(f"its upcast raised {name}; the runner's log has the details") from error
