"""What bounds the work of lists in one process, and what becomes of an index that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_api.errors import ApiError
from opstream_api.lists.index_queue import MAX_WAITING
from opstream_api.lists.list_request import ListRequest
from opstream_api.lists.operation_list import OperationList
from opstream_index.errors import IndexUnavailable, QueryTimeout
from opstream_index.lists.cursor import CursorSigner
from opstream_index.lists.plan import ListScope
from opstream_index.lists.reader import ListReader
from opstream_index.lists.sql import SQLITE
from tests.support.index.filled_index import FilledIndex
from tests.support.index.reference_list import row

pytestmark = pytest.mark.unit


class HeldReader(ListReader):
    """A reader that waits before each page, or fails."""

    def __init__(self, index: FilledIndex) -> None:
        super().__init__(index.reader, SQLITE)
        self.may_go = threading.Event()
        self.may_go.set()
        self.error: Exception | None = None

    def page(self, *arguments: Any) -> Any:
        assert self.may_go.wait(10)
        if self.error is not None:
            raise self.error
        return super().page(*arguments)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[HeldReader]:
    """Of an index with one operation."""
    index = FilledIndex(tmp_path, [row(1)])
    yield HeldReader(index)
    index.close()


async def page(lists: OperationList) -> Any:
    """A page of everything."""
    answered = await lists.page(ListRequest(), ListScope(), "http://a.test")
    return msgspec.json.decode(answered.body)


async def test_more_lists_than_may_wait(reader: HeldReader) -> None:
    """Those that wait are answered when the index answers, a further one at once with 503, and the next one again."""
    lists = OperationList([reader], signer=CursorSigner(), now=lambda: 1)
    reader.may_go.clear()
    waiting = [asyncio.create_task(page(lists)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as caught:
        await page(lists)
    assert (caught.value.code, caught.value.status) == ("IndexUnavailable", 503)
    assert "Retry-After" in caught.value.headers
    reader.may_go.set()
    assert [len(one["value"]) for one in await asyncio.gather(*waiting)] == [1] * MAX_WAITING
    assert len((await page(lists))["value"]) == 1
    lists.stop()


@pytest.mark.parametrize(
    ("error", "advice"),
    [(QueryTimeout("slow"), "a range of createdAt"), (IndexUnavailable("secret"), "try again")],
)
async def test_an_index_that_fails(reader: HeldReader, error: Exception, advice: str) -> None:
    """The answer is 503 and says what to do; what the database said stays in the log. The next list is answered."""
    lists = OperationList([reader], signer=CursorSigner(), now=lambda: 1)
    reader.error = error
    with pytest.raises(ApiError) as caught:
        await page(lists)
    assert (caught.value.code, caught.value.status) == ("IndexUnavailable", 503)
    assert advice in caught.value.body.error.message
    assert "secret" not in caught.value.body.error.message
    reader.error = None
    assert len((await page(lists))["value"]) == 1
    lists.stop()
