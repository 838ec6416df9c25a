"""What the broker did not let a connection do: subjects that its permissions forbid, or on which nothing answers.

An account that does not import a subject has no responder there, so both may mean that the login is a wrong one.
"""

from __future__ import annotations

import re
from typing import Final

_FORBIDDEN_REGEX: Final = re.compile(r'permissions violation for \w+ to "([^"]+)"', re.IGNORECASE)
_LIMIT: Final = 64
"""Subjects that are kept: the latest ones."""


class Denials:
    """The subjects of one connection that were denied since they were last tried with success.

    Letters of either case count as the same, since nats-py makes those of errors small.
    """

    def __init__(self) -> None:
        self._subjects: dict[str, bool] = {}
        """Each with whether permissions forbid it."""

    def add(self, subject: str) -> None:
        """Note that nothing answers on a subject."""
        self._note(subject, is_forbidden=False)

    def add_error(self, text: str) -> None:
        """Note an error that the broker reported, if it is about permissions."""
        if (found := _FORBIDDEN_REGEX.search(text)) is not None:
            self._note(found[1], is_forbidden=True)

    def is_forbidden(self, subject: str) -> bool:
        """Return True if permissions forbid a subject."""
        return self._subjects.get(subject.lower(), False)

    def forget(self, pattern: str) -> None:
        """Forget all subjects that a filter covers."""
        for subject in self.found(pattern):
            del self._subjects[subject]

    def found(self, pattern: str) -> list[str]:
        """Return those subjects that a filter covers."""
        tokens = pattern.lower().split(".")
        return [subject for subject in self._subjects if _covers(tokens, subject.split("."))]

    def _note(self, subject: str, *, is_forbidden: bool) -> None:
        subject = subject.lower()
        self._subjects[subject] = is_forbidden or self._subjects.pop(subject, False)
        if len(self._subjects) > _LIMIT:
            del self._subjects[next(iter(self._subjects))]


def _covers(pattern: list[str], tokens: list[str]) -> bool:
    if pattern[-1] == ">":
        pattern = pattern[:-1]
        if len(tokens) <= len(pattern):
            return False
        tokens = tokens[: len(pattern)]
    return len(tokens) == len(pattern) and all(
        wanted in {"*", token} for wanted, token in zip(pattern, tokens, strict=True)
    )
