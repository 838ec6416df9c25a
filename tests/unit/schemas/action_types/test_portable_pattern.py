"""Patterns that Python and the API's engine read alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.action_types.portable_pattern import UnportablePattern, portable_pattern
from opstream_schemas.action_types.schema_engine import compile_schema

pytestmark = pytest.mark.unit

SAME = [
    r"^[a-z0-9-]{1,40}$",
    r"^[0-9a-f]{64}$",
    r"^(?:[A-Z][a-z]+ ?)+$",
    r"^(?!admin)[a-z]+$",
    r"foo|far|x",
    r"^s3://[a-z.]+/\(x\)$",
    "",
]
OTHERS = {
    r"\A[a-z]+\Z": r"^[a-z]+$",
    r"^\d{4}-\d\d$": r"^[0-9]{4}-[0-9][0-9]$",
    r"^\w+$": r"^[0-9A-Z_a-z]+$",
    r"^.+$": r"^[^\n]+$",
    r"(?s)^.+$": r"^[\s\S]+$",
    r"(?P<year>\d+)": r"([0-9]+)",
    r"a{,2}": r"a{0,2}",
    r"[^\W_]": r"[0-9A-Za-z]",
    r"(?i)^x[0-9a-f]": r"^[Xx][0-9A-Fa-f]",
    r"(?x) a  b # note": "ab",
    r"(?a)\D": r"[^0-9]",
    r"[[\]&~^]": r"[\x26\[\]\^\x7e]",
    r"^\s$": r"^[\x09-\x0d\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$",
}
NARROWER = {r"^\d{4}-\d\d$", r"^\w+$", r"(?P<year>\d+)", r"[^\W_]"}
"""Those that leave out other scripts."""
REFUSED = {
    r"\D": "write [^0-9]",
    r"[^\d]": "write [^0-9]",
    r"\W": "write [^A-Za-z0-9_]",
    r"(?!\d)": "write [0-9]",
    r"(?!a$)": "write \\Z",
    r"\bfoo": "write the characters",
    r"a++": "leave out the second +",
    r"(?>a)": "write (?:",
    r"(a)\1": "write it without",
    r"(a)?(?(1)b|c)": "write the alternatives",
    r"(?i:a)": "write both cases",
    r"(?i)é": "write both cases",
    r"(?m)^a$": "write (^|",
    "[a-z": "Python can't compile it",
    "\ud800": "leave it out",
}


def engine_takes(pattern: str, text: str) -> bool:
    """Return True if the API's engine finds a pattern in a text."""
    return compile_schema({"pattern": pattern}).is_valid(text)


@pytest.mark.parametrize("pattern", SAME)
def test_a_plain_pattern_stays_as_it_is(pattern: str) -> None:
    """Clients read what the author wrote."""
    assert portable_pattern(pattern) == pattern


@pytest.mark.parametrize(("pattern", "written"), OTHERS.items())
def test_a_pattern_is_written_in_words_of_all_engines(pattern: str, written: str) -> None:
    """What Python alone knows is spelled out."""
    assert portable_pattern(pattern) == written
    compile_schema({"pattern": written})


@pytest.mark.parametrize(("pattern", "advice"), REFUSED.items())
def test_what_no_other_engine_reads_is_refused(pattern: str, advice: str) -> None:
    """The message says what to write."""
    with pytest.raises(UnportablePattern, match=re.escape(advice)):
        portable_pattern(pattern)


texts = st.one_of(
    st.text(max_size=6),
    st.text("abxX019_- .é\n\r\t\u0661\u017f\u212a\u2028\x1c\x85\ufeff&~[]^\U0001f600", max_size=6),
    st.from_regex(r"\A[0-9]{4}-[0-9]{2}\Z"),
)


@pytest.mark.parametrize("pattern", [*SAME, *OTHERS])
@given(text=texts)
def test_the_engine_takes_only_what_python_takes(pattern: str, text: str) -> None:
    """And all of it, but for other scripts and a line feed at the end."""
    python, engine = re.search(pattern, text) is not None, engine_takes(portable_pattern(pattern), text)
    assert python or not engine
    if pattern not in NARROWER and not text.endswith("\n"):
        assert python == engine


_parts = st.sampled_from(
    [*"ab1é_ .", r"\.", r"\d", r"\w", r"\s", r"\S", "[ab]", "[^ab]", "[a-z0-9_]", r"[\w-]", r"[^\s]", r"\x41", "^", "$"]
)
_repeated = st.builds(str.__add__, _parts, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{,2}", "+?"]))
_sequences = st.lists(_repeated, min_size=1, max_size=4).map("".join)
_groups = st.builds(
    "{}({}{}|{}){}".format,
    _sequences,
    st.sampled_from(["", "?:", "?=", "?P<x>", "?!"]),
    _sequences,
    _sequences,
    _sequences,
)


@given(flags=st.sampled_from(["", "(?i)", "(?s)", "(?a)"]), pattern=_sequences | _groups, text=texts)
def test_any_pattern_is_read_alike_or_refused(flags: str, pattern: str, text: str) -> None:
    """Whatever an author writes, the API takes no text that the runner refuses."""
    try:
        written = portable_pattern(flags + pattern)
    except UnportablePattern:
        return
    assert re.search(flags + pattern, text) is not None or not engine_takes(written, text)
