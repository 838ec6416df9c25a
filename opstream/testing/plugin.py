"""Fixtures for pytest: a whole opstream for the session. The only module of opstream that imports pytest.

A `conftest.py` asks for it, and says which modules have the actions:

    pytest_plugins = ["opstream.testing.plugin"]

    @pytest.fixture(scope="session")
    def opstream_actions() -> list[str]:
        return ["shop.orders"]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from opstream.client import OperationsClient

from .local_system import LocalSystem, serving


@pytest.fixture(scope="session")
def opstream_actions() -> Sequence[str]:
    """The import paths of the modules with actions. Define a fixture of this name in your `conftest.py`."""
    raise pytest.UsageError(
        "the fixture 'opstream_system' needs the modules with your actions: define a fixture 'opstream_actions' with "
        "scope='session' in conftest.py, which returns their import paths, e.g. ['shop.orders']"
    )


@pytest.fixture(scope="session")
def opstream_options() -> Sequence[str]:
    """Further options of `opstream up`. Define a fixture of this name if you need some."""
    return ()


@pytest.fixture(scope="session")
def opstream_system(
    opstream_actions: Sequence[str], opstream_options: Sequence[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSystem]:
    """A whole opstream with your actions, on free ports, for all tests of the session."""
    folder = tmp_path_factory.mktemp("opstream")
    with serving(*opstream_actions, data_dir=folder, options=tuple(opstream_options)) as system:
        yield system


@pytest.fixture
def opstream_client(opstream_system: LocalSystem) -> Iterator[OperationsClient]:
    """A client of it."""
    with opstream_system.client() as client:
        yield client
