"""Upload tokens: who has one may upload one file for one operation that is not submitted yet (docs/adr/0075). Pure.

Two sorts. A *place* is in the URL to which the file is sent: it says who asked for it. A *claim* is the answer to the
upload, and a header of the submit: it says which bytes were stored. No process keeps anything of an upload: its code
holds all parts together, and holds them to the operation and to its owner.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from opstream_api.access.tokens.sealed_grants import SealedGrants
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.payloads.payload_ref import PayloadRef, payload_key, payload_uri

MAX_CLAIM: Final = 768
"""Characters of a claim: the longest name and media type fit."""

_PLACES: Final = b"opstream upload place, version 1"
_CLAIMS: Final = b"opstream upload claim, version 1"
_MARK_BYTES: Final = 16


class UploadPlace(msgspec.Struct, frozen=True, array_like=True):
    """What the token in the URL of an upload says of itself."""

    expires_at: int
    """Unix seconds: until when the upload may begin."""
    key_id: str
    """The API key of the caller that asked for it: the token ends with that. Empty for a bearer token."""
    tenant: str
    """Of that caller."""
    owner: str
    """`owner_mark` of that caller."""


class UploadClaim(msgspec.Struct, frozen=True, array_like=True):
    """What the answer to an upload says of the file."""

    expires_at: int
    """Unix seconds: until when the submit may come. Afterwards the file may be gone."""
    unique: bytes
    """Last part of the payload's key."""
    size: int
    sha256: bytes
    name: str
    media_type: str

    def attachment(self, stored_id: str) -> Attachment:
        """Return the file, as the event of a request has it."""
        uri = payload_uri(payload_key(stored_id, self.unique.hex()))
        ref = PayloadRef(uri=uri, size=self.size, sha256=self.sha256.hex())
        return Attachment(file_name=self.name, media_type=self.media_type, payload=ref)


class UploadTokens:
    """Makes and verifies both.

    Args:
        secret: of the installation, the same in each API process. Empty without authentication: then anybody may
            submit anything, and the codes prove nothing.
    """

    def __init__(self, secret: bytes) -> None:
        self._places = SealedGrants(secret, _PLACES, UploadPlace)
        self._claims = SealedGrants(secret, _CLAIMS, UploadClaim, max_length=MAX_CLAIM)

    def sign_place(self, place: UploadPlace, operation_id: str, name: str) -> str:
        """Return the token for the upload of a file of this name, for an operation with the id of the URL."""
        return self._places.seal(place, operation_id, name)

    def open_place(self, token: str, operation_id: str, name: str, now: float) -> UploadPlace | None:
        """Return what a token grants; None if it was not made here, is for something else, or has expired."""
        place = self._places.open(token, operation_id, name)
        return place if place is not None and now < place.expires_at else None

    def sign_claim(self, claim: UploadClaim, stored_id: str, owner: str) -> str:
        """Return the claim of an upload.

        Args:
            claim: the file.
            stored_id: the id under which its operation will be stored.
            owner: `owner_mark` of who may submit it.
        """
        return self._claims.seal(claim, stored_id, owner)

    def open_claim(self, token: str, stored_id: str, owner: str) -> UploadClaim | None:
        """Return what a claim says; None if it was not made here, or for another operation or owner. It may have
        expired."""
        return self._claims.open(token, stored_id, owner)


def owner_mark(subject: str) -> str:
    """Return a short text that stands for a caller, of whatever length its name is."""
    return hashlib.sha256(subject.encode(errors="surrogatepass")).digest()[:_MARK_BYTES].hex()
