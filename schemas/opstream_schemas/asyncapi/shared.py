"""How parts of the AsyncAPI document refer to each other. Used by the other modules of this package."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

SCHEMAS: Final = "#/components/schemas/"


def ref(*steps: str) -> Json:
    """A reference to a part of the document, by its steps from the root; none of ours needs escaping."""
    return {"$ref": "#/" + "/".join(steps)}


def component(kind: str, name: str) -> Json:
    """A reference to a component of a kind (`messages`, `schemas`, …)."""
    return ref("components", kind, name)


def sentence(docstring: str | None) -> str:
    """The first line of a docstring."""
    return (docstring or "").partition("\n")[0]
