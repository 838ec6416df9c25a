"""Endpoints and secrets, read from a TOML file and validated as a whole. docs/webhooks.md describes the file."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind, check_name
from opstream_schemas.urls import HostRule, Url, parse_url
from opstream_schemas.webhook_delivery import CALLBACK_ENDPOINT, OUTCOME_EVENTS, WebhookDelivery

from .signature import KEY_PREFIX, Signer

logger = logging.getLogger(__name__)

_ANY: Final = "*"
_FROM_FILE: Final = "file:"
_FROM_ENVIRONMENT: Final = "env:"


class InvalidConfig(ValueError):
    """Endpoints or secrets can't be used. The message says which, and contains no secret."""


class EndpointUnknown(Exception):
    """No endpoint is configured for a delivery: not any more, or not yet in this process."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A URL to call, and what signs the requests to it."""

    url: Url
    signers: tuple[Signer, ...]


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of the file (`[[hooks]]`), and the outcomes that it gets."""

    name: str
    endpoint: Endpoint
    actions: tuple[tuple[str, str], ...]
    """Pairs of resource and action; `*` for any."""
    events: frozenset[str]

    def matches(self, kind: Kind, event: str) -> bool:
        """Return True if the endpoint gets this outcome."""
        return event in self.events and any(
            resource in {_ANY, kind.resource} and action in {_ANY, kind.action} for resource, action in self.actions
        )


class CallbackRule(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts that callbacks may name, and what signs the deliveries to them."""

    rule: HostRule
    signers: tuple[Signer, ...]


class WebhookConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All endpoints, and the rules for callbacks."""

    hooks: dict[str, Hook] = {}
    callbacks: tuple[CallbackRule, ...] = ()
    is_http_allowed: bool = False

    def matching(self, kind: Kind, event: str) -> list[Hook]:
        """Return the endpoints of the file that get an outcome."""
        return [hook for hook in self.hooks.values() if hook.matches(kind, event)]

    def endpoint(self, delivery: WebhookDelivery) -> Endpoint:
        """Return the endpoint of a delivery.

        Raises:
            EndpointUnknown: none is configured, or the callback is not allowed.
        """
        if delivery.endpoint != CALLBACK_ENDPOINT:
            hook = self.hooks.get(delivery.endpoint)
            if hook is None:
                raise EndpointUnknown(f"no endpoint {delivery.endpoint!r} is configured")
            return hook.endpoint
        try:
            url = parse_url(delivery.callback, is_http_allowed=self.is_http_allowed)
        except InvalidName as error:
            raise EndpointUnknown(f"the callback can't be called: {error}") from error
        for callback in self.callbacks:
            if callback.rule.matches(url):
                return Endpoint(url=url, signers=callback.signers)
        raise EndpointUnknown(f"callbacks to {url.netloc} are not allowed")


class ConfigSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where endpoints and secrets are read from."""

    path: Path | None = None
    callback_hosts: tuple[str, ...] = ()
    """In addition to those of the file."""
    callback_secrets: tuple[str, ...] = ()
    """What signs deliveries to `callback_hosts`."""
    is_http_allowed: bool = False

    def load(self) -> WebhookConfig:
        """Read and validate everything.

        Raises:
            InvalidConfig: endpoints or secrets can't be used.
        """
        file = _File() if self.path is None else _read(self.path)
        base = Path() if self.path is None else self.path.parent
        hooks: dict[str, Hook] = {}
        for number, entry in enumerate(file.hooks, start=1):
            hook = _hook(entry, f"hook {entry.name or number}", base, is_http_allowed=self.is_http_allowed)
            if hook.name in hooks:
                raise InvalidConfig(f"two hooks have the name {hook.name!r}: their records could not be distinguished")
            hooks[hook.name] = hook
        callbacks = [_callback(entry.host, entry.secrets, base) for entry in file.callbacks]
        callbacks += [_callback(host, self.callback_secrets, Path()) for host in self.callback_hosts]
        return WebhookConfig(hooks=hooks, callbacks=tuple(callbacks), is_http_allowed=self.is_http_allowed)


