"""From the claims of a verified bearer token to a principal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from opstream_api.access.principal import Principal, check_subject, check_tenant
from opstream_api.access.scopes import MAX_SCOPES, Scopes, check_scope
from opstream_schemas.errors import InvalidName

from .errors import TokenRefused
from .jwt_settings import JwtSettings

_POINTER: Final = "/"


def principal_of(claims: Mapping[str, Any], settings: JwtSettings, expires_at: float) -> Principal:
    """Return the principal that a token names.

    Scopes of other services are ignored: providers give `openid` and `profile` beside ours. With a prefix, so is each
    scope that does not begin with it, also one that is named as ours.

    Args:
        claims: of a token whose signature, issuer, audience and times are right.
        settings: they name the claims.
        expires_at: Unix seconds.

    Raises:
        TokenRefused: a claim is missing or of another type. A token without a tenant is none of the operator's own: it
            is refused if the settings name a claim for it.
    """
    tenant = ""
    try:
        if settings.tenant_claim:
            tenant = check_tenant(_text_claim(claims, settings.tenant_claim))
        subject = check_subject(_text_claim(claims, settings.subject_claim))
    except InvalidName as error:
        raise TokenRefused(str(error)) from error
    found = _find(claims, settings.scope_claim)
    scopes = Scopes.parse(_known_scopes(found, settings.scope_claim, settings.scope_prefix))
    return Principal(
        tenant=tenant, subject=subject, scopes=scopes, expires_at=datetime.fromtimestamp(expires_at, tz=UTC)
    )


def _text_claim(claims: Mapping[str, Any], name: str) -> str:
    value = _find(claims, name)
    if not isinstance(value, str) or not value:
        raise TokenRefused(f"its claim {name} is {'missing' if value is None else 'no text'}")
    return value


def _known_scopes(value: Any, name: str, prefix: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    if value is None:
        return
    texts = value.split() if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TokenRefused(f"its claim {name} is no list of scopes")
    if len(texts) > MAX_SCOPES:
        raise TokenRefused(f"its claim {name} has more than {MAX_SCOPES} scopes")
    for text in texts:
        if not text.startswith(prefix):
            continue  # of another service
        try:
            yield check_scope(text[len(prefix) :])
        except InvalidName:
            continue  # of another service


def _find(claims: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - JSON
    """Return a claim by its name, or by its JSON Pointer, through objects only; None without it."""
    if not name.startswith(_POINTER):
        return claims.get(name)
    found: Any = claims
    for part in name[1:].split("/"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found
