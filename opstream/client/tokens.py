"""Tokens: the credentials that a client sends to a service that asks for some, as text or from a command."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Final

from .errors import InvalidRequest, TokenUnavailable

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_TIMEOUT: Final = 30.0
"""Seconds in which a command has to print a token."""


class TokenCommand:
    """Gets a token from a command, which prints it on its standard output. Its errors go to that of this process.

    Args:
        command: as a shell would split it; no shell runs it.

    Raises:
        InvalidRequest: the command can't be split, or is empty.
    """

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise InvalidRequest(f"the token command can't be read: {error}") from error
        if not self._words:
            raise InvalidRequest("the token command is empty: write a command that prints a token")

    def __call__(self) -> str:
        """Run the command, and return what it prints.

        Raises:
            TokenUnavailable: it failed, took too long, or printed no token. What it printed is not shown.
        """
        name = self._words[0]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own command
                self._words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TokenUnavailable(f"the token command {name!r} printed nothing within {_TIMEOUT:g} s") from error
        except OSError as error:
            raise TokenUnavailable(f"the token command {name!r} can't be run ({error.strerror})") from error
        if done.returncode:
            raise TokenUnavailable(f"the token command {name!r} failed with exit status {done.returncode}")
        return done.stdout.decode("latin-1").strip()


def check_token(token: str) -> str:
    """Return a token that can be sent in a header.

    Raises:
        InvalidRequest: it is empty, or has other characters than visible ASCII. The message does not repeat it.
    """
    if _VISIBLE.fullmatch(token) is None:
        raise InvalidRequest("the token is not one: it must be visible ASCII without spaces, as 'ops_…'")
    return token
