"""What clients send, and what they get."""

from __future__ import annotations

from typing import Annotated

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """A line of an order."""

    name: Text
    cents: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    """Price of one."""
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The input of `order:place`."""

    customer: Text
    address: Text
    items: Annotated[list[Item], msgspec.Meta(min_length=1, max_length=100)]

    @property
    def total(self) -> int:
        """Cents."""
        return sum(item.cents * item.count for item in self.items)


class Approval(msgspec.Struct, forbid_unknown_fields=True):
    """The signal `approval`, which a person sends for a large order."""

    approved: bool
    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Placed(msgspec.Struct):
    """The result of `order:place`."""

    cents: int
    """What was charged."""
    parcel: str
    """Number of the parcel."""
