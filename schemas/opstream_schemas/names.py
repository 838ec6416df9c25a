"""The grammar of the names in URLs and subjects. No other module decides which characters a name may have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final, Self

import msgspec

from .errors import InvalidName

ALWAYS_RESERVED: Final = frozenset({"status", "docs", "openapi.json", "asyncapi.json", "healthz", "readyz", "metrics"})
"""Resources that no version has ever offered, so stored data that names one is damaged."""
RESERVED_RESOURCES: Final = ALWAYS_RESERVED | {"schedules", "runners", "console", "mcp", "operations"}
"""First path segments that opstream serves, or will serve, itself (docs/contract.md, Paths).

No action can have one of these as its resource. `.well-known` needs no entry: a name has no `.`, so no path below
`/.well-known/` can be an action's.
"""

OPERATION_ID_PATTERN: Final = "[A-Za-z0-9_-]{1,64}"
"""Regular expression of an operation id, without anchors, valid in every dialect."""
SIGNAL_NAME_PATTERN: Final = "[A-Za-z0-9_-]{1,64}"
"""Regular expression of the name of a signal, likewise."""
NAME_PATTERN: Final = "[a-z0-9-]{1,40}"
"""Regular expression of the name of a resource or an action, likewise."""

LABEL_KEY_PATTERN: Final = "[a-z][a-z0-9_./-]{0,62}"
"""Regular expression of the key of a label, likewise."""
LABEL_VALUE_PATTERN: Final = r"[!-+\x2d-~](?:[ -+\x2d-~]{0,126}[!-+\x2d-~])?"
"""Regular expression of its value, likewise: printable ASCII without a comma, and no space at either end."""
MAX_LABELS: Final = 16
"""Labels that an operation may have."""

_LABEL_REGEX: Final = re.compile(f"({LABEL_KEY_PATTERN})=({LABEL_VALUE_PATTERN})")
_OPERATION_ID_REGEX: Final = re.compile(OPERATION_ID_PATTERN)
_SIGNAL_NAME_REGEX: Final = re.compile(SIGNAL_NAME_PATTERN)
_NO_SIGNALS: Final = frozenset({"events"})
"""Below a status this is the path of its history."""
_NAME_REGEX: Final = re.compile(NAME_PATTERN)
_DURABLE_REGEX: Final = re.compile("[A-Za-z0-9-]{1,64}")
_RESOURCE_ID_MAX: Final = 256
_FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control and format characters, which break lines or turn the direction of a text, and of
surrogates, which UTF-8 can't encode."""
_ALLOWED_JOINERS: Final = frozenset("\u200c\u200d")
"""Format characters that are allowed: many scripts and emoji need them."""


def check_operation_id(value: str) -> str:
    """Return `value` if it is an operation id (`[A-Za-z0-9_-]{1,64}`).

    Raises:
        InvalidName: it is not one.
    """
    if _OPERATION_ID_REGEX.fullmatch(value) is None:
        raise InvalidName(f"operation id {_quoted(value)} must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'")
    return value


