"""Options of the API about bearer tokens (JWT) of an identity provider, and the settings that they make (ADR 0047)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from .access import JWT
from .option import Decorator, F, checked, checked_list, option, split_list
from .value_types import Duration

if TYPE_CHECKING:
    from opstream_api.access.tokens.jwt_settings import JwtSettings

_PREFIX: Final = "jwt_"
_WITHOUT_DEFAULT: Final = ("issuer", "audiences", "jwks_url", "jwks_file", "tenant_claim", "scope_prefix")
_DEFAULT_ALGORITHMS: Final = "RS256,ES256,EdDSA"
_ALGORITHMS: Final = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"


def _parse_with(name: str) -> Callable[[str], Any]:
    """Return a function of `jwt_settings`, which is imported when a value is parsed: the help needs it not."""

    def parse(text: str) -> Any:  # noqa: ANN401
        from opstream_api.access.tokens import jwt_settings

        return getattr(jwt_settings, name)(text)

    return parse


def _checked_unless_empty(name: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    parse = checked(_parse_with(name))

    def callback(ctx: click.Context, param: click.Parameter, value: str) -> Any:  # noqa: ANN401
        return parse(ctx, param, value) if value else value

    return callback


_OPTIONS: Final[tuple[Decorator[Any], ...]] = (
    option(
        "--jwt-issuer",
        variable="JWT_ISSUER",
        default="",
        metavar="URL",
        callback=_checked_unless_empty("parse_issuer"),
        help="Take bearer tokens (JWT) of this issuer, written exactly as they have it in 'iss', e.g. --jwt-issuer "
        "https://id.example.com/realms/main. It needs --jwt-audience, too.",
    ),
    option(
        "--jwt-audience",
        "jwt_audiences",
        variable="JWT_AUDIENCE",
        multiple=True,
        metavar="TEXT",
        callback=split_list,
        help="What 'aud' of a token must have, so that it is for this service; one of several if it is repeated.",
    ),
    option(
        "--jwt-algorithms",
        variable="JWT_ALGORITHMS",
        multiple=True,
        default=(_DEFAULT_ALGORITHMS,),
        metavar="NAMES",
        callback=checked_list(_parse_with("parse_algorithm")),
        help=f"The signature algorithms that are taken, of {_ALGORITHMS}.",
    ),
    option(
        "--jwt-jwks-url",
        variable="JWT_JWKS_URL",
        default="",
        metavar="URL",
        callback=_checked_unless_empty("parse_provider_url"),
        help="Where the issuer's keys are. Without it, that is found in the issuer's discovery document.",
    ),
    option(
        "--jwt-jwks-file",
        variable="JWT_JWKS_FILE",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="A file with the issuer's keys (a JSON Web Key Set), where the provider can't be reached. It may be "
        "replaced at any time.",
    ),
    option(
        "--jwt-tenant-claim",
        variable="JWT_TENANT_CLAIM",
        default="",
        metavar="NAME",
        callback=_checked_unless_empty("parse_claim"),
        help="The claim with the tenant of the caller, e.g. --jwt-tenant-claim org_id, or /org/id for a nested one; a "
        "token without it is refused. Without the option all tokens are of the operator's own tenant.",
    ),
    option(
        "--jwt-subject-claim",
        variable="JWT_SUBJECT_CLAIM",
        default="sub",
        metavar="NAME",
        callback=checked(_parse_with("parse_claim")),
        help="The claim with the caller.",
    ),
    option(
        "--jwt-scope-claim",
        variable="JWT_SCOPE_CLAIM",
        default="scope",
        metavar="NAME",
        callback=checked(_parse_with("parse_claim")),
        help="The claim with the scopes: a text with spaces, or a list. Scopes of other services are ignored.",
    ),
    option(
        "--jwt-scope-prefix",
        variable="JWT_SCOPE_PREFIX",
        default="",
        metavar="TEXT",
        callback=_checked_unless_empty("parse_scope_prefix"),
        help="With what opstream's scopes begin in tokens, e.g. --jwt-scope-prefix api://opstream/ if they have "
        "api://opstream/read. Scopes that begin otherwise are ignored.",
    ),
    option(
        "--jwt-leeway",
        variable="JWT_LEEWAY",
        type=Duration(),
        default="30s",
        help="By how much the clock of the issuer may differ, at most.",
    ),
    option(
        "--jwt-refetch",
        variable="JWT_REFETCH",
        type=Duration(is_positive=True),
        default="30s",
        help="The least time between two fetches of the issuer's keys, whatever tokens come.",
    ),
)


def jwt_options(command: F) -> F:
    """Add all options of this module."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def jwt_arguments(settings: JwtSettings | None) -> tuple[str, ...]:
    """Return the options of this module that make these settings, for a process that is started with them.

    Args:
        settings: None for no options.
    """
    if settings is None:
        return ()
    given = {
        "--jwt-issuer": settings.issuer,
        "--jwt-algorithms": ",".join(settings.algorithms),
        "--jwt-jwks-url": settings.jwks_url,
        "--jwt-jwks-file": settings.jwks_file,
        "--jwt-tenant-claim": settings.tenant_claim,
        "--jwt-subject-claim": settings.subject_claim,
        "--jwt-scope-claim": settings.scope_claim,
        "--jwt-scope-prefix": settings.scope_prefix,
        "--jwt-leeway": str(settings.leeway),
        "--jwt-refetch": str(settings.refetch_floor),
    }
    audiences = [part for audience in settings.audiences for part in ("--jwt-audience", audience)]
    return (*audiences, *(part for pair in given.items() if pair[1] for part in pair))


def take_jwt_settings(given: dict[str, Any]) -> JwtSettings | None:
    """Remove the options of this module from `given`; return what they say, None without `--auth jwt`.

    Raises:
        click.UsageError: they are incomplete, or contradict each other.
    """
    found = {name.removeprefix(_PREFIX): given.pop(name) for name in list(given) if name.startswith(_PREFIX)}
    issuer, audiences = found["issuer"], found["audiences"]
    named = [name.replace("_", "-").removesuffix("s") for name in _WITHOUT_DEFAULT if found[name]]
    if JWT not in given["auth"]:
        if named:
            raise click.UsageError(f"--jwt-{named[0]} is of no use without --auth jwt: add it, or leave this out")
        return None
    if not issuer:
        raise click.UsageError(
            "--auth jwt: write whose tokens are taken, exactly as they have it in 'iss', e.g. --jwt-issuer "
            "https://id.example.com"
        )
    if not audiences:
        raise click.UsageError(
            "--jwt-issuer: without an audience this service would take tokens that were given for other services: "
            "write what 'aud' of yours has, e.g. --jwt-audience https://api.example.com"
        )
    if found["jwks_url"] and found["jwks_file"]:
        raise click.UsageError(
            "--jwt-jwks-url and --jwt-jwks-file: the keys come from one of them, leave the other out"
        )
    from opstream_api.access.tokens.jwt_settings import JwtSettings

    return JwtSettings(
        issuer=issuer,
        audiences=audiences,
        algorithms=found["algorithms"],
        jwks_url=found["jwks_url"],
        jwks_file=found["jwks_file"] or "",
        tenant_claim=found["tenant_claim"],
        subject_claim=found["subject_claim"],
        scope_claim=found["scope_claim"],
        scope_prefix=found["scope_prefix"],
        leeway=found["leeway"],
        refetch_floor=found["refetch"],
    )
