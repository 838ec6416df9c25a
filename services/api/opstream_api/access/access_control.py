"""All that the routes need to know of access, for a service that asks for credentials."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .access_end import AccessEnds
from .authentication import CHALLENGE, Authenticator
from .limits.request_limit import RequestLimit
from .operation_access import OperationAccess
from .principal import Principal
from .resource_metadata import ResourceMetadata
from .status_access import StatusAccess
from .uploads.upload_token import UploadTokens


def _no_principal(_key_id: str) -> None:
    """The default of `key_principal`."""


class AccessControl(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what over HTTP, in one process."""

    authenticators: tuple[Authenticator, ...]
    operations: OperationAccess
    ends: AccessEnds
    """When requests that wait or stream lose their access."""
    challenge: str = CHALLENGE
    """The value of `WWW-Authenticate` in a 401."""
    open_paths: tuple[bytes, ...] = ()
    """Raw paths besides those of probes that need no credentials."""
    status: StatusAccess | None = None
    """Gives and knows status tokens; None for a service without them."""
    uploads: UploadTokens | None = None
    """Makes and knows the claims of uploads; None in tests of others."""
    requests: RequestLimit | None = None
    """How many requests each caller may send; None for any number."""
    key_principal: Callable[[str], Principal | None] = _no_principal
    """Returns the principal of an API key that is in use; None for any other."""
    metadata: ResourceMetadata | None = None
    """Says where to get a bearer token; None for a service that takes none."""
