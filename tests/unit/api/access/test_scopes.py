"""What scopes allow, and which texts are none."""

from __future__ import annotations

import pytest

from opstream_api.access.scopes import MAX_SCOPES, Scopes, check_scope, scope_of
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

UPLOAD = Kind("book", "upload-start")
INDEX = Kind("book", "index")
BIND = Kind("binding", "index")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("submit", {UPLOAD, INDEX, BIND}),
        ("submit:*:*", {UPLOAD, INDEX, BIND}),
        ("submit:book:*", {UPLOAD, INDEX}),
        ("submit:*:index", {INDEX, BIND}),
        ("submit:book:index", {INDEX}),
        ("submit:boo:index", set()),
        ("run:book:*", set()),
        ("read:all", set()),
        ("admin", {UPLOAD, INDEX, BIND}),
    ],
)
def test_a_submit_scope_allows_the_actions_that_it_names(text: str, allowed: set[Kind]) -> None:
    """No prefix of a name counts as the name, and no scope of another verb does."""
    scopes = Scopes.parse([text])
    assert {kind for kind in (UPLOAD, INDEX, BIND) if scopes.may_submit(kind)} == allowed


def test_run_and_submit_are_different_rights() -> None:
    """A runner's scope does not submit, and a client's does not run."""
    assert Scopes.parse(["run:book:*"]).may_run(INDEX)
    assert not Scopes.parse(["run:book:*"]).may_run(BIND)
    assert not Scopes.parse(["submit"]).may_run(INDEX)


def test_each_plain_scope_allows_its_own_and_nothing_else() -> None:
    """`read:all` includes `read`; nothing else includes another."""
    rights = {
        text: (scopes.reads, scopes.reads_all, scopes.cancels, scopes.signals, scopes.is_admin)
        for text in ("read", "read:all", "cancel", "signal", "submit", "run")
        if (scopes := Scopes.parse([text]))
    }
    assert rights == {
        "read": (True, False, False, False, False),
        "read:all": (True, True, False, False, False),
        "cancel": (False, False, True, False, False),
        "signal": (False, False, False, True, False),
        "submit": (False, False, False, False, False),
        "run": (False, False, False, False, False),
    }


def test_admin_includes_all() -> None:
    """Of each right that there is."""
    scopes = Scopes.parse(["admin"])
    assert scopes.may_submit(UPLOAD)
    assert scopes.may_run(UPLOAD)
    assert (scopes.reads, scopes.reads_all, scopes.cancels, scopes.signals, scopes.is_admin) == (True,) * 5


def test_no_scopes_allow_nothing() -> None:
    """An empty list is no way to say everything."""
    scopes = Scopes.parse([])
    assert not scopes.may_submit(UPLOAD)
    assert not scopes.may_run(UPLOAD)
    assert (scopes.reads, scopes.reads_all, scopes.cancels, scopes.signals, scopes.is_admin) == (False,) * 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "Admin",
        "admin ",
        "read:own",
        "submit:book",
        "submit:book:",
        "submit::index",
        "submit:book:*:*",
        "submit:boo*:index",
        "submit:Book:index",
        "cancel:book:*",
        "submit book",
    ],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    """A misspelled scope must not be kept as a right that never applies, or as a wider one."""
    with pytest.raises(InvalidName, match="is not a scope"):
        check_scope(text)


def test_more_scopes_than_allowed_are_refused() -> None:
    """Each is looked at for a submit."""
    with pytest.raises(InvalidName, match="scopes"):
        Scopes.parse(f"submit:book:a{number}" for number in range(MAX_SCOPES + 1))


def test_the_narrowest_scope_of_an_action_allows_it() -> None:
    """What an error names is what an operator can write."""
    assert Scopes.parse([scope_of("submit", UPLOAD)]).may_submit(UPLOAD)
    assert scope_of("submit", UPLOAD) == "submit:book:upload-start"
