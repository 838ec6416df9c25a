"""What can be wrong with an index; each text says what to do next."""

from __future__ import annotations


class IndexFault(Exception):
    """Base of the errors of this package."""


class InvalidLocation(IndexFault):
    """A URL names no index."""


class IndexUnavailable(IndexFault):
    """The database does not answer, is full or busy, or has no index yet. It may work later."""


class IndexDamaged(IndexUnavailable):
    """The database says that what it holds is damaged. The next writer that opens it makes it again."""


class IndexUnusable(IndexFault):
    """The database can't hold an index: it holds something else, or lacks what opstream needs."""


class QueryTimeout(IndexFault):
    """A query took longer than it may."""
