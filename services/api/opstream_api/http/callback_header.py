"""The header `Operation-Callback`: where a client wants the outcome delivered. Pure. Called by `app.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.urls import HostRule, is_host_allowed, parse_url

from .requests import Headers, single_value

CALLBACK_HEADER: Final = "Operation-Callback"


class CallbackPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which callbacks are taken."""

    hosts: tuple[HostRule, ...] = ()
    """Without any, none is."""
    is_http_allowed: bool = False
    """For development: without TLS whoever is on the way reads the outcome."""

    @classmethod
    def parse(cls, hosts: Sequence[str], *, is_http_allowed: bool = False) -> CallbackPolicy:
        """From hosts as they are written.

        Raises:
            InvalidName: one of them is no host.
        """
        return cls(hosts=tuple(map(HostRule.parse, hosts)), is_http_allowed=is_http_allowed)


def parse_callback(headers: Headers, policy: CallbackPolicy) -> str:
    """The callback URL of a submit; empty for none.

    Raises:
        ApiError: `InvalidHeader`: it is no https URL, or its host is not one that may be called.
    """
    value = single_value(headers, CALLBACK_HEADER)
    if value is None:
        return ""
    if not policy.hosts:
        raise _invalid("this service calls nobody back: leave the header out and ask for the status")
    try:
        url = parse_url(value, is_http_allowed=policy.is_http_allowed)
    except InvalidName as error:
        raise _invalid(f"{CALLBACK_HEADER}: {error}") from error
    if not is_host_allowed(url, policy.hosts):
        raise _invalid(f"{CALLBACK_HEADER}: this service does not call {url.netloc}; its operator allows hosts")
    return value


def _invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_HEADER, message, target=CALLBACK_HEADER)
