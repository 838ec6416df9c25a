"""Errors of the journal. An error of nats-py is translated into one of these and kept as its cause."""

from __future__ import annotations

from opstream_schemas.event_types.erasure import Erasure


class JournalError(Exception):
    """Base of the errors of this package."""


class BrokerUnreachable(JournalError):
    """No broker answered within the connect timeout."""


class InvalidCredentials(BrokerUnreachable):
    """The credentials file can't be read, or is none."""


class LoginNotPermitted(JournalError):
    """The login of this process at the broker is another role's, or may not do what the process is for."""


class BrokerTooOld(JournalError):
    """The broker's version is one that may lose what it has acknowledged."""


class NotProvisioned(JournalError):
    """A stream, bucket or consumer is missing; `opstream provision` creates it."""


class RestoreUnfinished(NotProvisioned):
    """Of a backup that is being restored, only a part is there so far; `opstream restore` ends it, or begins again."""


class ActionServed(JournalError):
    """An action has runners, so it can't be withdrawn."""


class SchemaChanged(JournalError):
    """The catalog has the same version of an action with other types, or another confidentiality."""


class Drifted(JournalError):
    """A stream, bucket or consumer differs from what this version needs."""


class ForeignStream(Drifted):
    """A stream, bucket or consumer with one of opstream's names is another application's."""


class StreamReplaced(JournalError):
    """While it was read, the stream was created again or set back to an older state: its sequences are not the same."""


class ConsumerGone(JournalError):
    """The durable consumer was deleted while it was in use."""


class JournalUnavailable(JournalError):
    """The broker did not answer in time, or has no leader.

    Attributes:
        maybe_stored: True if the message may be stored nevertheless.
    """

    def __init__(self, message: str, *, maybe_stored: bool) -> None:
        super().__init__(message)
        self.maybe_stored = maybe_stored


class NoLeader(JournalUnavailable):
    """The servers that run are too few, or JetStream is switched off: nothing can be stored or decided."""

    def __init__(self, message: str, *, maybe_stored: bool = False) -> None:
        super().__init__(message, maybe_stored=maybe_stored)


class BrokerRefused(JournalError):
    """The broker answered with an error.

    Attributes:
        code: HTTP-like class of the error.
        err_code: JetStream's number for the error.
        description: the broker's text.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"the broker refused: {description} (err_code {err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class JournalFull(JournalError):
    """The stream, the account or the server reached its limit of storage: nothing more is stored until it is raised,
    or something expires."""


class EventTooLarge(JournalError):
    """The event is larger than the stream's `max_msg_size` or the broker's `max_payload`; it was not stored."""


class ConflictWithoutNews(JournalUnavailable):
    """The broker refuses a version again and again, and no read shows another one (docs/adr/0028).

    Nothing was stored.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, maybe_stored=False)


class VersionConflict(JournalError):
    """Another writer extended the operation first.

    Attributes:
        expected: the stream sequence of the last event that the writer had seen; 0 for none.
        actual: the stream sequence of the operation's last event in the journal.
    """

    def __init__(self, operation_id: str, expected: int, actual: int) -> None:
        super().__init__(f"operation {operation_id} is at stream sequence {actual}, not {expected}")
        self.expected = expected
        self.actual = actual


class KeyUnusable(JournalError):
    """The key of a confidential operation can't be used here: its KEK is not known, or it is damaged."""


class KeyMissing(KeyUnusable):
    """The key of a confidential operation is not on this broker, although it was not erased."""


class OperationErased(JournalError):
    """The key of a confidential operation was destroyed.

    Attributes:
        erasure: when, by whom and why.
    """

    def __init__(self, operation_id: str, erasure: Erasure) -> None:
        super().__init__(f"operation {operation_id} was erased at {erasure.at.isoformat()}")
        self.erasure = erasure
