"""The place of a message among those that a dispatcher handles at once."""

from __future__ import annotations


class MessageSlot:
    """The place of one message. It is free for another one before its task has ended, if only the outcome is left."""

    __slots__ = ("has_begun", "is_free")

    def __init__(self) -> None:
        self.has_begun = False
        """True once an attempt has begun by the message, so that it has used its turn."""
        self.is_free = False
