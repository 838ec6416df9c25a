"""Values of `format` and keywords of our own in an announced schema. Other readers take them for annotations.

JSON Schema has no words for some of what a handler's type says: a time without an offset, the type of a mapping's keys,
the length of bytes behind their base64. Formats that msgspec announces itself are not repeated here.
"""

from __future__ import annotations

from typing import Final

DATE_TIME_LOCAL: Final = "date-time-local"
"""A date and time without an offset, named as in the registry of OpenAPI formats."""
DATE_TIME_ANY: Final = "date-time-optional-offset"
"""A date and time with or without an offset."""
TIME_LOCAL: Final = "partial-time"
"""A time without an offset: msgspec's name for it."""
TIME_ANY: Final = "time-optional-offset"
"""A time with or without an offset."""
DURATION: Final = "duration-of-days-and-time"
"""A duration in days, hours, minutes and seconds, with a sign and a fraction, neither of which RFC 3339's has."""
INTEGER_KEY: Final = "integer"
"""Of a property's name: a whole number as text."""
NUMBER_KEY: Final = "number"
"""Of a property's name: a number as text."""
BASE64_KEY: Final = "base64"
"""Of a property's name: bytes as base64."""

MIN_BYTES: Final = "x-opstream-min-bytes"
"""The least length of what base64 text holds, in bytes."""
MAX_BYTES: Final = "x-opstream-max-bytes"
"""The greatest length of what base64 text holds, in bytes."""

DECIMAL_PATTERN: Final = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""A finite decimal number. `decimal.Decimal` also takes NaN, infinity, underscores and digits of other scripts."""
DURATION_PATTERN: Final = (
    r"^[+-]?[Pp]([0-9]+(\.[0-9]+)?[Dd]|([0-9]+[Dd])?[Tt]([0-9]+(\.[0-9]+)?[Hh]|([0-9]+[Hh])?"
    r"([0-9]+(\.[0-9]+)?[Mm]|([0-9]+[Mm])?[0-9]+(\.[0-9]+)?[Ss])))$"
)
"""Only the last number may have a fraction."""
INTEGER_PATTERN: Final = r"^-?(0|[1-9][0-9]*)$"
NUMBER_PATTERN: Final = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
"""A number as JSON writes it."""
