"""The names of accounts say whose a login is, and what to do with a wrong one."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from opstream_schemas.broker_access.logins import Login, LoginNeed, account_name, login_of, need_of_service
from opstream_schemas.broker_access.permissions import ActionAccess, Role, permissions, vital_permissions
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

SERVICES: Final = (Role.API, Role.RUNNER, Role.PROJECTOR, Role.WEBHOOKS)
FOREIGN: Final = ("", "$G", "theirs", "OPSTREAM_", "OPSTREAM_OTHER", "OPSTREAMER_API", "opstream", "OPSTREAM_ADMIN")
"""Accounts that 'opstream broker-config' does not make."""


@pytest.mark.parametrize("login", [*map(Login, Role), Login(Role.SUBSCRIBER, "mailer"), Login(Role.SUBSCRIBER, "a_b")])
def test_an_account_says_whose_it_is(login: Login) -> None:
    """The name of each login's account is read back as this login."""
    assert login_of(account_name(login)) == login


@pytest.mark.parametrize("account", FOREIGN)
def test_an_account_of_somebody_else_says_nothing(account: str) -> None:
    """No process refuses such an account by its name."""
    assert login_of(account) is None
    assert [need_of_service(role).explain(account) for role in SERVICES] == [""] * len(SERVICES)


@pytest.mark.parametrize(("needed", "given"), list(itertools.product(SERVICES, Role)))
def test_each_service_needs_its_role(needed: Role, given: Role) -> None:
    """The own role and the operator's will do; for each other one the text has both roles and the key to give."""
    text = need_of_service(needed).explain(account_name(Login(given, "mailer" if given is Role.SUBSCRIBER else "")))
    if given in {needed, Role.ADMIN}:
        assert text == ""
    else:
        assert f"that of the role {given} " in text
        assert f"it needs the role {needed}; give --nats-nkey" in text
        assert f"keys/{needed}.nk" in text


def test_a_subscriber_needs_the_key_of_its_durable() -> None:
    """All its durables must be that of the key."""
    account = account_name(Login(Role.SUBSCRIBER, "mailer"))
    one = LoginNeed(process="the subscriber", roles=(Role.SUBSCRIBER,), durables=("mailer",))
    two = LoginNeed(process="the subscriber", roles=(Role.SUBSCRIBER,), durables=("mailer", "billing"))
    assert one.explain(account) == ""
    assert "keys/subscriber-billing.nk" in two.explain(account)


@pytest.mark.parametrize("role", SERVICES)
def test_each_service_has_something_that_it_needs(role: Role) -> None:
    """What a service can't do without is a part of what its role may do, and no other service has it."""
    actions = [ActionAccess(Kind("book", "upload"))]
    vital = {grant.subject for grant in vital_permissions(role, actions=actions)}
    assert vital
    for other in SERVICES:
        granted = {grant.subject for grant in permissions(other, actions=actions)}
        assert vital <= granted if other is role else not vital <= granted
