"""Whose operations a principal's are, and which names it may have."""

from __future__ import annotations

import pytest

from opstream_api.access.principal import MAX_SUBJECT_LENGTH, Principal, check_subject, check_tenant
from opstream_api.access.scopes import Scopes
from opstream_schemas.errors import InvalidName

pytestmark = pytest.mark.unit


def principal(tenant: str, subject: str, *scopes: str, key_id: str = "") -> Principal:
    """A principal that never expires."""
    return Principal(tenant=tenant, subject=subject, scopes=Scopes.parse(scopes), key_id=key_id)


def test_the_owner_is_tenant_and_subject_and_nothing_else() -> None:
    """A rotated key keeps what it owns; parts that are joined differently are another owner."""
    assert principal("acme", "ci", "read", key_id="a").owner == principal("acme", "ci", "submit", key_id="b").owner
    assert principal("acme", "ci").owner != principal("acm", "eci").owner
    assert principal("", "ci").owner != principal("ci", "").owner


@pytest.mark.parametrize("tenant", ["", "acme", "Example.org", "0b1f-4_2", "a" * 64])
def test_tenants_of_identity_providers_are_taken(tenant: str) -> None:
    """UUIDs, domains and short ids."""
    assert check_tenant(tenant) == tenant


@pytest.mark.parametrize("tenant", [" ", "a b", "a/b", "a\n", "ä", "a" * 65, "a\x00"])
def test_other_tenants_are_refused(tenant: str) -> None:
    """A separator in a tenant could make two tenants one."""
    with pytest.raises(InvalidName, match="tenant"):
        check_tenant(tenant)


@pytest.mark.parametrize("subject", ["", "a\nb", "a\x00", "a\u2028", "a" * (MAX_SUBJECT_LENGTH + 1)])
def test_subjects_that_cannot_be_printed_are_refused(subject: str) -> None:
    """They are shown in tables and logs."""
    with pytest.raises(InvalidName, match="subject"):
        check_subject(subject)


def test_a_subject_may_have_spaces_and_any_letters() -> None:
    """As the names that proxies give."""
    assert check_subject("Jürgen Müller <j@example.org>") == "Jürgen Müller <j@example.org>"
