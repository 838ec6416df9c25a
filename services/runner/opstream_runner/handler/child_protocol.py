"""The messages between the runner and the process of an isolated action: frames of a length and JSON.

Both ends are always of the same release, so the format has no versions.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from opstream_runner.authoring.files.uploaded_file import UploadedFile
from opstream_runner.errors import FileNotAttached, FileNotFetched
from opstream_runner.steps.children import ChildrenAsk, ChildrenReply
from opstream_runner.steps.clean_up import CanceledRecord
from opstream_runner.steps.step_errors import StepNotRecorded, StepResultTooLarge, StepUnreadable
from opstream_schemas.events import WaitBegun
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.signals.wait_history import ClosedWait
from opstream_schemas.steps.step_history import StepRecord

from .invocation import Postponed, Raised, Returned, Stopped, Suspended

ANSWERED_ERRORS: Final = {
    error.__name__: error
    for error in (StepResultTooLarge, StepNotRecorded, StepUnreadable, FileNotAttached, FileNotFetched)
}
"""What the runner's answer may have the child raise, by name."""
FRAME_HEADER: Final = struct.Struct("!I")
"""The length of the message that follows, in bytes."""


class ChildStart(msgspec.Struct, frozen=True, kw_only=True):
    """The runner's first message: the handler to run and its input."""

    module: str
    """Import path of the module that holds the action."""
    kind: str
    """`resource:action`."""
    input: msgspec.Raw
    operation_id: str
    resource_id: str
    attempt: int
    traceparent: str
    limit: int
    """The result's maximum, in bytes of JSON."""
    path: list[str]
    """The runner's `sys.path`."""
    log_level: int
    is_log_json: bool = False
    is_traced: bool = False
    """Whether `traceparent` is that of the attempt's span, in which spans of the handler are nested."""
    steps: tuple[StepRecord, ...] = ()
    """What earlier attempts have recorded of their steps."""
    sleeps: tuple[WaitBegun, ...] = ()
    """The waits for a time, which are over."""
    closed: dict[str, ClosedWait] = {}
    """The waits for signals that are over, by name."""
    is_proven: bool = False
    """See `WaitTable`."""
    record: CanceledRecord | None = None
    """Of an attempt after a cancel request (`CleanUp`)."""
    marks_clean_up: bool = False
    """See `StepTable`."""
    uploads: tuple[UploadedFile, ...] = ()


class StepRecorded(msgspec.Struct, frozen=True):
    """The runner's answer to anything that has a number."""

    number: int
    error: str = ""
    """Why it is not stored; empty if it is."""
    kind: str = ""
    """The name of one of `ANSWERED_ERRORS`, or anything else for an attempt that is over."""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """The result that was wanted."""
    reply: ChildrenReply | None = None
    """To what was asked about children."""


class Begun(msgspec.Struct, frozen=True, tag=True):
    """The child found the action and calls its handler now."""


class Reported(msgspec.Struct, frozen=True, tag=True):
    """Progress that is to be recorded."""

    percent: float
    message: str


class CleaningUp(msgspec.Struct, frozen=True, tag=True):
    """The handler was canceled where its record ends, and cleans up."""


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """An event of a step that is to be recorded."""

    number: int
    """By which the runner answers; each once."""
    event: str
    """Its type."""
    data: msgspec.Raw


class ResultWanted(msgspec.Struct, frozen=True, tag=True):
    """A recorded result that is too large for its event. The runner reads it."""

    number: int
    """As of `StepDone`."""
    payload: PayloadRef


class FileWanted(msgspec.Struct, frozen=True, tag=True):
    """An upload that is to be written into a file. The runner does it."""

    number: int
    """As of `StepDone`."""
    name: str
    path: str


class FileAdded(msgspec.Struct, frozen=True, tag=True):
    """A file that is to be added to the operation. The runner reads it by itself."""

    number: int
    """By which the runner answers; each once, also among those of steps."""
    path: str
    name: str
    media_type: str


class ChildrenAsked(msgspec.Struct, frozen=True, tag=True):
    """A question about the operation's children."""

    number: int
    """By which the runner answers; as of `StepDone`."""
    ask: ChildrenAsk


ChildMessage = (
    Begun
    | Reported
    | CleaningUp
    | StepDone
    | ResultWanted
    | FileAdded
    | ChildrenAsked
    | FileWanted
    | Returned
    | Raised
    | Postponed
    | Stopped
    | Suspended
)
"""What the child sends. An outcome is its last message."""

decode_start: Final = msgspec.json.Decoder(ChildStart).decode
decode_child_message: Final = msgspec.json.Decoder(ChildMessage).decode
decode_step_recorded: Final = msgspec.json.Decoder(StepRecorded).decode


def encode_frame(message: Any) -> bytes:  # noqa: ANN401 - any message of this module
    """Return the bytes of a message, with its length first.

    Raises:
        msgspec.EncodeError, UnicodeEncodeError, OverflowError: the message holds a value that has no JSON.
    """
    encoded = msgspec.json.encode(message)
    return FRAME_HEADER.pack(len(encoded)) + encoded
