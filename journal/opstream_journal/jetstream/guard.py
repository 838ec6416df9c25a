"""The headers with which the broker refuses what somebody else was first with. Callers: `journal.py`, `reads.py`."""

from __future__ import annotations

from .rpc import StoredMessage


def guard(subjects: str, sequence: int) -> dict[str, str]:
    """The headers with which a stream takes a message only while the last one on `subjects`, a filter, has that
    sequence; 0: while there is none."""
    return {
        "Nats-Expected-Last-Subject-Sequence": str(sequence),
        "Nats-Expected-Last-Subject-Sequence-Subject": subjects,
    }


def was_guarded(message: StoredMessage, subjects: str, sequence: int) -> bool:
    """Whether a message, as `get_last` and `get_next` give it, was taken with that `guard`."""
    lines = (f"\r\n{name}: {value}\r\n".encode() for name, value in guard(subjects, sequence).items())
    return all(line in message.hdrs for line in lines)
