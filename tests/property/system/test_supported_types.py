"""One truth about types, for JSON that nobody has thought of: what the API accepts the runner decodes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opstream_api.errors import ApiError
from opstream_api.inputs.input_validation import InputValidator, decode_input
from opstream_runner import Action, ActionContext, action
from opstream_schemas.status_monitor import is_same_json
from tests.support.runner.supported_types import CASES, TypeCase

pytestmark = pytest.mark.unit

VALIDATORS = InputValidator()


def taking(model: Any, number: int) -> Action[..., Any]:
    """Return an action with this type of input; its name has the number."""

    def handler(request: Any, ctx: Any) -> Any:
        return request

    handler.__annotations__ = {"request": model, "ctx": ActionContext, "return": model}
    return action(f"book:print-{number}")(handler)


ACTIONS = {case.name: taking(case.type, number) for number, case in enumerate(CASES)}
PIECES = sorted({text for case in CASES for text in (*case.taken, *case.refused, *case.narrower)})
"""JSON of all types."""

numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.builds("{}e{}".format, st.integers(-99, 99), st.integers(-400, 400)),
    st.builds("{}.{}".format, st.integers(-99, 99), st.integers(0, 999)),
)
digits = st.text("0123456789", max_size=10)
words = st.one_of(
    st.text(max_size=8),
    st.text("0123456789-:TZ+.PDHMSW_ eEnaif", max_size=26),
    st.builds("{:04}-{:02}-{:02}".format, st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32)),
    st.builds("{:02}:{:02}:{:02}{}".format, st.integers(0, 25), st.integers(0, 61), st.integers(0, 61), digits),
    st.builds(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}".format,
        st.integers(1, 9999),
        st.integers(1, 12),
        st.integers(28, 31),
        st.integers(22, 24),
        st.integers(58, 60),
        st.integers(58, 60),
        st.sampled_from(["", "Z", ".5Z", "+01:00", "-24:00", ".9999999Z", "z", "+0100"]),
    ),
    st.uuids().map(str),
    st.decimals().map(str),
    st.timedeltas().map(lambda one: json.loads(msgspec.json.encode(one))),
    st.text("ABCDabcd+/=_-", max_size=9),
)
texts = words.map(json.dumps)


def documents(case: TypeCase) -> st.SearchStrategy[str]:
    """Return JSON that is like that of a type."""
    own = st.sampled_from([*case.taken, *case.refused, *case.narrower])
    leaves = st.one_of(own, st.sampled_from(PIECES), numbers, texts, st.sampled_from(["null", "true", "false"]))
    names = st.one_of(
        words,
        st.sampled_from(["title", "pages", "value", "children", "type", "name", "lives", "version", "items", "1"]),
    ).map(json.dumps)
    members = st.builds("{}: {}".format, names, leaves)
    return st.one_of(
        leaves,
        texts,
        numbers,
        st.lists(leaves, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(members, max_size=3).map(lambda parts: f"{{{', '.join(parts)}}}"),
        st.builds(lambda one, cut, piece: one[:cut] + piece + one[cut:], own, st.integers(0, 40), numbers),
    )


def accepted(one: Action[..., Any], body: bytes) -> bytes:
    """Return what the API records of a body; empty if it refuses it."""
    try:
        return VALIDATORS.validate(one.spec, *decode_input(body))[0]
    except ApiError:
        return b""


def has_number_without_json(value: Any) -> bool:
    """Return True if a decoded value has a NaN or an infinity, which JSON has not."""
    text = str(msgspec.to_builtins(value, str_keys=True)).lower()
    return "nan" in text or "inf" in text


@pytest.mark.parametrize("name", ACTIONS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.differing_executors], deadline=None)
@given(data=st.data())
def test_what_the_api_accepts_the_runner_decodes(name: str, data: st.DataObject) -> None:
    """And what the runner has decoded the API accepts in msgspec's own spelling."""
    one = ACTIONS[name]
    case = next(case for case in CASES if case.name == name)
    body = data.draw(documents(case)).encode("utf-8", "replace")
    recorded = accepted(one, body)
    assert not recorded or is_same_json(msgspec.json.decode(recorded), msgspec.json.decode(body))
    try:
        value = one.decode(recorded or body)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        assert not recorded
        return
    if case.name in {"Raw", "a foreign format"} or has_number_without_json(value):
        return
    spelled = msgspec.json.encode(value)
    if b"\\n" not in spelled and spelled.isascii():  # the reasons for which the API is narrower
        assert accepted(one, spelled), spelled
