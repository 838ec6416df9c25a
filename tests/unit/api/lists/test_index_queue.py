"""Whose question the index answers next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from opstream_api.errors import ApiError
from opstream_api.lists.index_queue import MAX_WAITING_OF_ONE, IndexQueue

pytestmark = pytest.mark.unit


async def test_many_questions_of_one_caller() -> None:
    """They are answered one at a time, so that another caller's comes second, and not last. Too many are refused."""
    queue: IndexQueue[None] = IndexQueue([None])
    answered: list[str] = []
    may_go_on = threading.Event()

    def question(name: str) -> Callable[[None], None]:
        def work(_reader: None) -> None:
            may_go_on.wait(10)
            answered.append(name)

        return work

    async def ask(asker: str, name: str) -> None:
        await queue.run_in_turn(asker, question(name))

    try:
        async with asyncio.TaskGroup() as group:
            names = [f"ann {number}" for number in range(MAX_WAITING_OF_ONE)]
            for name in names:
                group.create_task(ask("ann", name))
            group.create_task(ask("bob", "bob"))
            await asyncio.sleep(0)  # each of them has asked
            with pytest.raises(ApiError, match="of your questions wait"):
                await ask("ann", "one too many")
            may_go_on.set()
        assert answered == [names[0], "bob", *names[1:]]
        await ask("ann", "again")
        assert answered[-1] == "again"
    finally:
        may_go_on.set()
        queue.stop()
