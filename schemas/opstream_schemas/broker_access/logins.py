"""The names of accounts at the broker, and whether a login is of a role that a process needs. Pure.

The broker names the account of each connection when it is made. An account that `opstream broker-config` did not name
says nothing: there only what the broker refuses counts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from .permissions import Role

STREAMS_ACCOUNT: Final = "OPSTREAM"
"""The account with the streams, and the operator's."""
_SEPARATOR: Final = "_"
_STEP: Final = (
    "give --nats-nkey the key of that role ('opstream broker-config' writes keys/{key}.nk), or --nats-creds its "
    "credentials{more}"
)
_OF_SUBSCRIBER: Final = "; of an EventsBroker it is the argument credentials"


class Login(NamedTuple):
    """Who a connection is at the broker."""

    role: Role
    part: str = ""
    """Which of several of its role: the durable of a subscriber."""


def account_name(login: Login) -> str:
    """Return the name of the account of a login."""
    if login.role is Role.ADMIN:
        return STREAMS_ACCOUNT
    return _SEPARATOR.join([STREAMS_ACCOUNT, login.role.upper(), *([login.part] if login.part else [])])


def login_of(account: str) -> Login | None:
    """Return whose an account is; None for one that `opstream broker-config` does not make."""
    head, _, rest = account.partition(_SEPARATOR)
    if head != STREAMS_ACCOUNT:
        return None
    if not rest:
        return Login(Role.ADMIN) if account == STREAMS_ACCOUNT else None
    role, _, part = rest.partition(_SEPARATOR)
    known = {one.upper(): one for one in Role if one is not Role.ADMIN}
    return Login(known[role], part) if role in known else None


class LoginNeed(msgspec.Struct, frozen=True, kw_only=True):
    """Which logins a process can do its job with. The operator's always is one."""

    process: str
    """For the text: `opstream api`."""
    roles: tuple[Role, ...]
    """The first one is the one to advise."""
    durables: tuple[str, ...] = ()
    """Of a subscriber: all that it takes events of."""

    def explain(self, account: str) -> str:
        """Return why the login with this account will not do, and the next step; empty if it does or isn't known."""
        login = login_of(account)
        if login is None or login.role is Role.ADMIN:
            return ""
        strange = [one for one in self.durables if one != login.part]
        if login.role in self.roles and not (login.role is Role.SUBSCRIBER and strange):
            return ""
        wanted = self.roles[0]
        is_subscriber = wanted is Role.SUBSCRIBER
        durable = (strange or [""])[0] if is_subscriber else ""
        key = f"{wanted}-{durable}" if durable else str(wanted)
        step = _STEP.format(key=key, more=_OF_SUBSCRIBER if is_subscriber else "")
        return (
            f"the login of {self.process} at the broker is that of the role {_shown(login)} (account {account}), which "
            f"may not do its job: it needs the role {_shown(Login(wanted, durable))}; {step}"
        )


def need_of_service(role: Role) -> LoginNeed:
    """Return what the service of a role needs."""
    return LoginNeed(process=f"opstream {role}", roles=(role,))


def _shown(login: Login) -> str:
    return f"{login.role} for {login.part!r}" if login.part else str(login.role)
