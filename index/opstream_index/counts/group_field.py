"""By what operations are counted: the fields of `by`, and the columns that their values are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from opstream_index.filters.errors import FilterRefused, shown
from opstream_index.filters.fields import LABEL, LABEL_KEY

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "status": ("status",),
        "kind": ("resource", "action"),
        "error/code": ("code",),
        "caller": ("caller",),
        "resourceId": ("resource_id",),
    }
)
GROUP_FIELDS: Final = (*_COLUMNS, "label/KEY")
"""The fields, as a message shows them."""

DEFAULT_TOP: Final = 100
"""Groups that are sent if the request does not say how many."""
MAX_TOP: Final = 1_000
"""Groups that are sent, at most."""

_TOP: Final = re.compile(r"[0-9]{1,9}")


class GroupField(msgspec.Struct, frozen=True):
    """A field by whose values operations are counted."""

    field: str
    columns: tuple[str, ...]
    """Empty for a label."""
    label: str = ""
    """Its key."""

    def key(self, values: tuple[str | None, ...]) -> str | None:
        """Return the value that stands for a group; None for the operations without one."""
        return None if None in values else ":".join(str(value) for value in values)


def parse_top(text: str) -> int:
    """Return how many groups may be sent. More than `MAX_TOP` is as many.

    Raises:
        FilterRefused: it is no whole number from 1.
    """
    if _TOP.fullmatch(text) is None or int(text) < 1:
        raise FilterRefused(f"it must be a whole number from 1 to {MAX_TOP}", parameter="top")
    return min(int(text), MAX_TOP)


def parse_group_field(text: str) -> GroupField:
    """Return the field that `by` names.

    Raises:
        FilterRefused: it is none of `GROUP_FIELDS`.
    """
    if text in _COLUMNS:
        return GroupField(text, _COLUMNS[text])
    name, _, label = text.partition("/")
    if name == LABEL and LABEL_KEY.fullmatch(label) is not None:
        return GroupField(text, (), label)
    raise FilterRefused(
        f"operations can't be counted by {shown(text)}, only by one of {', '.join(GROUP_FIELDS)}", parameter="by"
    )