def check_signal_name(value: str) -> str:
    """Return `value` if it is the name of a signal (`[A-Za-z0-9_-]{1,64}`, but not `events`).

    Raises:
        InvalidName: it is not one.
    """
    if _SIGNAL_NAME_REGEX.fullmatch(value) is None or value in _NO_SIGNALS:
        raise InvalidName(
            f"the name of a signal {_quoted(value)} must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-', "
            "and not 'events'"
        )
    return value


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return the labels in texts of the form `key=value`, or several of them with commas between.

    Raises:
        InvalidName: one is malformed, a key is there twice, or there are too many.
    """
    found: dict[str, str] = {}
    for text in texts:
        for item in (part.strip(" ") for part in text.split(",")):
            label = _LABEL_REGEX.fullmatch(item)
            if label is None:
                raise InvalidName(
                    f"label {_quoted(item)} must be key=value: a key of 1 to 63 characters of a-z, 0-9, '-', "
                    "'_', '.' and '/' that begins with a letter, and a value of 1 to 128 printable ASCII characters "
                    "without ','"
                )
            if label[1] in found:
                raise InvalidName(f"the label {label[1]!r} is there twice: an operation has one value for each key")
            found[label[1]] = label[2]
    if len(found) > MAX_LABELS:
        raise InvalidName(f"there are {len(found)} labels: an operation can have {MAX_LABELS}")
    return found


def check_name(value: str, what: str) -> str:
    """Return `value` if it is the name of a resource or an action (`[a-z0-9-]{1,40}`).

    Args:
        value: the name.
        what: the kind of name, for the message of the error.

    Raises:
        InvalidName: it is not one.
    """
    if _NAME_REGEX.fullmatch(value) is None:
        raise InvalidName(f"{what} name {_quoted(value)} must be 1 to 40 characters of a-z, 0-9 and '-'")
    return value


def check_durable_name(value: str) -> str:
    """Return `value` if it is a name for a subscriber's durable consumer (`[A-Za-z0-9-]{1,64}`).

    Raises:
        InvalidName: it is not one.
    """
    if _DURABLE_REGEX.fullmatch(value) is None:
        raise InvalidName(f"durable {_quoted(value)} must be 1 to 64 characters of A-Z, a-z, 0-9 and '-'")
    return value


def check_resource_id(value: str) -> str:
    """Return `value` if it is a resource's own id: 1 to 256 characters without `/`, control and format
    characters, and not `.` or `..` (docs/contract.md, Paths).

    Raises:
        InvalidName: it is not one.
    """
    if not value:
        raise InvalidName("resource id is empty: write resource/ID:action, or resource:action without an id")
    if len(value) > _RESOURCE_ID_MAX:
        raise InvalidName(f"resource id must have 1 to {_RESOURCE_ID_MAX} characters, not {len(value)}")
    if value in {".", ".."} or "/" in value or not all(map(_is_printable, value)):
        raise InvalidName(
            f"resource id {_quoted(value)} must have no '/', no control or format character (such as U+200B), and not "
            "be '.' or '..'"
        )
    return value


class Kind(msgspec.Struct, frozen=True, order=True):
    """The kind of an operation: its resource and action, written `book:upload-start`."""

    resource: str
    action: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `resource:action` as stored data has it.

        A word that was reserved later passes: a runner of an earlier version may have offered such an action, and what
        is recorded of it must stay readable. Use `parse_routable` where an action is offered or submitted to.

        Raises:
            InvalidName: the text has another form, or the resource is one of `ALWAYS_RESERVED`.
        """
        resource, action = _split(text)
        if resource in ALWAYS_RESERVED:
            raise _reserved(resource)
        return cls(check_name(resource, "resource"), check_name(action, "action"))

    @classmethod
    def parse_routable(cls, text: str) -> Self:
        """Parse `resource:action` of an action that has a path of its own, so the resource must not be reserved.

        Raises:
            InvalidName: the text has another form, or the resource is one of `RESERVED_RESOURCES`.
        """
        resource, _ = _split(text)
        if resource in RESERVED_RESOURCES:
            raise _reserved(resource)
        return cls.parse(text)

    def __str__(self) -> str:
        return f"{self.resource}:{self.action}"


def _split(text: str) -> tuple[str, str]:
    resource, colon, action = text.rpartition(":")
    if not colon:
        raise InvalidName(f"action {_quoted(text)} must be written 'resource:action', e.g. 'book:upload-start'")
    return resource, action


def _reserved(resource: str) -> InvalidName:
    words = ", ".join(sorted(RESERVED_RESOURCES))
    return InvalidName(
        f"resource name {_quoted(resource)} is reserved: opstream keeps the paths {words} and .well-known for itself; "
        "choose another name"
    )


def _is_printable(char: str) -> bool:
    return unicodedata.category(char) not in _FORBIDDEN_CATEGORIES or char in _ALLOWED_JOINERS


def _quoted(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:77] + "...")
