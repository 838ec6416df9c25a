"""The actions of bulk operations. They are opstream's own: their resource is reserved, so no runner offers them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from opstream_schemas.names import Kind

MAX_ITEMS: Final = 50_000
"""Operations that one bulk operation may select."""
DEFAULT_RATE: Final = 50
"""Items a second, unless the request says otherwise."""
MAX_RATE: Final = 500


class BulkAct(StrEnum):
    """What is done to each operation."""

    RETRY = "retry"
    CANCEL = "cancel"

    @property
    def kind(self) -> Kind:
        """Return the kind of the bulk operation."""
        return Kind("operations", self.value)


BULK_KINDS: Final = tuple(act.kind for act in BulkAct)
