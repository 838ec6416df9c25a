"""The options about bearer tokens: what they make, and what is refused with a word on what to write."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import opstream.local.supervisor
import opstream_api.main
from opstream.cli.app import main
from opstream.cli.options import jwt as jwt_options
from opstream.local.system_commands import SystemCommands
from opstream_api.access.tokens.jwt_settings import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    LEEWAY,
    REFETCH_FLOOR,
    JwtSettings,
)

pytestmark = pytest.mark.unit

ISSUER = "https://id.example/realms/main/"
NEEDED = ["--auth", "jwt", "--jwt-issuer", ISSUER, "--jwt-audience", "a"]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings with which the service would have run."""
    found: list[Any] = []
    monkeypatch.setattr(opstream_api.main, "run", found.append)
    monkeypatch.setattr("opstream.cli.commands.api.prepare_process", lambda *_: None)
    return found


def run(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run `opstream api`; return exit status and output in one line."""
    env = {f"OPSTREAM_{name}": value for name, value in variables.items()}
    result = CliRunner().invoke(main, ["api", *arguments], env=env)
    return result.exit_code, " ".join(result.output.split())


def test_an_issuer_and_an_audience_are_enough(given: list[Any]) -> None:
    """All else has a default; the help says the same ones."""
    assert run(*NEEDED) == (0, "")
    (settings,) = given
    assert settings.auth == ("jwt",)
    assert settings.jwt == JwtSettings(issuer=ISSUER, audiences=("a",))
    assert (settings.jwt.leeway, settings.jwt.refetch_floor) == (LEEWAY, REFETCH_FLOOR)
    assert jwt_options._DEFAULT_ALGORITHMS == ",".join(DEFAULT_ALGORITHMS)
    assert jwt_options._ALGORITHMS == ", ".join(ALGORITHMS)


def test_variables_are_read_as_options(given: list[Any], tmp_path: Path) -> None:
    """Each option has one."""
    keys = tmp_path / "keys.json"
    keys.touch()
    common = {"audiences": ("a", "b"), "tenant_claim": "org", "subject_claim": "azp", "scope_claim": "/r/s"}
    common["scope_prefix"] = "api://opstream/"
    assert run(
        *(*NEEDED, "--jwt-audience", "b", "--jwt-algorithms", "es256,EdDSA", "--jwt-jwks-file", str(keys)),
        *("--jwt-tenant-claim", "org", "--jwt-subject-claim", "azp", "--jwt-scope-claim", "/r/s"),
        *("--jwt-scope-prefix", "api://opstream/"),
        *("--jwt-leeway", "0", "--jwt-refetch", "1m"),
    ) == (0, "")
    assert run(
        AUTH="jwt",
        JWT_ISSUER=ISSUER,
        JWT_AUDIENCE="a, b",
        JWT_ALGORITHMS="es256,EdDSA",
        JWT_JWKS_FILE=str(keys),
        JWT_TENANT_CLAIM="org",
        JWT_SUBJECT_CLAIM="azp",
        JWT_SCOPE_CLAIM="/r/s",
        JWT_SCOPE_PREFIX="api://opstream/",
        JWT_LEEWAY="0",
        JWT_REFETCH="60",
    ) == (0, "")
    assert given[0] == given[1]
    expected = {"issuer": ISSUER, "algorithms": ("ES256", "EdDSA"), "jwks_file": str(keys), **common}
    assert given[0].jwt == JwtSettings(**expected, leeway=0.0, refetch_floor=60.0)
    assert run(*NEEDED, "--jwt-jwks-url", "https://id.example/keys") == (0, "")
    assert given[2].jwt.jwks_url == "https://id.example/keys"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--auth", "jwt"], "--jwt-issuer https://id.example.com"),
        (["--auth", "jwt", "--jwt-issuer", ISSUER], "--jwt-audience https://api.example.com"),
        (["--jwt-issuer", ISSUER, "--jwt-audience", "a"], "--jwt-issuer is of no use without --auth jwt"),
        (["--auth", "keys", "--jwt-audience", "a"], "--jwt-audience is of no use without --auth jwt"),
        (["--jwt-tenant-claim", "org"], "--jwt-tenant-claim is of no use without --auth jwt"),
        ([*NEEDED, "--jwt-algorithms", "none"], "it proves nothing: write of RS256"),
        ([*NEEDED, "--jwt-algorithms", "RS256,HS256"], "'HS256' is no algorithm for bearer tokens"),
        ([*NEEDED, "--jwt-issuer", "http://id.example"], "different values"),
        (["--auth", "jwt", "--jwt-issuer", "http://id.example"], "has no TLS"),
        ([*NEEDED, "--jwt-jwks-url", "http://10.0.0.7/keys"], "--jwt-jwks-file"),
        ([*NEEDED, "--jwt-jwks-file", "/no/such/file"], "does not exist"),
        ([*NEEDED, "--jwt-jwks-url", "https://a/", "--jwt-jwks-file", "/dev/null"], "leave the other out"),
        ([*NEEDED, "--jwt-scope-claim", "/"], "is no claim"),
        ([*NEEDED, "--jwt-scope-prefix", "a b"], "is no beginning of a scope: write it as tokens have it"),
        (["--jwt-scope-prefix", "a"], "--jwt-scope-prefix is of no use without --auth jwt"),
        ([*NEEDED, "--jwt-leeway", "soon"], "is not a duration"),
        ([*NEEDED, "--jwt-refetch", "0"], "is not a duration"),
        ([*NEEDED, "--cors-origin", "*", "--trusted-proxy", "::1", "--identity-header", "X-U"], "a proxy that logs"),
    ],
)
def test_usage_errors(given: list[Any], arguments: list[str], complaint: str) -> None:
    """What would check nothing, or can't be meant, ends at once with exit status 2."""
    status, output = run(*arguments)
    assert (status, given) == (2, [])
    assert complaint in output


@pytest.mark.parametrize("keys", [["--jwt-jwks-file", __file__], ["--jwt-jwks-url", "https://id.example/keys"], []])
def test_up_passes_its_options_on(given: list[Any], monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    """The API that `opstream up` starts has the settings that it would have with the same options."""
    monkeypatch.setattr(opstream.local.supervisor, "run_all", given.append)
    changed = [
        *(*NEEDED, "--jwt-audience", "b", "--jwt-algorithms", "es256,EdDSA", "--jwt-tenant-claim", "org", *keys),
        *("--jwt-subject-claim", "azp", "--jwt-scope-claim", "/r/s", "--jwt-scope-prefix", "a."),
        *("--jwt-leeway", "0.5", "--jwt-refetch", "1m"),
    ]
    for options in (NEEDED, changed):
        given.clear()
        result = CliRunner().invoke(main, ["up", "--actions", "shop.orders", *options])
        assert result.exit_code == 0, result.output
        (settings,) = given
        started = SystemCommands(settings).services()["hub"]
        passed = [
            part
            for option, value in itertools.pairwise(started)
            if option == "--auth" or option.startswith("--jwt-")
            for part in (option, value)
        ]
        assert run(*passed) == (0, "")
        assert run(*options) == (0, "")
        assert (given[1].jwt, given[1].auth) == (given[2].jwt, given[2].auth)
    for wrong in (["--auth", "jwt"], ["--jwt-issuer", ISSUER]):
        assert CliRunner().invoke(main, ["up", "--actions", "shop.orders", *wrong]).exit_code == 2


def test_any_site_may_call_a_service_that_asks_for_credentials(given: list[Any]) -> None:
    """Its pages then need some of their own."""
    assert run(*NEEDED, "--cors-origin", "*") == (0, "")
    assert given[0].cors_origins == ("*",)