class _HookEntry(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    url: str
    secrets: tuple[str, ...]
    actions: tuple[str, ...] = (_ANY,)
    events: tuple[str, ...] = OUTCOME_EVENTS


class _CallbackEntry(msgspec.Struct, forbid_unknown_fields=True):
    host: str
    secrets: tuple[str, ...]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    hooks: tuple[_HookEntry, ...] = ()
    callbacks: tuple[_CallbackEntry, ...] = ()


def _read(path: Path) -> _File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except OSError as error:
        raise InvalidConfig(f"{path} can't be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfig(f"{path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"{path}: {error}") from error


def _hook(entry: _HookEntry, what: str, base: Path, *, is_http_allowed: bool) -> Hook:
    try:
        name = check_name(entry.name, "hook")
        url = parse_url(entry.url, is_http_allowed=is_http_allowed)
        actions = tuple(_pattern(text) for text in entry.actions)
    except InvalidName as error:
        raise InvalidConfig(f"{what}: {error}") from error
    if name == CALLBACK_ENDPOINT:
        raise InvalidConfig(f"{what}: {CALLBACK_ENDPOINT!r} is reserved for callbacks of requests: choose another name")
    foreign = [event for event in entry.events if event not in OUTCOME_EVENTS]
    if foreign or not entry.events or not actions:
        shown = f"{foreign[0]!r} is not an outcome" if foreign else "it would never be called"
        raise InvalidConfig(
            f"{what}: {shown}: 'events' is a list of {', '.join(OUTCOME_EVENTS)}, 'actions' of 'book:upload-start', "
            f"'book:*' or '*'"
        )
    signers = _signers(entry.secrets, what, base)
    endpoint = Endpoint(url=url, signers=signers)
    return Hook(name=name, endpoint=endpoint, actions=actions, events=frozenset(entry.events))


def _callback(host: str, secrets: Sequence[str], base: Path) -> CallbackRule:
    try:
        rule = HostRule.parse(host)
    except InvalidName as error:
        raise InvalidConfig(f"callbacks: {error}") from error
    return CallbackRule(rule=rule, signers=_signers(secrets, f"callbacks to {host}", base))


def _pattern(text: str) -> tuple[str, str]:
    if text == _ANY:
        return _ANY, _ANY
    resource, colon, action = text.rpartition(":")
    if not colon:
        raise InvalidName(f"{text!r} is not an action: write 'book:upload-start', 'book:*' or '*'")
    return (
        resource if resource == _ANY else check_name(resource, "resource"),
        action if action == _ANY else check_name(action, "action"),
    )


def _signers(secrets: Iterable[str], what: str, base: Path) -> tuple[Signer, ...]:
    found = []
    for secret in secrets:
        try:
            found.append(Signer(_secret(secret, base)))
        except ValueError as error:
            raise InvalidConfig(f"{what}: {error}") from error
    if not found:
        raise InvalidConfig(f"{what}: a secret is needed to sign with, in 'secrets' or --callback-secret")
    return tuple(found)


def _secret(text: str, base: Path) -> str:
    """Return the secret that a text contains or refers to: `env:NAME`, or `file:PATH`, relative to the file's folder.

    Raises:
        ValueError: there is no secret. The message does not contain it.
    """
    if text.startswith(_FROM_ENVIRONMENT):
        name = text.removeprefix(_FROM_ENVIRONMENT)
        if not os.environ.get(name):
            raise ValueError(f"its secret should be in the variable {name}, which is not set")
        return os.environ[name].strip()
    if text.startswith(_FROM_FILE):
        path = base / text.removeprefix(_FROM_FILE)
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"its secret can't be read from {path}") from error
    if not text.startswith(KEY_PREFIX):
        raise ValueError(f"a secret is written {KEY_PREFIX}…, env:NAME or file:PATH")
    return text


def describe(hooks: WebhookConfig) -> dict[str, Any]:
    """Describe the configuration for the log, without secrets and queries."""
    return {
        "endpoints": [f"{hook.name} ({hook.endpoint.url.redacted})" for hook in hooks.hooks.values()],
        "callbacks": [callback.rule.text for callback in hooks.callbacks],
    }


class ReloadableConfig:
    """The present configuration of a source.

    Raises:
        InvalidConfig: endpoints or secrets can't be used.
    """

    def __init__(self, source: ConfigSource) -> None:
        self._source = source
        self.current: WebhookConfig = source.load()
        """Replaced by `reload`."""

    def reload(self) -> None:
        """Read the source again. If it can't be used, log why, and keep the present configuration."""
        try:
            self.current = self._source.load()
        except InvalidConfig as error:
            logger.error("the endpoints are not changed: %s", error)  # noqa: TRY400 - no bug here
        else:
            self.log()

    def log(self) -> None:
        """Log what is configured."""
        shown = describe(self.current)
        endpoints, callbacks = (", ".join(shown[key]) or "none" for key in ("endpoints", "callbacks"))
        logger.info("endpoints: %s; callbacks to: %s", endpoints, callbacks)
