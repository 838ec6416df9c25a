"""Scopes of any number and order: nothing is allowed that no scope of the list allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.access.scopes import Scopes, check_scope
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

NAMES = st.sampled_from(["book", "shelf", "index"])
PATTERNS = st.builds("{}:{}:{}".format, st.sampled_from(["submit", "run"]), NAMES | st.just("*"), NAMES | st.just("*"))
TEXTS = st.sampled_from(["submit", "read", "read:all", "cancel", "signal", "run", "admin"]) | PATTERNS


@given(st.lists(TEXTS, max_size=8), st.builds(Kind, NAMES, NAMES))
def test_scopes_allow_what_one_of_them_allows(texts: list[str], kind: Kind) -> None:
    """Together they are the union, in whatever order."""
    together, alone = Scopes.parse(texts), [Scopes.parse([text]) for text in texts]
    assert together == Scopes.parse(reversed(texts))
    assert together.may_submit(kind) == any(one.may_submit(kind) for one in alone)
    assert together.may_run(kind) == any(one.may_run(kind) for one in alone)
    for right in ("reads", "reads_all", "cancels", "signals", "is_admin"):
        assert getattr(together, right) == any(getattr(one, right) for one in alone)


@given(st.lists(TEXTS, max_size=8))
def test_what_is_kept_parses_to_the_same(texts: list[str]) -> None:
    """A record keeps `texts`."""
    assert Scopes.parse(Scopes.parse(texts).texts) == Scopes.parse(texts)


@given(st.text(max_size=30))
def test_any_text_is_a_scope_or_refused(text: str) -> None:
    """Nothing else is raised, and what passes stays what it is."""
    try:
        kept = check_scope(text)
    except InvalidName:
        return
    assert check_scope(kept) == kept
