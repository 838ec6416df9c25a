"""One truth about types: what the API accepts the runner decodes, for every type that an action may have."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from opstream_api.errors import ApiError
from opstream_api.inputs.input_validation import InputValidator, decode_input
from opstream_api.openapi.schema_examples import make_example
from opstream_runner import Action, ActionContext, action
from opstream_schemas.action_types.schema_engine import compile_schema
from tests.support.runner.supported_types import CASES, TypeCase

pytestmark = pytest.mark.unit

every = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


PAGE: Final = Path(__file__).parents[3] / "docs/actions.md"
HEAD: Final = "| type | in JSON |\n|---|---|\n"


def taking(model: Any) -> Action[..., Any]:
    """Return an action with this type of input and result."""

    def handler(request: Any, ctx: Any) -> Any:
        return request

    handler.__annotations__ = {"request": model, "ctx": ActionContext, "return": model}
    return action("book:print")(handler)


def refusal(one: Action[..., Any], body: bytes) -> str:
    """Return why the API refuses a body; empty if it accepts it."""
    try:
        document, value = decode_input(body)
        InputValidator().validate(one.spec, document, value)
    except ApiError as error:
        return f"{error.body.error.message} {error.body.error.target}"
    return ""


def decodes(one: Action[..., Any], body: bytes) -> bool:
    """Return True if the runner decodes a body."""
    try:
        one.decode(body)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        return False
    return True


@every
def test_the_published_schema_takes_what_is_taken(case: TypeCase) -> None:
    """Formats included, as a client's validator reads them: nothing is taken that the document does not allow."""
    validator = compile_schema(taking(case.type).spec.input_schema)
    assert [document for document in case.taken if not validator.is_valid(json.loads(document))] == []


@every
def test_api_and_runner_take_the_same(case: TypeCase) -> None:
    """Values in the type's middle and at its borders; what only the API refuses is listed with the reason."""
    one = taking(case.type)
    documents = [*case.taken, *case.refused, *case.narrower]
    found = {text: (not refusal(one, text.encode()), decodes(one, text.encode())) for text in documents}
    expected = (
        dict.fromkeys(case.taken, (True, True))
        | dict.fromkeys(case.refused, (False, False))
        | dict.fromkeys(case.narrower, (False, True))
    )
    assert found == expected


@every
def test_whole_numbers_are_recorded_as_such(case: TypeCase) -> None:
    """`1.0` is an integer to JSON Schema and not to the decoder: it is recorded as `1`, if it has to be."""
    one = taking(case.type)
    for text, recorded in case.spelled.items():
        document, value = InputValidator().validate(one.spec, *decode_input(text.encode()))
        assert (document.decode(), value) == (recorded, msgspec.json.decode(recorded))
        assert decodes(one, document)
        assert not decodes(one, text.encode())
    for text in case.taken:
        assert InputValidator().validate(one.spec, *decode_input(text.encode()))[0] == text.encode()


@every
def test_a_schema_is_what_the_runner_announced(case: TypeCase) -> None:
    """It is JSON: what is read from the catalog is what the decorator made."""
    schema = taking(case.type).spec.input_schema
    assert msgspec.json.decode(msgspec.json.encode(schema)) == schema


@every
def test_an_example_of_the_document_is_taken(case: TypeCase) -> None:
    """A person who tries it in `/docs` gets no error. Some patterns have no example."""
    one = taking(case.type)
    example = make_example(one.spec.input_schema)
    if example is msgspec.UNSET:
        assert case.name in {"`Annotated[str, Meta(pattern=…)]`", "short classes", "letters of both cases"}
    else:
        assert refusal(one, msgspec.json.encode(example)) == ""


def rows() -> Iterator[str]:
    """Yield the rows of the page's table."""
    for case in CASES:
        if case.json:
            yield f"| {case.name.replace('|', chr(92) + '|')} | {case.json.replace('|', chr(92) + '|')} |\n"


def test_the_page_lists_every_type() -> None:
    """The table of docs/actions.md is made from the list that these tests walk (OPSTREAM_WRITE_GOLDEN=1 writes it)."""
    page = PAGE.read_text(encoding="utf-8")
    before, head, rest = page.partition(HEAD)
    table, gap, after = rest.partition("\n\n")
    expected = "".join(rows())
    if os.environ.get("OPSTREAM_WRITE_GOLDEN") and table + "\n" != expected:
        PAGE.write_text(before + head + expected.rstrip("\n") + gap + after, encoding="utf-8")
    assert head
    assert table + "\n" == expected
