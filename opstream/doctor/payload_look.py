"""A look at a payload store outside of the broker: is the folder there, does the bucket answer? It writes nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from opstream_journal import Connection
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.topology import INSTALLATION
from opstream_payloads.errors import PayloadError
from opstream_payloads.location import StoreLocation
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM
from opstream_schemas.payloads.payload_ref import PayloadKey

from .system_findings import Level, SystemFinding

PATIENCE: Final = 10.0
"""Seconds for an answer of the bucket."""
UNREACHABLE: Final = "PayloadStoreUnreachable"
WORKS: Final = "PayloadStore"

_PROBE: Final = PayloadKey("opstream-doctor", "0" * 32)
"""A payload that there never is: whether the store says so is what counts."""
_FOLDER_STEP: Final = (
    "mount it on this machine, or give its rights to this user; while it is away, submits of large inputs are answered "
    "503, and large results wait"
)
_BUCKET_STEP: Final = (
    "look at AWS_ENDPOINT_URL, AWS_REGION, the keys and the bucket's name; while it does not answer, submits of large "
    "inputs are answered 503, and large results wait"
)
_NO_IDENTITY: Final = "run 'opstream provision --update', which makes that stream, and restart the services"


async def look_at_payload_store(location: StoreLocation, connection: Connection) -> list[SystemFinding]:
    """Return what is wrong with a payload store; that on the broker is looked at with its streams.

    Args:
        location: where the services have it.
        connection: to the broker, which knows the identity of the installation.

    Raises:
        JournalError: the broker did not answer.
    """
    if not (location.folder or location.bucket):
        return []
    config = await admin.stream_config(connection, PAYLOADS_STREAM)
    installation = "" if config is None else (config.metadata or {}).get(INSTALLATION, "")
    if not installation:
        what = f"{location.shown} can't be used: the broker has no stream {PAYLOADS_STREAM} with an identity"
        return [_finding(what, _NO_IDENTITY)]
    if location.folder:
        why = await asyncio.to_thread(_folder_fault, Path(location.folder), installation)
        step = _FOLDER_STEP
    else:
        why, step = await _bucket_fault(location, installation), _BUCKET_STEP
    if why:
        return [_finding(f"{location.shown} can't be reached: {why}", step)]
    return [SystemFinding(name=WORKS, level=Level.OK, message=f"{location.shown} can be read")]


def _folder_fault(folder: Path, installation: str) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    own = folder / installation
    used = own if own.exists() else folder  # the first service makes it
    return "" if os.access(used, os.R_OK | os.W_OK | os.X_OK) else f"this user may not read and write in {used}"


async def _bucket_fault(location: StoreLocation, installation: str) -> str:
    from opstream_payloads.s3_store import S3Payloads

    try:
        async with asyncio.timeout(PATIENCE):
            await S3Payloads(location.bucket, location.prefix, installation).stat(_PROBE)
    except TimeoutError:
        return f"no answer within {PATIENCE:g} s"
    except PayloadError as error:
        return str(error)
    return ""


def _finding(message: str, next_step: str) -> SystemFinding:
    return SystemFinding(name=UNREACHABLE, level=Level.CRITICAL, message=message, next_step=next_step)
