"""URLs that opstream calls, and rules: for hosts that it may call, and for hosts and sites that may call it; and
the login at the broker, which need not be in its URL. Pure.

The grammar is stricter than RFC 3986, so that no two programs can read different hosts from one URL.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final, Self

import msgspec

from .errors import InvalidName

URL_LIMIT: Final = 2_048
"""Characters that a URL may have; some servers refuse longer ones."""

FILE_VARIABLE: Final = "OPSTREAM_NATS_CREDS"
USER_VARIABLE: Final = "OPSTREAM_NATS_USER"
PASSWORD_VARIABLE: Final = "OPSTREAM_NATS_PASSWORD"  # noqa: S105 - a name
TOKEN_VARIABLE: Final = "OPSTREAM_NATS_TOKEN"  # noqa: S105 - a name
NKEY_VARIABLE: Final = "OPSTREAM_NATS_NKEY"
NKEYS_VARIABLE: Final = "OPSTREAM_NATS_NKEYS"
TLS_CA_VARIABLE: Final = "OPSTREAM_NATS_TLS_CA"
TLS_CERT_VARIABLE: Final = "OPSTREAM_NATS_TLS_CERT"
TLS_KEY_VARIABLE: Final = "OPSTREAM_NATS_TLS_KEY"

LOGIN_VARIABLES: Final = frozenset(
    {
        FILE_VARIABLE,
        USER_VARIABLE,
        PASSWORD_VARIABLE,
        TOKEN_VARIABLE,
        NKEY_VARIABLE,
        NKEYS_VARIABLE,
        TLS_CA_VARIABLE,
        TLS_CERT_VARIABLE,
        TLS_KEY_VARIABLE,
    }
)
"""What a process shows to a broker, and trusts in it."""

_URL_REGEX: Final = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#\\]*)?(?P<query>\?[^#\\]*)?"
)
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]*")
_LABEL_REGEX: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_RULE_REGEX: Final = re.compile(
    r"(?P<host>(?:\*\.)?[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
ANY_HOST: Final = "*"
"""The rule that allows every host to call."""
_OWN_HOST_REGEX: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?")
_ORIGIN_REGEX: Final = re.compile(r"https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_MAX_PORT: Final = 65_535


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that can be called."""

    text: str
    """The URL as it was given."""
    scheme: str
    """`https` or `http`."""
    host: str
    """In lower case; an IPv6 address without its brackets."""
    port: int
    path: str
    query: str
    """With its `?`; empty for none."""

    @property
    def netloc(self) -> str:
        """Return host and port as the header `Host` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def redacted(self) -> str:
        """Return the URL without its query, for logs and records: a query often holds a token."""
        return f"{self.scheme}://{self.netloc}{self.path}"


class HostRule(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in the list of hosts that may be called."""

    text: str
    host: str
    """In lower case, without the `*.` of a wildcard."""
    port: int | None
    """None for the default port of the scheme."""
    is_wildcard: bool

    @classmethod
    def parse(cls, text: str) -> HostRule:
        """Parse `hooks.example.org` or `*.example.org` (all hosts below it, not itself), each also with `:PORT`.

        Raises:
            InvalidName: the text has another form.
        """
        found = _RULE_REGEX.fullmatch(text)
        host = found["host"].lower() if found else ""
        is_wildcard = host.startswith("*.")
        bare = host.removeprefix("*.").strip("[]")
        if found is None or not _is_host(bare) or (is_wildcard and ("." not in bare or _is_address(bare))):
            raise InvalidName(f"{text!r} is not a host: write hooks.example.org or *.example.org, perhaps with :PORT")
        return cls(text=text, host=bare, port=_port(found["port"], text), is_wildcard=is_wildcard)

    def matches(self, url: Url) -> bool:
        """Return True if the rule allows the URL's host and port."""
        if url.port != (_DEFAULT_PORTS[url.scheme] if self.port is None else self.port):
            return False
        return url.host.endswith(f".{self.host}") if self.is_wildcard else url.host == self.host


def parse_url(text: str, *, is_http_allowed: bool = False) -> Url:
    """Parse an absolute https URL without user, password and fragment, in ASCII.

    Args:
        text: the URL.
        is_http_allowed: True to allow http as well.

    Raises:
        InvalidName: the text is not such a URL. The message says why, and does not repeat it: it may hold a token.
    """
    if len(text) > URL_LIMIT:
        raise InvalidName(f"the URL has {len(text)} characters, {URL_LIMIT} are allowed")
    if not _VISIBLE_ASCII.fullmatch(text) or "\\" in text:
        raise InvalidName("the URL must be visible ASCII without backslashes: percent-encode other characters")
    if "#" in text:
        raise InvalidName("the URL must have no fragment ('#')")
    found = _URL_REGEX.fullmatch(text)
    if found is None:
        authority = re.split(r"[/?]", text.partition("://")[2], maxsplit=1)[0]
        if "@" in authority:
            raise InvalidName("the URL must have no user or password ('@')")
        raise InvalidName("the URL must be absolute, https://HOST/PATH")
    scheme, host = found["scheme"].lower(), found["host"].lower().strip("[]")
    if scheme == "http" and not is_http_allowed:
        raise InvalidName("the URL must begin with https://")
    if not _is_host(host):
        raise InvalidName("the URL's host must be a name or an address")
    return Url(
        text=text,
        scheme=scheme,
        host=host,
        port=_port(found["port"], "the URL") or _DEFAULT_PORTS[scheme],
        path=found["path"] or "/",
        query=found["query"] or "",
    )


