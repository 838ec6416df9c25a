"""The header `Operation-Callback`: the URL to deliver the outcome to. Pure."""

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
    """Which callback URLs a submit may name."""

    hosts: tuple[HostRule, ...] = ()
    """Empty: none."""
    is_http_allowed: bool = False
    """For development only: without TLS anyone on the network path can read the outcome."""

    @classmethod
    def parse(cls, hosts: Sequence[str], *, is_http_allowed: bool = False) -> CallbackPolicy:
        """Build a policy from hosts as an operator writes them.

        Raises:
            InvalidName: one of them is not a host.
        """
        return cls(hosts=tuple(map(HostRule.parse, hosts)), is_http_allowed=is_http_allowed)


def parse_callback(headers: Headers, policy: CallbackPolicy) -> str:
    """Return the callback URL of a submit; empty without one.

    Raises:
        ApiError: `InvalidHeader`: it is not an https URL, or the policy does not allow its host.
    """
    value = single_value(headers, CALLBACK_HEADER)
    if value is None:
        return ""
    if not policy.hosts:
        raise _invalid("this service delivers no callbacks: leave the header out and poll the status")
    try:
        url = parse_url(value, is_http_allowed=policy.is_http_allowed)
    except InvalidName as error:
        raise _invalid(f"{CALLBACK_HEADER}: {error}") from error
    if not is_host_allowed(url, policy.hosts):
        raise _invalid(f"{CALLBACK_HEADER}: this service's operator does not allow calls to {url.netloc}")
    return value


def _invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_HEADER, message, target=CALLBACK_HEADER)
