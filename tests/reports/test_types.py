"""Reports about types and schemas: what a validator takes and a decoder does not, and the other way round."""

from __future__ import annotations

from typing import Final

from tests.support.reports.report import Report, report

_PATTERNS: Final = "unit/schemas/action_types/test_portable_pattern.py"
_TYPES: Final = "unit/system/test_supported_types.py"
_INVOCATION: Final = "unit/runner/handler/test_invocation_results.py"

REPORTS: Final[list[Report]] = [
    report(
        "python-jsonschema/jsonschema/issues/1386",
        "60.0 is an integer for JSON Schema, and a float for Python",
        f"{_TYPES}::test_api_and_runner_take_the_same",
    ),
    report(
        "python-jsonschema/jsonschema/issues/185",
        "92.6 was no multiple of 0.1",
        f"{_TYPES}::test_api_and_runner_take_the_same",
    ),
    report(
        "python-jsonschema/jsonschema/issues/607",
        "patterns of JSON Schema are those of JavaScript, and were read as Python's",
        f"{_PATTERNS}::test_any_pattern_is_read_alike_or_refused",
    ),
    report(
        "pydantic/pydantic/issues/12249",
        "a pattern with Python's anchors was published in a schema that JavaScript can't read",
        f"{_PATTERNS}::test_a_pattern_is_written_in_words_of_all_engines",
    ),
    report(
        "pydantic/pydantic/issues/13017",
        "a schema had a pattern that the engine of the same library can't compile",
        f"{_PATTERNS}::test_the_engine_takes_only_what_python_takes",
    ),
    report(
        "json-schema-org/JSON-Schema-Test-Suite/pull/979",
        "a duration with a sign is valid for some validators and invalid for others",
        f"{_TYPES}::test_api_and_runner_take_the_same",
    ),
    report(
        "msgspec/msgspec/issues/826",
        "NaN became null as a float, and invalid JSON as a Decimal",
        f"{_INVOCATION}::test_a_result_that_no_event_could_hold",
    ),
    report(
        "ajv-validator/ajv/issues/182",
        "a value that had been validated was NaN, and null once it was stored",
        f"{_INVOCATION}::test_a_result_that_no_event_could_hold",
    ),
]
