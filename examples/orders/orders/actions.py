"""The action, for `opstream up --actions orders.actions`. It reads the environment when it runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from opstream import ActionContext, ActionError, action

from .bank import Bank
from .ledger import Ledger
from .records import Approval, Order, Placed
from .warehouse import Warehouse

FREE_LIMIT = 100_00
"""Cents up to which nobody is asked."""
DAY = 86_400


@action("order:place", clean_up=True, deadline=30 * DAY, retry_after=2)
async def place(order: Order, ctx: ActionContext) -> Placed:
    """Charge an order, have a large one approved, and ship it."""
    bank, warehouse, key = open_bank(), open_warehouse(), ctx.operation_id
    try:
        cents = await ctx.step("charge", bank.charge, key, order.total)
        if cents > FREE_LIMIT:
            check_approved(await ctx.wait_for("approval", Approval, timeout=7 * DAY))
        parcel = await ctx.step("ship", warehouse.ship, key, order.address, max_attempts=5)
    except (asyncio.CancelledError, ActionError):
        # Canceled, refused, or nobody answered within a week: each of these may come before, in and behind any step.
        await ctx.step("recall", warehouse.recall, key)
        await ctx.step("refund", bank.refund, key)
        raise
    return Placed(cents=cents, parcel=parcel)


def check_approved(approval: Approval) -> None:
    """Raise if a person has refused an order.

    Raises:
        ActionError: it is so.
    """
    if not approval.approved:
        raise ActionError("NotApproved", approval.reason or "the order was not approved")


def open_bank() -> Bank:
    """The bank whose payments are below `ORDERS_FOLDER`, by default `.opstream/orders` in the working directory."""
    return Bank(Ledger(_folder() / "bank"))


def open_warehouse() -> Warehouse:
    """The warehouse beside it."""
    return Warehouse(Ledger(_folder() / "warehouse"))


def _folder() -> Path:
    return Path(os.environ.get("ORDERS_FOLDER") or Path.cwd() / ".opstream" / "orders")
