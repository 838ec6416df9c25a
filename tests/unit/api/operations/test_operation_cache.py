"""The cache of folded operations and its bounds."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from opstream_api.operations.operation_cache import OperationCache
from opstream_schemas.operation.state import FOLD_VERSION, Operation, Status

pytestmark = pytest.mark.unit


def operation(name: str, sequence: int = 1, *, result: bytes = b"", message: str = "") -> Operation:
    """A state of an operation."""
    now = datetime.now(UTC)
    return Operation(
        id=name,
        resource="book",
        action="upload-start",
        action_version=1,
        request_hash="",
        status=Status.SUCCEEDED if result else Status.RUNNING,
        created_at=now,
        deadline=now,
        retention=1.0,
        message=message,
        result=msgspec.Raw(result) if result else msgspec.UNSET,
        position=sequence,
        stream_sequence=sequence,
        last_hash="",
        fold_version=FOLD_VERSION,
    )


def test_an_older_state_does_not_replace_a_newer_one() -> None:
    """A slow read that ends last changes nothing, and returns the newer state."""
    cache = OperationCache()
    newer = operation("a", 2)
    assert cache.put(newer) is newer
    assert cache.put(operation("a", 1)) is newer
    assert cache.get("a") is newer


def test_a_newer_state_replaces_an_older_one() -> None:
    """The cache has one state of each operation."""
    cache = OperationCache()
    cache.put(operation("a", 1))
    newer = operation("a", 2)
    cache.put(newer)
    assert cache.get("a") is newer
    assert len(cache) == 1


def test_the_least_recently_used_leave_first() -> None:
    """Reading an operation makes it the most recently used."""
    cache = OperationCache(max_operations=2)
    for name in ("a", "b"):
        cache.put(operation(name))
    cache.get("a")
    cache.put(operation("c"))
    assert [name for name in "abc" if cache.get(name)] == ["a", "c"]


def test_large_results_count() -> None:
    """Bytes are bounded too."""
    cache = OperationCache(max_bytes=10_000)
    for name in ("a", "b", "c"):
        cache.put(operation(name, result=b"1" * 4000))
    assert [name for name in "abc" if cache.get(name)] == ["c"]
    assert cache.size <= 10_000


def test_a_state_larger_than_the_cache_is_not_kept() -> None:
    """It is returned, but not cached."""
    cache = OperationCache(max_bytes=10_000)
    huge = operation("a", result=b"1" * 20_000)
    assert cache.put(huge) is huge
    assert (len(cache), cache.size) == (0, 0)


def test_dropped_bytes_are_free_again() -> None:
    """The estimate returns to zero."""
    cache = OperationCache()
    cache.put(operation("a", 1, message="x" * 100))
    cache.put(operation("a", 2, message="y" * 50))
    cache.drop("a")
    cache.drop("a")
    assert (cache.get("a"), len(cache), cache.size) == (None, 0, 0)


def test_ended_operations_during_a_setback() -> None:
    """Ended operations are forgotten, and kept again after it; open ones stay, which are compared at each read."""
    cache = OperationCache()
    ended, opened = operation("ended", result=b"{}"), operation("open")
    cache.put(ended)
    cache.put(opened)
    cache.suspend(True)
    assert cache.put(ended) is ended
    assert (cache.get("ended"), cache.get("open")) == (None, opened)
    cache.suspend(False)
    cache.put(ended)
    assert cache.get("ended") is ended
    cache.forget_ended()
    assert (cache.get("ended"), cache.get("open"), len(cache)) == (None, opened, 1)
