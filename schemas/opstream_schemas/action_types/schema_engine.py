"""The JSON Schema engine of the API: the same for inputs at the API and for schemas at `@action`.

jsonschema-rs takes a while to load, so this module is imported only where a schema is compiled.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import jsonschema_rs

from .portable_pattern import UnportablePattern, portable_pattern
from .schema_nodes import Schema, map_schema
from .type_decoder import DECODED_FORMATS

logger = logging.getLogger(__name__)

_LEFT_TO_DECODER: Final = DECODED_FORMATS - {"uuid"}
"""The decoder also takes a UUID without hyphens, which is none to other readers of the format (RFC 9562, 4)."""
MASK: Final = "the value"
"""Replaces the invalid value in messages, since it may be large or secret."""
BACKTRACK_LIMIT: Final = 10_000
"""Steps back that one pattern may take in one text: 0.2 ms. Only look-around and back-references need any."""


def compile_schema(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    """Compile a schema. It fetches nothing that the schema refers to, and bounds the work of a pattern.

    Raises:
        ValueError: the schema is not valid.
    """
    return jsonschema_rs.Draft202012Validator(
        schema,
        validate_formats=True,
        mask=MASK,
        offline=True,
        pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT),
    )


def is_pattern(pattern: str) -> bool:
    """Return True if the engine can compile a pattern."""
    try:
        compile_schema({"pattern": pattern})
    except ValueError:
        return False
    return True


def validated_part(schema: Schema) -> Schema:
    """Return what is left of a schema for the engine beside a decoder (`type_decoder`), which checks the rest exactly.

    Left out are multiples of floats, lengths of base64, and formats that the decoder checks as other readers do. The
    engine would judge them otherwise, so it would refuse what the runner takes.
    """
    return map_schema(schema, _reduced)


def with_known_patterns(schema: Schema) -> Schema:
    """Return a schema with its patterns in the engine's words, and without those that have none.

    Runners of 0.2.0 announce any pattern that Python takes.
    """
    return map_schema(schema, _translated)


def _reduced(node: Schema) -> Schema:
    dropped: set[str] = set()
    if node.get("format") in _LEFT_TO_DECODER:
        dropped |= {"format"}
    if node.get("type") == "number":
        dropped |= {"multipleOf"}
    if node.get("contentEncoding") == "base64" or node.get("format") == "base64":
        dropped |= {"minLength", "maxLength"}
    return {key: value for key, value in node.items() if key not in dropped} if dropped else node


def _translated(node: Schema) -> Schema:
    pattern: Any = node.get("pattern")
    if not isinstance(pattern, str) or is_pattern(pattern):
        return node
    try:
        written = portable_pattern(pattern)
    except UnportablePattern:
        written = ""
    if written and is_pattern(written):
        return {**node, "pattern": written}
    logger.warning("the pattern %r is left to the runner: this engine can't compile it", pattern)
    return {key: value for key, value in node.items() if key != "pattern"}
