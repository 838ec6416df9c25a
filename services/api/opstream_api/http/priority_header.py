"""`Operation-Priority`: which priority a submit asks for, and which one its operation gets (docs/adr/0072). Pure."""

from __future__ import annotations

from typing import Final

from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import Priority, check_priority, is_within

from .requests import Headers, single_value

PRIORITY_HEADER: Final = "Operation-Priority"
_NAME: Final = PRIORITY_HEADER.lower().encode()


def parse_priority(headers: Headers) -> Priority | None:
    """Return the priority that a submit asks for; None without the header.

    Raises:
        ApiError: `InvalidHeader`: it is repeated, or names no priority.
    """
    if _NAME not in headers:
        return None
    try:
        return check_priority(single_value(headers, PRIORITY_HEADER) or "")
    except InvalidName as error:
        raise ApiError(ErrorCode.INVALID_HEADER, f"{PRIORITY_HEADER}: {error}", target=PRIORITY_HEADER) from error


def check_allowed(asked: Priority | None, most: Priority | None) -> None:
    """Check that a caller may have the priority that it asks for.

    Args:
        asked: by the header; None without it.
        most: the highest that the caller's key allows; None for any.

    Raises:
        ApiError: `Forbidden`.
    """
    if asked is not None and most is not None and not is_within(asked, most):
        message = (
            f"this key allows {PRIORITY_HEADER}: {most} at most, not {asked}: the service's operator can change it"
        )
        raise ApiError(ErrorCode.FORBIDDEN, message, target=PRIORITY_HEADER)


def chosen_priority(
    kind: Kind, default: str, *, asked: Priority | None, earlier: str = "", most: Priority | None = None
) -> str:
    """Return the priority of a new operation; empty for one of an action without priorities.

    Args:
        kind: the action.
        default: that of the action; empty if it has no priorities.
        asked: by the header; None without it.
        earlier: of the operation that this one does again, or of its parent; empty for none.
        most: the highest that the caller's key allows; None for any. It lowers what the caller has not asked for.

    Raises:
        ApiError: `InvalidHeader`: the header is there, and the action has no priorities.
    """
    if not default:
        if asked is None:
            return ""
        message = f"{kind} has no priorities: leave the header out, or let its author give it some"
        raise ApiError(ErrorCode.INVALID_HEADER, message, target=PRIORITY_HEADER)
    if asked is not None:
        return asked
    known = {str(one) for one in Priority}
    wanted = Priority(next(one for one in (earlier, default, Priority.NORMAL) if one in known))
    return wanted if most is None or is_within(wanted, most) else most