def is_host_allowed(url: Url, rules: Iterable[HostRule]) -> bool:
    """Return True if one of the rules allows the URL; without rules no URL is allowed."""
    return any(rule.matches(url) for rule in rules)


def parse_host_rule(text: str) -> str:
    """Return an allowed host as it is compared: `*`, `*.example.com`, `api.example.com`, `10.0.0.7` or `::1`.

    Raises:
        InvalidName: the text is no host, or has a port.
    """
    rule = text.lower()
    if rule == ANY_HOST or _OWN_HOST_REGEX.fullmatch(rule):
        return rule
    try:
        return str(ipaddress.ip_address(rule.strip("[]")))
    except ValueError:
        raise InvalidName(
            f"{text!r} is not a host: write api.example.com, *.example.com or an address, without a port; * allows any"
        ) from None


def parse_origin(text: str) -> str:
    """Return the origin of a web page as browsers write it: `https://app.example.com`, with a port if it has one.

    Raises:
        InvalidName: the text is no origin.
    """
    origin = text.lower()
    if _ORIGIN_REGEX.fullmatch(origin) is None:
        raise InvalidName(f"{text!r} is not an origin: write https://app.example.com, without a path")
    return origin


def is_loopback(host: str) -> bool:
    """Return True if a host to listen on is this machine only; a name other than `localhost` may be any address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_host(host: str) -> bool:
    return _is_address(host) or all(map(_LABEL_REGEX.fullmatch, host.split(".")))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _port(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    if not 1 <= int(text) <= _MAX_PORT:
        raise InvalidName(f"{where}: a port is 1 to {_MAX_PORT}")
    return int(text)


def hide_credentials(url: str) -> str:
    """Return any URL with `…` in place of a user and password, so that it can be printed: `nats://…@host`."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, _ = head.partition("//")
    return f"{scheme}{slashes}…@{tail}" if at and slashes else tail


def advise_base_url(url: str) -> str:
    """What to write instead of a text that is no base URL of HTTP: the end of an error's message."""
    shown = hide_credentials(url)
    scheme, separator, _ = shown.partition("://")
    if shown and not separator:
        if re.match(r"localhost\b|127\.|\[::1\]", shown):
            return f"write http://{shown}"
        return f"write https://{shown}, or http://{shown} without TLS"
    if scheme.lower() in {"http", "https"} and ("?" in shown or "#" in shown):
        return "leave out what begins at the '?' or '#'"
    return "write http://HOST:PORT, or https://HOST/PATH with TLS"


class BrokerCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """One login (a file, or user and password, or a token), and the files of TLS. All empty: what the broker's URL has.

    Files are read at each connect, so that they may be replaced while the process runs. Its text and its `repr` show
    none of it.
    """

    file: str = ""
    """Path of a `.creds` file, as `nsc generate creds` writes it: a user's JWT and the seed of its key."""
    nkey: str = ""
    """Path of a file with the seed of a user's key, as `opstream broker-config` and `nk -gen user` write it."""
    user: str = ""
    password: str = ""
    token: str = ""
    tls_ca: str = ""
    """Path of the certificates (PEM) of those who may sign the broker's; with it, a broker without TLS is refused."""
    tls_cert: str = ""
    """Path of this process's own certificate (PEM), for a broker that asks for one."""
    tls_key: str = ""
    """Path of its private key (PEM), without a password."""

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> Self:
        """Take them from variables of the environment; one that is empty counts as not set.

        Raises:
            InvalidName: they hold several logins, or one of two that belong together is missing.
        """
        found = cls(
            file=variables.get(FILE_VARIABLE, ""),
            nkey=variables.get(NKEY_VARIABLE, ""),
            user=variables.get(USER_VARIABLE, ""),
            password=variables.get(PASSWORD_VARIABLE, ""),
            token=variables.get(TOKEN_VARIABLE, ""),
            tls_ca=variables.get(TLS_CA_VARIABLE, ""),
            tls_cert=variables.get(TLS_CERT_VARIABLE, ""),
            tls_key=variables.get(TLS_KEY_VARIABLE, ""),
        )
        found.check()
        return found

    @property
    def has_login(self) -> bool:
        """Return True if there is a login."""
        return any((self.file, self.nkey, self.user, self.token))

    @property
    def has_tls(self) -> bool:
        """Return True if a file of TLS is named, so that a broker without TLS must be refused."""
        return bool(self.tls_ca or self.tls_cert)

    def check(self) -> None:
        """Check that it is one login.

        Raises:
            InvalidName: it is several, or one of two that belong together is missing.
        """
        if bool(self.user) != bool(self.password):
            given, missing = (USER_VARIABLE, PASSWORD_VARIABLE) if self.user else (PASSWORD_VARIABLE, USER_VARIABLE)
            raise InvalidName(f"{given} is set without {missing}: set both or neither")
        if bool(self.tls_cert) != bool(self.tls_key):
            given, missing = ("--nats-tls-cert", "--nats-tls-key")[:: 1 if self.tls_cert else -1]
            raise InvalidName(f"{given} is given without {missing}: name both files, or neither")
        if [bool(self.file), bool(self.nkey), bool(self.user), bool(self.token)].count(True) > 1:
            raise InvalidName(
                f"there are several logins: leave one of --nats-creds ({FILE_VARIABLE}), --nats-nkey "
                f"({NKEY_VARIABLE}), {USER_VARIABLE} with {PASSWORD_VARIABLE}, and {TOKEN_VARIABLE}"
            )

    def __repr__(self) -> str:
        """Return a text without secrets."""
        return "BrokerCredentials(…)"

    __str__ = __repr__


NO_CREDENTIALS: Final = BrokerCredentials()
