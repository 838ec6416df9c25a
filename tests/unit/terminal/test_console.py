"""Text from outside on a terminal: it is shown, and neither moves the cursor nor turns the direction of a line."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream.terminal.console import CommandError, shown_json
from opstream_schemas.text import escape_json

pytestmark = pytest.mark.unit

HOSTILE = "a\u202eb\x9bc\u2066d\u2028e\x7ff\u200bg\U000e0001h\ufeff"
DOCUMENT = json.dumps({"m": HOSTILE}, ensure_ascii=False).encode()


def test_json_on_a_terminal_has_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They mean the same; a program gets the same bytes as before."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert shown_json(DOCUMENT) == DOCUMENT
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = shown_json(DOCUMENT).decode()
    assert shown.isprintable()
    assert "a\\u202eb\\u009bc" in shown
    assert json.loads(shown) == {"m": HOSTILE}


@given(st.recursive(st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_escapes_mean_the_same(value: object) -> None:
    """Whatever the text: only line breaks of the JSON itself are left."""
    document = json.dumps(value, ensure_ascii=False, indent=2)
    shown = escape_json(document)
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == value


def test_an_error_that_quotes_a_service_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    """The message may be that of any server."""
    CommandError("it said: \x1b]0;title\x07 \u202e\nnext").show()
    assert capsys.readouterr().err == "opstream: error: it said:  ]0;title   \nnext\n"
