"""The API keys that are in use, by their ids: it recognizes the key of a request with one look-up and one SHA-256."""

from __future__ import annotations

import hmac
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from opstream_api.access.access_end import AccessEnds
from opstream_api.access.denials.denial import Denial
from opstream_api.access.principal import Principal
from opstream_api.access.scopes import Scopes
from opstream_schemas.errors import InvalidName
from opstream_schemas.logs.access_log import DenialReason

from .api_key import PREFIX, ApiKeyRecord, check_record, decode_key, digest_of

logger = logging.getLogger(__name__)

_PREFIX: Final = PREFIX.encode()
_ID_BEGIN: Final = len(_PREFIX)
_NOBODY: Final = Principal(tenant="", subject="-", scopes=Scopes.parse(()))


class _KnownKey(NamedTuple):
    digest: bytes
    expires: float
    """Unix seconds."""
    principal: Principal


class KeyRegistry:
    """The API keys of one process, an `Authenticator`.

    Args:
        ends: hears of each key that is revoked, changed or gone.
        now: returns Unix seconds.
    """

    def __init__(self, ends: AccessEnds, now: Callable[[], float]) -> None:
        self._ends = ends
        self._now = now
        self._keys: dict[str, _KnownKey] = {}
        self._revoked: dict[str, _KnownKey] = {}
        """Only to say why one is refused."""
        self._unknown = _KnownKey(digest_of(b""), -math.inf, _NOBODY)

    def takes(self, credentials: bytes) -> bool:
        """Return True if credentials have the form of an API key."""
        return credentials.startswith(_PREFIX)

    async def authenticate(self, credentials: bytes) -> Principal | None:
        """Return the principal of a key; None for one that is unknown, expired or revoked.

        An unknown id costs the same as a known one, and the hashes are compared in constant time.
        """
        key_id = credentials[_ID_BEGIN : credentials.find(b"_", _ID_BEGIN)]
        known = self._keys.get(key_id.decode("latin-1"), self._unknown)
        is_right = hmac.compare_digest(known.digest, digest_of(credentials))
        return known.principal if is_right and self._now() < known.expires else None

    def denial(self, credentials: bytes) -> Denial:
        """Return why a key was refused. Only the right secret proves whose key it was."""
        key_id = credentials[_ID_BEGIN : credentials.find(b"_", _ID_BEGIN)].decode("latin-1")
        revoked = self._revoked.get(key_id)
        known = revoked or self._keys.get(key_id, self._unknown)
        is_right = hmac.compare_digest(known.digest, digest_of(credentials))
        if known is self._unknown:
            return Denial(DenialReason.UNKNOWN_KEY)
        if not is_right:
            return Denial(DenialReason.WRONG_SECRET, key_id=key_id)
        return Denial(DenialReason.EXPIRED_KEY if revoked is None else DenialReason.REVOKED_KEY, known.principal)

    def is_current(self, principal: Principal) -> bool:
        """Return True if a principal's key is still the one that it was. A status token's has no subject."""
        known = self._keys.get(principal.key_id)
        return known is not None and (known.principal is principal or not principal.subject)

    def principal(self, key_id: str) -> Principal | None:
        """Return the principal of a key that is in use now; None for any other."""
        known = self._keys.get(key_id)
        return known.principal if known is not None and self._now() < known.expires else None

    def use_encoded(self, records: Mapping[str, bytes]) -> None:
        """Use these records, as the broker has them, in place of all others. One that can't be read is left out."""
        found = []
        for key_id, data in records.items():
            try:
                record = decode_key(data)
            except InvalidName as error:
                logger.warning("the API key %s is not in use: %s", key_id, error)
                continue
            if record.id == key_id:
                found.append(record)
            else:
                logger.warning("the API key %s is not in use: its record is that of another one", key_id)
        self.use(found)

    def use(self, records: Iterable[ApiKeyRecord]) -> None:
        """Use these records in place of all others."""
        before, self._keys, self._revoked = self._keys, {}, {}
        for record in records:
            known = before.get(record.id)
            if record.revoked is None:
                fresh = _known(record)
                # The same object for the same key: so requests that wait see that nothing has changed.
                self._keys[record.id] = known if known == fresh and known is not None else fresh
            else:
                self._revoked[record.id] = _known(record)
        for key_id, known in before.items():
            if self._keys.get(key_id) is not known:
                self._ends.end(key_id)


def _known(record: ApiKeyRecord) -> _KnownKey:
    checked = check_record(record)
    expires = math.inf if checked.expires is None else checked.expires.timestamp()
    return _KnownKey(bytes.fromhex(checked.sha256), expires, checked.principal())
