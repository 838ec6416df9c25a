"""The bank: it takes each payment once, by its key, and gives it back once."""

from __future__ import annotations

from opstream import ActionError

from .ledger import Ledger


class Bank:
    """Payments by keys that its clients choose, as payment providers have them.

    Args:
        ledger: where the payments are.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def charge(self, key: str, cents: int) -> int:
        """Take the money. Return the cents that were taken, by this call or an earlier one with the key.

        Raises:
            ActionError: it was given back already, so it is not taken any more.
        """
        taken = int(self._ledger.add(f"{key}.charge", str(cents)))
        if self._ledger.read(f"{key}.refund") is not None:
            raise ActionError("PaymentRefunded", "the payment was given back")
        return taken

    def refund(self, key: str) -> int:
        """Give the money back. Return how many cents; 0 for a payment that was not made, and can't be any more."""
        self._ledger.add(f"{key}.refund", "")
        return int(self._ledger.read(f"{key}.charge") or 0)

    def balance(self) -> dict[str, int]:
        """Return the cents of each payment that was made and not given back."""
        entries = self._ledger.names()
        keys = [entry.removesuffix(".charge") for entry in entries if entry.endswith(".charge")]
        return {key: int(self._ledger.read(f"{key}.charge") or 0) for key in keys if f"{key}.refund" not in entries}
