"""An upload: the client asks for a place, and sends the file there until it has come whole."""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import PurePath
from typing import Final
from urllib.parse import quote

import msgspec

from opstream.client.errors import InvalidRequest, UnexpectedAnswer
from opstream.client.flows import Flows
from opstream.client.io_requests import Flow, SendRequest
from opstream.client.models import Upload
from opstream.client.responses import UNDECODABLE, not_from_opstream, response_error
from opstream_schemas.errors import InvalidName
from opstream_schemas.event_types.claims import check_file_name, check_media_type
from opstream_schemas.names import check_operation_id

from .upload_source import OnProgress, UploadSource

_PIECE_TIMEOUT: Final = 60.0
"""Seconds for each piece, and for the answer: the service stores a file whole before it answers."""


class _Place(msgspec.Struct, frozen=True, rename="camel"):
    max_size: int


_decode_place: Final = msgspec.json.Decoder(_Place).decode
_decode_upload: Final = msgspec.json.Decoder(Upload).decode


class UploadFlow:
    """The call about uploads.

    Args:
        flows: of the client.
    """

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def upload(
        self,
        source: str | os.PathLike[str] | bytes,
        *,
        name: str | None,
        media_type: str,
        operation_id: str | None,
        timeout: float | None,
        on_progress: OnProgress | None,
    ) -> Flow[Upload]:
        """`OperationsClient.upload`."""
        chosen_name = _name_of(source) if name is None else name
        chosen_id = self._flows.new_id() if operation_id is None else operation_id
        try:
            check_file_name(chosen_name)
            check_media_type(media_type)
            check_operation_id(chosen_id)
        except InvalidName as error:
            raise InvalidRequest(str(error)) from error
        budget = self._flows.retry_budget(timeout)
        file = UploadSource(source, budget.restart, on_progress)
        what = f"the upload of {chosen_name!r} for operation {chosen_id}"
        hint = "upload it again"
        url = f"{self._flows.urls.base}/payloads"
        # Asked first, so that a file that is refused is not sent. Its URL has a token for others; this client has its
        # own credentials, and sends them, and the file, to the URL that it was given by its user.
        ask = SendRequest(
            method="POST",
            url=url,
            headers={"Accept": "application/json", "Content-Type": "application/json", "Operation-Id": chosen_id},
            content=msgspec.json.encode({"name": chosen_name}),
            timeout=_PIECE_TIMEOUT,
        )
        response = yield from self._flows.send(ask, budget, chosen_id, hint)
        if response.status != HTTPStatus.CREATED:
            raise response_error(response, what)
        try:
            place = _decode_place(response.content)
        except UNDECODABLE as error:
            raise not_from_opstream(response, what) from error
        if file.size > place.max_size:
            raise InvalidRequest(
                f"{chosen_name!r} has {file.size:,} bytes, and this service takes {place.max_size:,}: split it, or ask "
                "its operator for a larger --max-upload"
            )
        put = SendRequest(
            method="PUT",
            url=f"{url}/{chosen_id}/{quote(chosen_name, safe='')}",
            headers={"Accept": "application/json", "Content-Type": media_type, "Content-Length": str(file.size)},
            timeout=_PIECE_TIMEOUT,
            source=file,
        )
        response = yield from self._flows.send(put, budget, chosen_id, hint)
        if response.status != HTTPStatus.CREATED:
            raise response_error(response, what)
        try:
            uploaded = _decode_upload(response.content)
        except UNDECODABLE as error:
            raise not_from_opstream(response, what) from error
        if (uploaded.size, uploaded.sha256, uploaded.operation_id) != (file.size, file.sha256, chosen_id):
            message = f"{what}: other bytes came there than were sent: {hint}"
            raise UnexpectedAnswer(message, status=response.status)
        return uploaded


def _name_of(source: str | os.PathLike[str] | bytes) -> str:
    if isinstance(source, bytes):
        raise InvalidRequest("bytes have no name: give one, as upload(data, name='scan.tif')")
    return PurePath(source).name
