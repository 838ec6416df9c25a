"""Disasters of the disk: it is full, and freed again. Each scenario needs a small disk of its own, so it needs root."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.disaster.scenario import Scenario
from tests.disaster.stage import Stage
from tests.support.broker.small_disk import MEBIBYTE, SmallDisk, no_small_disk, small_disk
from tests.support.system.services import BROKER

SIZE: Final = 64 * MEBIBYTE


class FullDisk(Scenario):
    """The broker's disk is filled to the last byte, and freed again; then the broker is restarted."""

    name = "full-disk"

    def __init__(self) -> None:
        self._disk: SmallDisk | None = None

    @property
    def disk(self) -> SmallDisk:
        """The disk that the broker stores on."""
        assert self._disk is not None
        return self._disk

    def reason_to_skip(self) -> str:
        return no_small_disk()

    @contextlib.contextmanager
    def ground(self, folder: Path) -> Iterator[None]:
        with small_disk(folder / "data", SIZE) as self._disk:
            yield

    async def strike(self, stage: Stage) -> None:
        self.disk.fill()
        stage.say("the disk is full")
        await stage.refused()
        await stage.notice(lambda: self._says_so(stage), "/readyz of the API does not name the disk")
        # The disk stays full: this waits for nothing.
        await asyncio.sleep(stage.size.seconds)

    async def recover(self, stage: Stage) -> None:
        stage.operator("free the disk that /readyz names")
        self.disk.free()
        stage.operator("restart the broker")
        await stage.system.restart(BROKER)
        await stage.served()

    async def _says_so(self, stage: Stage) -> bool:
        status, text = await stage.system.readiness("api")
        return status == 503 and "disk" in text
