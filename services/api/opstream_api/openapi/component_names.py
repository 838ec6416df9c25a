"""Names of the components of types: short, and unique also for code generators (ADR 0035). Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_NOT_IN_CLASSES: Final = re.compile(r"[^a-z0-9]")
_DIGEST_LENGTH: Final = 12
"""Hex digits in the name of a type that nothing else tells from another one."""


class UsedType(msgspec.Struct, frozen=True):
    """A type in the schema of an action."""

    digest: str
    """Equal for equal types."""
    title: str
    """The class's name, e.g. `Page[int]`."""
    action: str
    """`resource.action`."""
    role: str
    """`input` or `result`."""
    key: str
    """The type's key in the schema's `$defs`: with its module if the schema has two types of one title."""


def component_names(used: Iterable[UsedType], reserved: Collection[str] = ()) -> dict[str, str]:
    """Return a name for each type, by its digest.

    It is the type's title, unless another type has it, too. Then each of them gets the name of an action that uses it
    in front: that of the first, if several do. So the name depends neither on the order of the actions, nor on actions
    that have nothing to do with types of this title.

    Args:
        used: the types, one entry for each schema that has it.
        reserved: names that no type gets.
    """
    users: dict[str, list[UsedType]] = {}
    for one in sorted(used, key=lambda one: (one.action, one.role, one.key)):
        users.setdefault(one.digest, []).append(one)
    candidates = {digest: _candidates(those) for digest, those in users.items()}
    # A candidate that another type has, too, is given to neither. So no type depends on which one is named first.
    taken = Counter(name for names in candidates.values() for name in {_class_name(one) for one in names})
    taken.update({_class_name(name) for name in reserved})
    return {
        digest: next((name for name in names if taken[_class_name(name)] == 1), _last_resort(users[digest][0]))
        for digest, names in candidates.items()
    }


def component_key(text: str) -> str:
    """Return a text with only characters that names of components may have."""
    return _NOT_IN_NAMES.sub("_", text)


def _candidates(uses: list[UsedType]) -> list[str]:
    title = component_key(uses[0].title).replace(".", "_")
    return [
        title,
        *(f"{one.action}.{title}" for one in uses),
        *(f"{one.action}.{one.role}.{title}" for one in uses),
        *(f"{one.action}.{one.role}.{component_key(one.key)}" for one in uses),
    ]


def _last_resort(one: UsedType) -> str:
    return f"{component_key(one.title)}.{one.digest[:_DIGEST_LENGTH]}"


def _class_name(name: str) -> str:
    """Return what is left of a name in a generated class: generators drop punctuation, and capitalize the rest."""
    return _NOT_IN_CLASSES.sub("", name.lower()) or name
