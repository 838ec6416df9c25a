"""A real PostgreSQL for the tests of an index in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.index.postgres_server import PostgresServer, find_binaries


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server (it takes some seconds to start)."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    with PostgresServer(binaries) as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    """The URL of an empty database."""
    return postgres.new_database()
