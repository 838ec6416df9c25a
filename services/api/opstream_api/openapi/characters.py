"""The grammar of a resource's own id as a regular expression that JSON Schema validators of any language know.

The rule itself is `opstream_schemas.names.check_resource_id`; a test compares the two. Used by `shared.py`.
"""

from __future__ import annotations

from typing import Final

_REFUSED: Final = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    # Beyond the first plane escapes differ between dialects, so these are the characters themselves.
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
"""Control and format characters and separators of lines, the joiners U+200C and U+200D aside."""
_CHARACTER: Final = f"[^/{_REFUSED}]"
_NO_DOT: Final = f"[^./{_REFUSED}]"

RESOURCE_ID: Final = rf"^(?:{_NO_DOT}{_CHARACTER}*|\.{_NO_DOT}{_CHARACTER}*|\.\.{_CHARACTER}+)$"
"""Neither `.` nor `..`, spelled without look-ahead, which not every validator knows."""
