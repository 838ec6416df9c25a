"""The fields of a list: what a filter may compare, with which operators, and what an order and a selection may name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec

from .syntax import Operator

LABEL: Final = "label"
LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_./-]{0,62}")
STATUSES: Final = ("NotStarted", "Running", "Succeeded", "Failed", "Canceled")


class FieldType(Enum):
    """What the values of a field are."""

    TEXT = "a text: 'Failed'"
    KIND = "RESOURCE:ACTION in quotes: 'book:upload-start'"
    STATUS = "one of " + ", ".join(f"'{status}'" for status in STATUSES)
    CODE = "a code, a text or a number: 'Timeout', 503"
    MESSAGE = "a text of at least 3 characters: 'disk full'"
    NUMBER = "a whole number: 3"
    TIME = "a time with a time zone: 2026-11-30T08:00:00Z"


class ListField(msgspec.Struct, frozen=True):
    """One field."""

    type: FieldType
    column: str
    """Its column in the index; for a kind and a label a name that the SQL knows."""
    operators: frozenset[Operator]
    is_indexed: bool = False
    """True if `eq` or `in` of it, and for a time any comparison, finds rows without a walk over all."""
    may_miss: bool = False
    """True if a row may lack it, so that `null` compares."""


_SAME: Final = frozenset({Operator.EQ, Operator.NE, Operator.IN})
_ORDERED: Final = frozenset({*_SAME, Operator.GT, Operator.GE, Operator.LT, Operator.LE})
_MESSAGE: Final = ListField(
    FieldType.MESSAGE, "message", frozenset({Operator.CONTAINS}), is_indexed=True, may_miss=True
)

FIELDS: Final[Mapping[str, ListField]] = MappingProxyType(
    {
        "id": ListField(FieldType.TEXT, "own_id", _SAME),
        "kind": ListField(FieldType.KIND, "kind", _SAME, is_indexed=True),
        "resourceId": ListField(FieldType.TEXT, "resource_id", _SAME, is_indexed=True, may_miss=True),
        "status": ListField(FieldType.STATUS, "status", _SAME, is_indexed=True),
        "createdAt": ListField(FieldType.TIME, "created_at", _ORDERED, is_indexed=True),
        "startAt": ListField(FieldType.TIME, "start_at", _ORDERED, may_miss=True),
        "startedAt": ListField(FieldType.TIME, "started_at", _ORDERED, may_miss=True),
        "finishedAt": ListField(FieldType.TIME, "finished_at", _ORDERED, is_indexed=True, may_miss=True),
        "attempt": ListField(FieldType.NUMBER, "attempt", _ORDERED),
        "version": ListField(FieldType.NUMBER, "version", _ORDERED),
        "caller": ListField(FieldType.TEXT, "caller", _SAME, is_indexed=True, may_miss=True),
        "error/code": ListField(FieldType.CODE, "code", _SAME, is_indexed=True, may_miss=True),
        "error/message": _MESSAGE,
        "message": _MESSAGE,
        "retryOf": ListField(FieldType.TEXT, "retry_of", _SAME, may_miss=True),
        "parent": ListField(FieldType.TEXT, "parent", _SAME, may_miss=True),
        LABEL: ListField(FieldType.TEXT, LABEL, _SAME, is_indexed=True, may_miss=True),
    }
)
"""By name. `message` is short for `error/message`; of a label, the name goes on with `/` and its key."""

FIELD_NAMES: Final = tuple("label/KEY" if name == LABEL else name for name in FIELDS)
"""As a message shows them."""

INDEXED_NAMES: Final = tuple(
    "label/KEY" if name == LABEL else name for name, field in FIELDS.items() if field.is_indexed and name != "message"
)

ORDERS: Final[Mapping[str, str]] = MappingProxyType({"createdAt": "created_at", "finishedAt": "finished_at"})
"""Columns of the fields by which a list may be ordered."""

MEMBERS: Final = (
    "id",
    "status",
    "error",
    "kind",
    "resourceId",
    "createdAt",
    "startAt",
    "startedAt",
    "finishedAt",
    "attempt",
    "version",
    "caller",
    "labels",
    "retryOf",
    "parent",
)
"""Members of an item of a list, in the order in which they are sent; what `select` may name."""
