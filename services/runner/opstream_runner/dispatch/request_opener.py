"""What an attempt needs of an operation: its input, from wherever it is, and of a confidential one all of it opened."""

from __future__ import annotations

import logging

import msgspec

from opstream_journal.errors import KeyUnusable, NotProvisioned, OperationErased
from opstream_journal.keys.keks import NO_KEK
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.outage_log import OutageLog
from opstream_schemas.errors import SealBroken
from opstream_schemas.names import Kind
from opstream_schemas.seals.sealed_events import open_event, open_record
from opstream_schemas.signals.wait_history import WaitEvent

from .operation_loader import LoadedOperation, OperationLoader

logger = logging.getLogger(__name__)


class RequestOpener:
    """Opens the operations of one action.

    Args:
        loader: reads inputs that are payloads.
        keys: of operations; None for a runner that has none.
        kind: the action.
    """

    def __init__(self, loader: OperationLoader, keys: OperationKeys | None, kind: Kind) -> None:
        self._loader = loader
        self._keys = keys
        self._outage = OutageLog(
            logger,
            f"confidential operations of {kind} are left to other runners",
            f"confidential operations of {kind} can be opened again",
        )

    async def open(self, loaded: LoadedOperation) -> tuple[LoadedOperation, msgspec.Raw] | None:
        """Return an operation and its input; None if they can't be had or opened here, which the log says.

        Another runner may have the key, and a store may be restored. So the operation is handed back until then, or
        until its deadline.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        operation = loaded.operation
        action_input = await self._loader.read_input(loaded)
        if action_input is None or not operation.confidential:
            return None if action_input is None else (loaded, action_input)
        if self._keys is None:
            self._outage.failed(f"{operation.id} is confidential, and this runner can't open it: {NO_KEK}")
            return None
        try:
            key = await self._keys.find(operation.kind, operation.id)
            opened = loaded._replace(
                key=key,
                steps=tuple(open_record(one, key) for one in loaded.steps),
                waits=tuple(WaitEvent(one.position, open_event(one.data, key)) for one in loaded.waits),
            )
            action_input = key.open_json(action_input)
        except (KeyUnusable, NotProvisioned, OperationErased, SealBroken) as error:
            self._outage.failed(str(error))
            return None
        self._outage.recovered()
        return opened, action_input
