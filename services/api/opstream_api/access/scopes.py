"""Scopes: what a principal may do. Pure.

A scope is a text, as a key's record and a token's claim have it:

| scope | allows |
|---|---|
| `submit`, `submit:RESOURCE:ACTION` | to submit any action, or those that match; either name may be `*` |
| `read` | to read, wait for and follow its own operations |
| `read:all` | the same for all operations of its tenant |
| `cancel` | to cancel its own operations |
| `signal` | to send signals to its own operations |
| `erase` | to erase its own operations |
| `signal:RESOURCE:ACTION` | to send signals to all operations of its tenant of the actions that match |
| `run`, `run:RESOURCE:ACTION` | to run attempts of any action, or of those that match |
| `admin` | all of that in its tenant |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind, check_name

SUBMIT: Final = "submit"
READ: Final = "read"
READ_ALL: Final = "read:all"
CANCEL: Final = "cancel"
SIGNAL: Final = "signal"
ERASE: Final = "erase"
RUN: Final = "run"
ADMIN: Final = "admin"

MAX_SCOPES: Final = 100
"""Scopes of one principal."""

GENERAL_SCOPES: Final = (SUBMIT, READ, READ_ALL, CANCEL, SIGNAL, ERASE, RUN, ADMIN)
"""Those that name no action."""

_PLAIN: Final = frozenset({READ, READ_ALL, CANCEL, SIGNAL, ERASE, ADMIN})
_OF_ACTIONS: Final = frozenset({SUBMIT, RUN})
_WITH_PATTERNS: Final = _OF_ACTIONS | {SIGNAL}
_ANY: Final = "*"
_PATTERN_PARTS: Final = 3


class ActionPattern(msgspec.Struct, frozen=True):
    """The actions that a scope names."""

    resource: str
    """A name, or `*` for any."""
    action: str

    def matches(self, kind: Kind) -> bool:
        """Return True if the scope names this action."""
        return self.resource in {_ANY, kind.resource} and self.action in {_ANY, kind.action}


class Scopes(msgspec.Struct, frozen=True):
    """The scopes of one principal. Build them with `parse`, once for each key: each check is then a comparison."""

    texts: tuple[str, ...]
    """As they are written, sorted, each once."""
    submits: tuple[ActionPattern, ...]
    runs: tuple[ActionPattern, ...]
    reads: bool
    """Its own operations."""
    reads_all: bool
    """All operations of its tenant."""
    cancels: bool
    """Its own operations."""
    signals: bool
    """Its own operations."""
    signaled: tuple[ActionPattern, ...]
    """The actions to whose operations it may send signals, of whichever caller."""
    erases: bool
    """Its own operations."""
    is_admin: bool

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Parse scopes.

        Raises:
            InvalidName: one of them is none, or there are more than `MAX_SCOPES`. The message says what can be written.
        """
        found = tuple(sorted({check_scope(text) for text in texts}))
        if len(found) > MAX_SCOPES:
            raise InvalidName(f"there are {len(found)} scopes, {MAX_SCOPES} are allowed: name more actions with '*'")
        is_admin = ADMIN in found
        return cls(
            texts=found,
            submits=_patterns(SUBMIT, found, is_admin=is_admin),
            runs=_patterns(RUN, found, is_admin=is_admin),
            reads=is_admin or READ in found or READ_ALL in found,
            reads_all=is_admin or READ_ALL in found,
            cancels=is_admin or CANCEL in found,
            signals=is_admin or SIGNAL in found,
            signaled=_patterns(SIGNAL, [one for one in found if one != SIGNAL], is_admin=is_admin),
            erases=is_admin or ERASE in found,
            is_admin=is_admin,
        )

    def may_submit(self, kind: Kind) -> bool:
        """Return True if these scopes allow to submit an action, whether or not a runner offers it."""
        return any(pattern.matches(kind) for pattern in self.submits)

    def may_signal(self, kind: Kind) -> bool:
        """Return True if these scopes allow to send signals to all operations of an action, of whichever caller."""
        return any(pattern.matches(kind) for pattern in self.signaled)

    def may_run(self, kind: Kind) -> bool:
        """Return True if these scopes allow to run attempts of an action."""
        return any(pattern.matches(kind) for pattern in self.runs)


def check_scope(text: str) -> str:
    """Return `text` if it is a scope; `submit:*:*` and `run:*:*` in their short forms.

    Raises:
        InvalidName: it is none.
    """
    if text in _PLAIN or text in _OF_ACTIONS:
        return text
    parts = text.split(":")
    if len(parts) != _PATTERN_PARTS or parts[0] not in _WITH_PATTERNS:
        raise _unknown(text)
    verb, resource, action = parts
    try:
        for name, what in ((resource, "resource"), (action, "action")):
            if name != _ANY:
                check_name(name, what)
    except InvalidName as error:
        raise _unknown(text) from error
    # `signal` alone says less than `signal:*:*`: it is for own operations only.
    return verb if resource == action == _ANY and verb in _OF_ACTIONS else text


def scope_of(verb: str, kind: Kind) -> str:
    """Return the narrowest scope that allows a verb, `SUBMIT`, `SIGNAL` or `RUN`, for one action."""
    return f"{verb}:{kind}"


def _patterns(verb: str, texts: Iterable[str], *, is_admin: bool) -> tuple[ActionPattern, ...]:
    if is_admin or verb in texts:
        return (ActionPattern(_ANY, _ANY),)
    parts = [text.split(":") for text in texts]
    return tuple(ActionPattern(found[1], found[2]) for found in parts if found[0] == verb)


def _unknown(text: str) -> InvalidName:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return InvalidName(
        f"{shown!r} is not a scope: write {SUBMIT}:RESOURCE:ACTION, {SIGNAL}:RESOURCE:ACTION, "
        f"{RUN}:RESOURCE:ACTION (each name may be '*'), "
        f"{SUBMIT}, {READ}, {READ_ALL}, {CANCEL}, {SIGNAL}, {ERASE}, {RUN} or {ADMIN}"
    )
