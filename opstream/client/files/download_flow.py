"""A download: a file of an operation, resumed where it broke off, and compared with its hash."""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from opstream.client.errors import InvalidRequest, UnexpectedAnswer
from opstream.client.flows import Flows
from opstream.client.io_requests import CloseStream, Flow, NoResponse, ReadStream, RunBlocking, SendRequest
from opstream.client.models import Operation
from opstream.client.responses import not_from_opstream, response_error
from opstream.client.retries import RetryBudget
from opstream_schemas.errors import InvalidName
from opstream_schemas.event_types.claims import check_file_name
from opstream_schemas.status_monitor import AttachedFile

from .part_file import PartFile
from .upload_source import OnProgress

_PIECE_TIMEOUT: Final = 60.0
"""Seconds for the begin of an answer, and for each piece."""
_HINT: Final = "download it again"


class DownloadFlow:
    """The call about downloads.

    Args:
        flows: of the client.
    """

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def download(
        self,
        operation: Operation | str,
        name: str,
        path: str | os.PathLike[str],
        *,
        timeout: float | None,
        on_progress: OnProgress | None,
    ) -> Flow[Path]:
        """`OperationsClient.download`."""
        operation_id, url = self._flows.id_and_url(operation)
        try:
            check_file_name(name)
        except InvalidName as error:
            raise InvalidRequest(str(error)) from error
        monitor = (yield from self._flows.status(operation, timeout=timeout)).monitor
        file = _find((*monitor.attachments, *monitor.uploads), name, operation_id)
        # Of the path only the last part counts: it belongs to this operation, at the client's own URL.
        url = f"{url}/payloads/{file.href.rpartition('/')[2]}"
        place = Path(path)
        what = f"the download of {name!r} of operation {operation_id}"
        budget = self._flows.retry_budget(timeout)
        with PartFile(place / name if place.is_dir() else place) as part:
            yield RunBlocking(part.open)
            while True:
                yield from self._open(url, part, budget, operation_id, what)
                while (chunk := (yield ReadStream())) and not isinstance(chunk, NoResponse):
                    if part.size + len(chunk) > file.size:  # it may never end
                        raise _other_bytes(what)
                    yield RunBlocking(part.write, (chunk,))
                    budget.restart()
                    budget.reset_pauses()
                    if on_progress is not None:
                        on_progress(part.size, file.size)
                yield CloseStream()
                if part.size >= file.size:
                    break
                trouble = chunk or NoResponse("the download ended too early")
                yield from self._flows.pause_before_retry(trouble, budget, None, operation_id, _HINT)
            if (part.size, part.sha256()) != (file.size, file.sha256):
                raise _other_bytes(what)
            yield RunBlocking(part.put_in_place)
            return part.path

    def _open(self, url: str, part: PartFile, budget: RetryBudget, operation_id: str, what: str) -> Flow[None]:
        """Open the rest of the file, or the whole, of the service or of the store to which it sends.

        Raises:
            RequestRefused, UnexpectedAnswer, ServiceUnavailable: it can't be had.
        """
        # As it is stored: the hash is of these bytes.
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
        send = SendRequest(method="GET", url=url, headers=headers, timeout=_PIECE_TIMEOUT, is_download=True)
        response = yield from self._flows.send(send, budget, operation_id, _HINT)
        if response.status == HTTPStatus.TEMPORARY_REDIRECT:
            location = _store_url(response.headers.get("Location", ""), url, what)
            send = SendRequest(
                method="GET",
                url=location,
                headers=headers,
                timeout=_PIECE_TIMEOUT,
                is_download=True,
                is_foreign=True,
            )
            response = yield from self._flows.send(send, budget, operation_id, _HINT)
            if response.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
                message = f"{what}: the store at {urlsplit(location).netloc} answered {response.status}: {_HINT}"
                raise UnexpectedAnswer(message, status=response.status)
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
                raise not_from_opstream(response, what)
            return
        if response.status != HTTPStatus.OK:
            raise response_error(response, what)
        if part.size:
            yield RunBlocking(part.restart)


def _other_bytes(what: str) -> UnexpectedAnswer:
    message = f"{what}: other bytes came than were stored: {_HINT}; if that remains, the store is damaged"
    return UnexpectedAnswer(message, status=HTTPStatus.OK)


def _find(files: tuple[AttachedFile, ...], name: str, operation_id: str) -> AttachedFile:
    for one in files:
        if one.name == name:
            return one
    names = ", ".join(repr(one.name) for one in files)
    has = f"it has {names}" if names else "it has none, or none yet"
    raise InvalidRequest(f"operation {operation_id} has no file {name!r}: {has}")


def _store_url(location: str, own: str, what: str) -> str:
    """Check the URL of the store, to which the service sends a download. No credentials go there, and no body.

    Raises:
        UnexpectedAnswer: it is none, or would take the download from TLS.
    """
    try:
        parts = urlsplit(location)
        is_good = bool(parts.hostname) and parts.scheme in {"https", urlsplit(own).scheme} and "@" not in parts.netloc
    except ValueError:
        is_good = False
    if not is_good or not location.isascii() or not location.isprintable():
        message = f"{what}: the service sends to a store without TLS, or to no URL: its operator can change that"
        raise UnexpectedAnswer(message, status=HTTPStatus.TEMPORARY_REDIRECT)
    return location
