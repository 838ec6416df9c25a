"""Uploads: a client sends a file before the submit of the operation that it is for, and names it in the submit.

A file is stored under the operation's own id from its first byte. So it has an owner before there is an operation, and
what is never submitted goes with the sweep, as any payload whose operation the journal does not know (docs/adr/0075).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream_api.access.uploads.upload_token import UploadClaim, UploadTokens, owner_mark
from opstream_api.errors import ApiError, journal_error, note_payload_success, payload_error
from opstream_api.http.submit_headers.upload_header import UPLOAD_HEADER
from opstream_api.http.submit_request import OPERATION_ID, SubmitRequest
from opstream_api.operations.journal_capacity import JournalCapacity
from opstream_journal import Journal, JournalError
from opstream_payloads import PayloadError, Payloads, PayloadTooLarge, StoreUnavailable
from opstream_payloads.pieces import Pieces
from opstream_schemas.errors import ErrorCode
from opstream_schemas.event_types.claims import Attachment

from .upload_meter import UploadMeter

CLAIM_SECONDS: Final = 20 * 3_600
"""How long a claim may be used, from the begin of the upload: less than the day after which the sweep may come."""

_NO_STORE: Final = "this process has no payload store"


class UploadTarget(msgspec.Struct, frozen=True, kw_only=True):
    """For which operation a file is, and whose that will be."""

    operation_id: str
    """The client's own id."""
    stored_id: str
    owner: str
    """`owner_mark` of who may submit it."""
    name: str


class Uploaded(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to an upload."""

    operation_id: str
    name: str
    media_type: str
    size: int
    """Bytes."""
    sha256: str
    """Of these bytes, in hex."""
    claim: str
    """For the header `Operation-Upload` of the submit."""
    expires_at: datetime
    """Until when that may be sent."""


class UploadDesk:
    """Takes uploads, and finds them for submits.

    Args:
        payloads: the store; None if there is none.
        journal: knows which operations were submitted.
        capacity: tells whether the journal has room for another operation.
        tokens: of uploads.
        limit: bytes of one file.
        now: returns Unix seconds.

    Attributes:
        limit: the same.
        meter: what became of uploads.
    """

    def __init__(
        self,
        payloads: Payloads | None,
        journal: Journal,
        capacity: JournalCapacity,
        tokens: UploadTokens,
        *,
        limit: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._payloads = payloads
        self._journal = journal
        self._capacity = capacity
        self._tokens = tokens
        self.limit = limit
        self._now = now
        self.meter = UploadMeter()

    async def check_open(self, target: UploadTarget) -> None:
        """Check that a file may be uploaded for an operation.

        Raises:
            ApiError: `OperationIdReused`: it was submitted already; `JournalUnavailable`, `JournalFull`,
                `PayloadStoreUnavailable`.
        """
        if self._payloads is None:
            raise payload_error(StoreUnavailable(_NO_STORE), "no file can be uploaded now")
        try:
            self._capacity.ensure_room()
            is_known = await self._journal.last_message(target.stored_id) is not None
        except JournalError as error:
            raise journal_error(error) from error
        if is_known:
            message = f"operation {target.operation_id} was submitted already, so it takes no more files: use a new id"
            raise ApiError(ErrorCode.OPERATION_ID_REUSED, message, target=OPERATION_ID)

    async def take(self, target: UploadTarget, pieces: Pieces, media_type: str) -> Uploaded:
        """Store a file, and return its claim. Each upload is stored by itself, also of the same name.

        Args:
            target: checked by `check_open`.
            pieces: the file. What it raises ends the upload, and nothing is stored.
            media_type: of the file.

        Raises:
            ApiError: `PayloadTooLarge`: nothing is stored; `PayloadStoreUnavailable`.
        """
        if self._payloads is None:
            raise payload_error(StoreUnavailable(_NO_STORE), "no file can be uploaded now")
        until = int(self._now()) + CLAIM_SECONDS
        try:
            with self.meter.receiving():
                ref = await self._payloads.store_stream(
                    target.stored_id, pieces, limit=self.limit, media_type=media_type
                )
        except PayloadTooLarge as error:
            message = f"the file has more than {self.limit} bytes, which is the limit of this service"
            raise ApiError(ErrorCode.PAYLOAD_TOO_LARGE, message, headers={"Connection": "close"}) from error
        except PayloadError as error:
            raise payload_error(error, f"{target.name} can't be stored now") from error
        note_payload_success()
        claim = UploadClaim(
            expires_at=until,
            unique=bytes.fromhex(ref.key.unique),
            size=ref.size,
            sha256=bytes.fromhex(ref.sha256),
            name=target.name,
            media_type=media_type,
        )
        return Uploaded(
            operation_id=target.operation_id,
            name=target.name,
            media_type=media_type,
            size=ref.size,
            sha256=ref.sha256,
            claim=self._tokens.sign_claim(claim, target.stored_id, target.owner),
            expires_at=datetime.fromtimestamp(until, tz=UTC),
        )

    async def admit(self, submit: SubmitRequest) -> SubmitRequest:
        """Return a submit with the files whose claims it has.

        A repetition of a known request is as good as its first submit, also once its claims have expired.

        Raises:
            ApiError: `InvalidHeader`: a claim is none for this operation and caller, has expired, or two are for files
                of one name; as of `check_open`.
        """
        if not submit.claims:
            return submit
        owner, now = owner_mark(submit.caller.identity), self._now()
        claims = [self._open(text, submit, owner) for text in submit.claims]
        files = tuple(claim.attachment(submit.stored_id) for claim in claims)
        if len({one.file_name for one in files}) != len(files):
            raise _refused("names two files of one name: upload one of them under another name")
        try:
            is_late = any(claim.expires_at <= now for claim in claims) or not await self._are_there(submit, files)
            if is_late and await self._journal.last_message(submit.stored_id) is None:
                raise _refused("names a file that is not kept any more: upload it again")
        except PayloadError as error:
            key = submit.key
            what = "its files can't be looked up now"
            raise payload_error(error, what, operation_id=key.operation_id, is_repeatable=key.is_repeatable) from error
        except JournalError as error:
            key = submit.key
            raise journal_error(error, operation_id=key.operation_id, is_repeatable=key.is_repeatable) from error
        return msgspec.structs.replace(submit, uploads=files)

    def _open(self, text: str, submit: SubmitRequest, owner: str) -> UploadClaim:
        claim = self._tokens.open_claim(text, submit.stored_id, owner)
        if claim is None:
            raise _refused("has a value that is not the claim of an upload for this operation, by this caller")
        return claim

    async def _are_there(self, submit: SubmitRequest, files: Sequence[Attachment]) -> bool:
        if self._payloads is None:
            raise StoreUnavailable(_NO_STORE)
        for one in files:
            if not await self._payloads.is_there(submit.stored_id, one.payload):
                return False
        return True


def _refused(why: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_HEADER, f"{UPLOAD_HEADER} {why}", target=UPLOAD_HEADER)
