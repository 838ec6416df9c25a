"""The warehouse: it sends each order once, by its key, and calls it back."""

from __future__ import annotations

from opstream import ActionError

from .ledger import Ledger


class Warehouse:
    """Parcels by the keys of their orders.

    Args:
        ledger: where the parcels are.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ship(self, key: str, address: str) -> str:
        """Send an order. Return the number of its parcel, also of one that was sent before.

        Raises:
            ActionError: it was called back already, so it is not sent any more.
        """
        self._ledger.add(f"{key}.parcel", address)
        if self._ledger.read(f"{key}.recall") is not None:
            raise ActionError("ParcelRecalled", "the order was called back")
        return f"P-{key}"

    def recall(self, key: str) -> bool:
        """Call an order back. Return False for one that was not sent, and can't be any more."""
        self._ledger.add(f"{key}.recall", "")
        return self._ledger.read(f"{key}.parcel") is not None

    def sent(self) -> list[str]:
        """Return the keys of the orders that were sent and not called back."""
        entries = self._ledger.names()
        keys = [entry.removesuffix(".parcel") for entry in entries if entry.endswith(".parcel")]
        return [key for key in keys if f"{key}.recall" not in entries]
