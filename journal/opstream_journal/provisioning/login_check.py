"""Whether the login of a process may do at the broker what the process is for.

Where `opstream broker-config` made the accounts, the name of the account says it at once (`connect`). Elsewhere only a
try does. A try has no effect: a pull is no valid one, and a publish names a stream that does not exist. The broker
answers both with an error to a login that may send them. To another one it says that there is no responder, or that its
permissions forbid it. A publish is tried only after one that was denied, since who listens to all subjects hears it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from opstream_journal.errors import JournalUnavailable, LoginNotPermitted
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.unanswered_publishes import stream_of
from opstream_journal.missing_leader import is_clustered
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_schemas.broker_access.permissions import API, ActionAccess, Grant, Role, vital_permissions

_GRACE: Final = 5.0
"""Seconds in which a consumer or stream that was there a moment ago gets another leader."""
_RETRY_DELAY: Final = 0.25
_PROBE: Final = "opstream-probe"
_NOT_STORED: Final = {"Nats-Expected-Stream": _PROBE}
_INVALID_PULL: Final = b"{"
"""No JSON. What does not begin as JSON would be a number, or a pull of one message."""
_PULL: Final = f"{API}.CONSUMER.MSG.NEXT."
_ENOUGH: Final = 2
"""Looks in a row that fail: a change of leaders may be one."""


class _Group(msgspec.Struct, frozen=True):
    leader: str = ""


class _GroupAnswer(msgspec.Struct, frozen=True):
    cluster: _Group | None = None


_decode: Final = msgspec.json.Decoder(_GroupAnswer).decode


class LoginCheck:
    """Tries whether a login may do what the processes of a role can't do without.

    Args:
        connection: the connection with the login.
        role: of the process.
        actions: of a runner.
    """

    def __init__(self, connection: Connection, role: Role, *, actions: Sequence[ActionAccess] = ()) -> None:
        self._connection = connection
        self._role = role
        vital = vital_permissions(role, actions=actions)
        self._pulls = tuple(one for one in vital if _is_pull(one))
        self._publishes = tuple(one for one in vital if not _is_pull(one))
        self._next = 0
        self._failures = 0

    async def check(self) -> None:
        """Try all that the role takes its work from. For a start, after the consumers were there.

        Raises:
            LoginNotPermitted: the login may not take it; the message says what to do.
            JournalUnavailable: the broker did not answer.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _GRACE
        for grant in self._pulls:
            while denial := await self._denial_of(grant):
                is_forbidden = self._connection.denials.is_forbidden(_subject_of_try(grant))
                if is_forbidden or (loop.time() >= until and await self._has_leader(grant)):
                    raise LoginNotPermitted(f"{denial}: {self._next_step(grant)}")
                await self._connection.sleep(_RETRY_DELAY)

    async def look(self) -> tuple[str, str] | None:
        """Try one thing: what was denied, else a pull, another one each time.

        Nothing is raised: a broker that does not answer says nothing about the login.

        Returns:
            What is wrong and the next step, while something can't be done; else None.
        """
        if wrong := self._connection.explain_wrong_login():
            what, _, step = wrong.partition("; ")
            return what, step
        grants = [one for one in self._publishes if self._connection.denials.found(one.subject)] or self._pulls
        if not grants:
            return None
        grant = grants[self._next % len(grants)]
        try:
            denial = await self._denial_of(grant)
        except JournalUnavailable:
            return None
        if not denial:
            self._next, self._failures = self._next + 1, 0
            return None
        if not self._connection.denials.is_forbidden(_subject_of_try(grant)) and not await self._has_leader(grant):
            return None
        self._failures += 1  # and the next look tries the same
        return (denial, self._next_step(grant)) if self._failures >= _ENOUGH else None

    async def _denial_of(self, grant: Grant) -> str:
        subject, denials = _subject_of_try(grant), self._connection.denials
        denials.forget(grant.subject)
        body, headers, is_answer = (_INVALID_PULL, None, _is_status) if _is_pull(grant) else (b"", _NOT_STORED, None)
        try:
            await rpc.call(
                self._connection, subject, body, headers=headers, is_answer=is_answer or rpc.ack_check(subject)
            )
        except JournalUnavailable:
            if not denials.found(subject):
                raise
        if not denials.found(subject):
            return ""
        where = f" (account {self._connection.account})" if self._connection.account else ""
        return (
            f"the login of this process at the broker{where} may not send to {subject}, by which the role {self._role} "
            f"{grant.why}"
        )

    async def _has_leader(self, grant: Grant) -> bool:
        """Return True if the consumer or stream behind a subject has a leader: without one nothing answers a login."""
        if not is_clustered(self._connection.nc):
            return True
        stream, _, consumer = grant.subject.removeprefix(_PULL).partition(".")
        what = f"CONSUMER.INFO.{stream}.{consumer}" if _is_pull(grant) else f"STREAM.INFO.{stream_of(grant.subject)}"
        subject = f"{API}.{what}"
        try:
            found = _decode((await rpc.call(self._connection, subject)).data)
        except JournalUnavailable:
            return bool(self._connection.denials.found(subject))  # else it is silent, for lack of a leader
        except msgspec.MsgspecError:
            return False
        return found.cluster is not None and bool(found.cluster.leader)

    def _next_step(self, grant: Grant) -> str:
        step = (
            f"let --nats-nkey or --nats-creds name a login of the role {self._role}, or permit {grant.subject} to this "
            "one (docs/broker-access.md)"
        )
        if self._role is Role.RUNNER:
            step += "; if it is one, name the action in 'opstream broker-config --actions', and reload the broker"
        return step


def _is_pull(grant: Grant) -> bool:
    return grant.subject.startswith(API)


def _subject_of_try(grant: Grant) -> str:
    """A subject that a grant allows: its wildcards replaced."""
    return ".".join(_PROBE if token in {"*", ">"} else token for token in grant.subject.split("."))


def _is_status(message: ReceivedMessage) -> bool:
    return message.status is not None
