"""The ids under which the operations of tenants are stored."""

from __future__ import annotations

import pytest

from opstream_api.access import operation_access
from opstream_api.access.operation_access import OperationIds
from opstream_schemas.names import check_operation_id

pytestmark = pytest.mark.unit

SECRET = b"s" * 32


def test_a_stored_id_is_taken_by_every_command() -> None:
    """It is a valid operation id, and never looks like an option, whatever the client's own id is."""
    ids = OperationIds(SECRET)
    found = [ids.stored_id("acme", f"own-{number}") for number in range(500)]
    assert [one for one in found if check_operation_id(one).startswith("-")] == []
    assert len(set(found)) == 500


def test_each_stored_id_has_the_length_by_which_one_is_known() -> None:
    """By it the owner of an operation is looked up where a snapshot of an earlier version does not name it."""
    ids = OperationIds(SECRET)
    lengths = {len(ids.stored_id(tenant, own)) for tenant in ("", "acme") for own in ("", "one", "x" * 128)}
    assert lengths == {operation_access._STORED_LENGTH}


def test_ids_of_tenants_do_not_meet() -> None:
    """Not for one own id, not for a pair that reads the same joined, and not under another secret."""
    ids = OperationIds(SECRET)
    pairs = [("acme", "one"), ("globex", "one"), ("acm", "eone"), ("acmeone", ""), ("", "acmeone")]
    assert len({ids.stored_id(*pair) for pair in pairs}) == len(pairs)
    assert ids.stored_id("acme", "one") != OperationIds(b"x" * 32).stored_id("acme", "one")
