"""A denial as the place knows it that denies: the reason, and whose credentials they were. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from opstream_api.access.principal import Principal
from opstream_schemas.logs.access_log import DenialReason

DENIAL_KEY: Final = "opstream_denial"
"""Key of the `Denial` in the scope's `state`, if the status code of the answer does not say all."""


class Denial(NamedTuple):
    """Why a request is denied."""

    reason: DenialReason
    principal: Principal | None = None
    """Whose credentials they were, if they prove it; None for a stranger."""
    key_id: str = ""
    """Id of an existing key that a stranger named with a wrong secret."""
