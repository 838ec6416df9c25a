"""Which types have values that can be items of a set.

msgspec makes a set of any type. Without this check the first item that has no hash fails when the runner decodes it,
long after the API has accepted the request.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import msgspec
from msgspec import inspect as types

_INSTEAD: Final[dict[type[types.Type], str]] = {
    types.ListType: "a list can't be hashed: write tuple[…, ...]",
    types.SetType: "a set can't be hashed: write frozenset[…]",
    types.DictType: "a dict can't be hashed: write a list of them, or a frozen Struct",
    types.TypedDictType: "a TypedDict can't be hashed: write a list of them, or a frozen Struct",
    types.ByteArrayType: "a bytearray can't be hashed: write bytes",
    types.RawType: "a msgspec.Raw can't be hashed: write a list of them",
}
_STRUCT_HASH: Final[Any] = msgspec.Struct.__hash__


def unhashable_part(kind: types.Type) -> str:
    """Return what of a type can never be hashed, and what to write; empty if it can be."""
    return _search(kind, set())


def _search(kind: types.Type, seen: set[type]) -> str:
    while isinstance(kind, types.Metadata):
        kind = kind.type
    if type(kind) in _INSTEAD:
        return _INSTEAD[type(kind)]
    match kind:
        case types.UnionType():
            return _first(kind.types, seen)
        case types.TupleType():
            return _first(kind.item_types, seen)
        case types.CollectionType():
            return _search(kind.item_type, seen)
        case types.StructType() | types.DataclassType() | types.NamedTupleType() if kind.cls not in seen:
            seen.add(kind.cls)
            return _search_class(kind, seen)
    return ""


def _first(kinds: tuple[types.Type, ...], seen: set[type]) -> str:
    return next((found for one in kinds if (found := _search(one, seen))), "")


def _search_class(kind: Any, seen: set[type]) -> str:  # noqa: ANN401 - one of three classes without a common base
    cls = kind.cls
    its_hash = cls.__hash__
    is_struct = its_hash is _STRUCT_HASH
    if its_hash is None or (is_struct and cls.__struct_config__.eq and not cls.__struct_config__.frozen):
        return f"{cls.__name__} can't be hashed: declare it with frozen=True"
    if its_hash is object.__hash__ or (is_struct and not cls.__struct_config__.eq) or _is_written(its_hash):
        return ""  # not made from the members
    unhashed = _unhashed(cls)
    for field in kind.fields:
        if field.name not in unhashed and (found := _search(field.type, seen)):
            return f"its member {cls.__name__}.{field.name}: {found}"
    return ""


def _is_written(its_hash: Any) -> bool:  # noqa: ANN401
    """Return True if an author wrote a hash; dataclasses and attrs generate theirs, in files without a path."""
    code = getattr(its_hash, "__code__", None)
    return code is not None and not (code.co_filename == "<string>" or code.co_filename.startswith("<attrs"))


def _unhashed(cls: Any) -> set[str]:  # noqa: ANN401
    """Return the members that a generated hash leaves out."""
    if dataclasses.is_dataclass(cls):
        return {one.name for one in dataclasses.fields(cls) if not (one.compare if one.hash is None else one.hash)}
    attributes = getattr(cls, "__attrs_attrs__", ())
    return {one.name for one in attributes if not (one.eq if one.hash is None else one.hash)}
