"""The values that options accept; variables are read as options are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import opstream.cli.commands.parked
import opstream.cli.commands.provision
import opstream.local.nats_server
import opstream.local.supervisor
import opstream_api.main
import opstream_projector.main
import opstream_runner.main
import opstream_webhooks.main
from opstream.cli.app import main
from opstream_schemas.traces.tracer import Tracer

pytestmark = pytest.mark.unit


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The settings with which the commands would have run."""
    found: list[Any] = []
    modules = (
        opstream_api.main,
        opstream_runner.main,
        opstream_projector.main,
        opstream_webhooks.main,
    )
    for module in modules:
        monkeypatch.setattr(module, "run", found.append)
    monkeypatch.setattr(opstream.local.supervisor, "run_all", found.append)
    monkeypatch.setattr(opstream.local.nats_server, "run_broker", found.append)
    monkeypatch.setattr(opstream.cli.commands.provision, "provision_broker", found.append)
    monkeypatch.setattr(opstream.cli.commands.parked, "process_dead_letters", found.append)
    for service in ("api", "runner", "projector", "webhooks"):
        monkeypatch.setattr(f"opstream.cli.commands.{service}.prepare_process", lambda *_: None)
    monkeypatch.setattr("opstream.terminal.logs.configure", lambda *_, **__: None)
    begun = Tracer()
    monkeypatch.setattr("opstream.cli.tracing_session.begin_tracing", lambda _: begun)
    monkeypatch.syspath_prepend(".")  # undoes what the commands do to the path
    return found


ELSEWHERE = {"durable", "sequences", "is_retry", "is_insecure", "jwt", "kek_command"}
"""Settings that are not options, and those that exclude others, of which other tests are."""
SECRET = "whsec_" + "A" * 32
HOOKS = str(Path(__file__).with_name("configs") / "hooks.toml")
CASES: list[tuple[str, list[str], dict[str, str]]] = [
    (
        "up",
        [
            *("--host", "0.0.0.0", "--port", "1", "--nats-port", "2", "--data-dir", "d", "--concurrency", "3"),
            *("--drain", "0", "--index", "off", "--payload-store", "file:///p"),
            *("--public-url", "https://a.example/x/", "--actions", "a.b", "--actions", "c", "--max-body", "1KiB"),
            *("--max-upload", "1MiB"),
            *("--max-result", "2KiB", "--archive", "--log-level", "debug", "--health-port", "9"),
            *("--log-format", "json", "--no-request-log", "--otel"),
            *("--webhooks-config", HOOKS, "--callback-host", "a.example", "--callback-secret", SECRET),
            *("--allow-private", "10.0.0.0/8", "--allow-http"),
            *("--allowed-host", "api.example", "--allowed-origin", "https://c.example", "--processes"),
            "--secure",
            *("--kek-file", "kek"),
            *("--cors-origin", "https://d.example"),
            *(
                "--auth",
                "keys",
                "--auth-keys-file",
                "keys.json",
                "--caller-requests",
                "9/m",
                "--caller-open-operations",
                "7",
            ),
        ],
        {
            "INDEX": "off",
            "PAYLOAD_STORE": "file:///p",
            "OTEL": "true",
            "KEK_FILE": "kek",
            "PROCESSES": "true",
            "SECURE": "true",
            "AUTH": "keys",
            "AUTH_KEYS_FILE": "keys.json",
            "CALLER_REQUESTS": "9/m",
            "CALLER_OPEN_OPERATIONS": "7",
            "ALLOWED_HOSTS": "api.example",
            "ALLOWED_ORIGINS": "https://c.example",
            "CORS_ORIGINS": "https://d.example",
            "HOST": "0.0.0.0",
            "PORT": "1",
            "NATS_PORT": "2",
            "DATA_DIR": "d",
            "CONCURRENCY": "3",
            "DRAIN": "0",
            "PUBLIC_URL": "https://a.example/x/",
            "ACTIONS": "a.b,c",
            "MAX_BODY": "1KiB",
            "MAX_UPLOAD": "1MiB",
            "MAX_RESULT": "2KiB",
            "ARCHIVE": "true",
            "HEALTH_PORT": "9",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "json",
            "REQUEST_LOG": "no",
            "WEBHOOKS_CONFIG": HOOKS,
            "CALLBACK_HOSTS": "a.example",
            "CALLBACK_SECRETS": SECRET,
            "ALLOW_PRIVATE": "10.0.0.0/8",
            "ALLOW_HTTP": "1",
        },
    ),
    (
        "broker",
        ["--nats-host", "::1", "--nats-port", "2", "--data-dir", "d", "--accounts", HOOKS, "--log-level", "debug"],
        {"NATS_HOST": "::1", "NATS_PORT": "2", "DATA_DIR": "d", "ACCOUNTS": HOOKS, "LOG_LEVEL": "debug"},
    ),
    (
        "provision",
        [
            *(
                "--nats",
                "nats://a:1",
                "--nats-creds",
                HOOKS,
                "--nats",
                "b:2",
                "--replicas",
                "3",
                "--max-age",
                "90d",
                "--max-bytes",
                "unlimited",
            ),
            *("--max-msg-size", "1MiB", "--max-body", "1KiB", "--max-result", "2KiB", "--actions", "a,b", "--update"),
            "--seal-catalog",
            *("--archive", "--archive-max-age", "3650d", "--connect-timeout", "1m"),
        ],
        {
            "NATS_URL": "nats://a:1, b:2",
            "NATS_CREDS": HOOKS,
            "REPLICAS": "3",
            "MAX_AGE": "90d",
            "MAX_BYTES": "unlimited",
            "MAX_MSG_SIZE": "1MiB",
            "MAX_BODY": "1KiB",
            "MAX_RESULT": "2KiB",
            "ACTIONS": "a,b",
            "SEAL_CATALOG": "true",
            "UPDATE": "true",
            "ARCHIVE": "true",
            "ARCHIVE_MAX_AGE": "3650d",
            "CONNECT_TIMEOUT": "1m",
        },
    ),
    (
        "api",
        [
            *(
                "--nats",
                "nats://a:1",
                "--payload-store",
                "s3://b",
                "--nats-creds",
                HOOKS,
                "--host",
                "h",
                "--port",
                "0",
                "--public-url",
                "http://p",
                "--max-upload",
                "1MiB",
                "--max-body",
                "1MiB",
            ),
            *("--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1", "--identity-header", "X-Forwarded-User"),
            *("--client-id-header", "X-Client-Id", "--connect-timeout", "5", "--no-request-log", "--otel"),
            *("--health-port", "9", "--health-host", "::1", "--index", "postgresql://db/ops", "--kek-file", "kek"),
            *(
                "--allowed-host",
                "api.example",
                "--allowed-host",
                "*.b.example",
                "--allowed-origin",
                "https://c.example",
                "--cors-origin",
                "https://d.example",
            ),
            *("--callback-host", "a.example", "--callback-host", "*.b.example:8443", "--allow-http"),
            *(
                "--auth",
                "keys",
                "--auth-keys-file",
                "keys.json",
                "--refuse-unserved-after",
                "1d",
                "--caller-requests",
                "9/m",
                "--caller-open-operations",
                "7",
            ),
        ],
        {
            "INDEX": "postgresql://db/ops",
            "KEK_FILE": "kek",
            "OTEL": "1",
            "AUTH": "keys",
            "AUTH_KEYS_FILE": "keys.json",
            "REFUSE_UNSERVED_AFTER": "1d",
            "CALLER_REQUESTS": "9/m",
            "CALLER_OPEN_OPERATIONS": "7",
            "CALLBACK_HOSTS": "a.example, *.b.example:8443",
            "ALLOW_HTTP": "true",
            "NATS_URL": "nats://a:1",
            "PAYLOAD_STORE": "s3://b",
            "NATS_CREDS": HOOKS,
            "TRUSTED_PROXY": "10.0.0.0/8,::1",
            "ALLOWED_HOSTS": "api.example, *.b.example",
            "ALLOWED_ORIGINS": "https://c.example",
            "CORS_ORIGINS": "https://d.example",
            "IDENTITY_HEADER": "X-Forwarded-User",
            "CLIENT_ID_HEADER": "X-Client-Id",
            "HOST": "h",
            "PORT": "0",
            "PUBLIC_URL": "http://p",
            "MAX_BODY": "1MiB",
            "MAX_UPLOAD": "1MiB",
            "REQUEST_LOG": "false",
            "HEALTH_PORT": "9",
            "HEALTH_HOST": "::1",
            "CONNECT_TIMEOUT": "5",
        },
    ),
    (
        "runner",
        [
            *(
                "--nats",
                "nats://a:1",
                "--payload-store",
                "s3://b",
                "--nats-creds",
                HOOKS,
                "--actions",
                "x",
                "--concurrency",
                "1",
                "--health-port",
                "9",
                "--health-host",
                "::1",
            ),
            *("--drain", "1m", "--max-result", "1B", "--connect-timeout", "5s", "--otel", "--allow-schema-change"),
            *("--kek-command", "vault read"),
        ],
        {
            "NATS_URL": "nats://a:1",
            "PAYLOAD_STORE": "s3://b",
            "NATS_CREDS": HOOKS,
            "ACTIONS": "x",
            "ALLOW_SCHEMA_CHANGE": "1",
            "KEK_COMMAND": "vault read",
            "CONCURRENCY": "1",
            "HEALTH_PORT": "9",
            "HEALTH_HOST": "::1",
            "OTEL": "1",
            "DRAIN": "1m",
            "MAX_RESULT": "1B",
            "CONNECT_TIMEOUT": "5s",
        },
    ),
    (
        "projector",
        [
            "--nats",
            "nats://a:1",
            "--payload-store",
            "s3://b",
            "--nats-creds",
            HOOKS,
            "--health-port",
            "9",
            "--health-host",
            "::1",
            "--connect-timeout",
            "5",
            "--index",
            "sqlite:i.db",
        ],
        {
            "NATS_URL": "nats://a:1",
            "PAYLOAD_STORE": "s3://b",
            "NATS_CREDS": HOOKS,
            "HEALTH_PORT": "9",
            "HEALTH_HOST": "::1",
            "CONNECT_TIMEOUT": "5",
            "INDEX": "sqlite:i.db",
        },
    ),
    (
        "parked",
        ["mailer", "--forget", "--json", "--nats", "nats://a:1", "--nats-creds", HOOKS, "--connect-timeout", "5"],
        {"FORGET": "yes", "JSON": "1", "NATS_URL": "nats://a:1", "NATS_CREDS": HOOKS, "CONNECT_TIMEOUT": "5"},
    ),
    (
        "webhooks",
        [
            *(
                "--nats",
                "nats://a:1",
                "--nats-creds",
                HOOKS,
                "--health-port",
                "9",
                "--health-host",
                "::1",
                "--connect-timeout",
                "5",
                "--config",
                HOOKS,
            ),
            *("--callback-host", "a.example", "--callback-secret", SECRET, "--allow-private", "10.0.0.0/8"),
            "--allow-http",
            "--otel",
        ],
        {
            "NATS_URL": "nats://a:1",
            "NATS_CREDS": HOOKS,
            "HEALTH_PORT": "9",
            "HEALTH_HOST": "::1",
            "CONNECT_TIMEOUT": "5",
            "WEBHOOKS_CONFIG": HOOKS,
            "CALLBACK_HOSTS": "a.example",
            "CALLBACK_SECRETS": SECRET,
            "OTEL": "1",
            "ALLOW_PRIVATE": "10.0.0.0/8",
            "ALLOW_HTTP": "yes",
        },
    ),
]


@pytest.mark.parametrize(("command", "options", "variables"), CASES, ids=[case[0] for case in CASES])
def test_variables_are_read_as_options(
    given: list[Any], command: str, options: list[str], variables: dict[str, str]
) -> None:
    """Each option has a variable `OPSTREAM_…`, read exactly as the option is; lists are comma-separated in it."""
    environment = {f"OPSTREAM_{name}": value for name, value in variables.items()}
    words = [*itertools.takewhile(lambda one: not one.startswith("-"), options)]
    by_option = CliRunner().invoke(main, [command, *options])
    by_variable = CliRunner().invoke(main, [command, *words], env=environment)
    assert (by_option.exit_code, by_option.output) == (0, "")
    assert (by_variable.exit_code, by_variable.output) == (0, "")
    assert given[0] == given[1]
    needed = {"OPSTREAM_ACTIONS": "needed"} if command in {"up", "runner"} else {}
    plain = CliRunner().invoke(main, [command, *words], env=needed)
    assert plain.exit_code == 0
    for field in set(given[0].__struct_fields__) - ELSEWHERE:
        assert getattr(given[2], field) != getattr(given[0], field), f"{field} was not set"


def test_the_hub_gives_each_service_its_own_settings(given: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those that the same options make of a service alone."""
    joint: list[Any] = []

    async def note(services: Any) -> None:
        joint.extend(services)

    monkeypatch.setattr("opstream.cli.joint_process.serve_together", note)
    monkeypatch.setattr("opstream.cli.commands.hub.prepare_process", lambda *_: None)
    common = ["--nats", "nats://a:1", "--nats-creds", HOOKS, "--connect-timeout", "5"]
    callbacks = ["--callback-host", "a.example", "--allow-http"]
    api = [
        *("--host", "h", "--port", "0", "--public-url", "http://p", "--max-body", "1MiB"),
        *("--max-upload", "1MiB"),
        *("--trusted-proxy", "10.0.0.0/8", "--identity-header", "X-User", "--client-id-header", "X-Client"),
        *("--allowed-host", "api.example", "--allowed-origin", "https://c.example"),
        *("--cors-origin", "https://d.example", "--no-request-log"),
        *("--refuse-unserved-after", "5m"),
        *(
            "--auth",
            "keys",
            "--auth-keys-file",
            "keys.json",
            "--caller-requests",
            "9/m",
            "--caller-open-operations",
            "7",
        ),
    ]
    webhooks = ["--config", HOOKS, "--callback-secret", SECRET, "--allow-private", "10.0.0.0/8"]
    health = ["--health-host", "127.0.0.1"]
    ports = ["--api-health-port", "8083", "--projector-health-port", "8081", "--webhooks-health-port", "8082"]
    index = ["--index", "sqlite:i.db"]
    for arguments in (
        ["hub", *common, *index, *callbacks, *api, *webhooks, *health, *ports],
        ["api", *common, *index, *callbacks, *api, *health, "--health-port", "8083"],
        ["projector", *common, *index, *health, "--health-port", "8081"],
        ["webhooks", *common, *callbacks, *webhooks, *health, "--health-port", "8082"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, result.output) == (0, "")
    assert [service.name for service in joint] == ["api", "projector", "webhooks"]
    assert [service.serve.args[0] for service in joint] == given
    assert joint[2].on_hangup == joint[2].serve.args[1].reload


def test_defaults(given: list[Any]) -> None:
    """HTTP is on 8080, NATS on 4222, the data in `./.opstream`."""
    assert CliRunner().invoke(main, ["up", "--actions", "shop"]).exit_code == 0
    (up,) = given
    assert (up.host, up.port, up.nats_port, up.public_url) == ("127.0.0.1", 8080, 4222, None)
    assert (up.data_dir, up.modules) == (Path(".opstream"), ("shop",))
    assert up.drain == 10.0
    assert (up.max_body, up.max_result) == (4_194_304, 4_194_304)


def test_provision_compares_only_what_is_given(given: list[Any]) -> None:
    """Sizing has no defaults on the command line: what an operator chose earlier stays."""
    assert CliRunner().invoke(main, ["provision"]).exit_code == 0
    (settings,) = given
    assert (settings.replicas, settings.max_age, settings.max_bytes, settings.max_msg_size) == (None,) * 4
    assert settings.servers == ("nats://127.0.0.1:4222",)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["api", "--nats", "http://x"], "is not a broker's URL"),
        (["api", "--nats", "nats://"], "is not a broker's URL"),
        (
            ["api", "--public-url", "api.example.com"],
            "is not a base URL: write https://api.example.com, or http://api.example.com without TLS",
        ),
        (["api", "--public-url", "https://x/?a=1"], "is not a base URL"),
        (["api", "--port", "70000"], "0<=x<=65535"),
        (["api", "--trusted-proxy", "10.0.0.1/8"], "has host bits set: write an IP address, or a network such as"),
        (["api", "--allowed-host", "api.example:8080"], "is not a host: write api.example.com"),
        (["api", "--allowed-origin", "c.example"], "is not an origin: write https://app.example.com"),
        (["up", "--allowed-origin", "https://c.example/a"], "is not an origin: write https://app.example.com"),
        (["hub", "--cors-origin", "https://c.example/"], "is not an origin: write https://app.example.com"),
        (["api", "--cors-origin", "*"], "each page that a browser in this network shows could submit and read"),
        (["hub", "--cors-origin", "*"], "Name the sites, e.g. --cors-origin https://app.example.com"),
        (["up", "--cors-origin", "https://c.example,*"], "each page that a browser in this network shows"),
        (["api", "--trusted-proxy", "localhost"], "write an IP address, or a network such as"),
        (["api", "--trusted-proxy", "::1", "--identity-header", "X User"], "is not the name of a header"),
        (["api", "--identity-header", "X-Forwarded-User"], "any client could send that header"),
        (["api", "--client-id-header", "X-Client-Id"], "--client-id-header: any client could send that header"),
        (["runner", "--concurrency", "0"], "1<=x<=10000"),
        (["runner", "--connect-timeout", "0"], "is not a duration"),
        (["runner", "--actions", ","], "it names nothing: write a value, or several with commas between them"),
        (
            ["runner", "--actions", "shop/orders.py"],
            "'shop/orders.py' is not a module: write its name, e.g. shop.orders",
        ),
        (["provision", "--actions", "..x"], "'..x' is not a module"),
        (["runner", "--concurrency", "99999"], "at most 10000"),
        (["api", "--nats", ","], "it names nothing"),
        (["api", "--nats", "nats://[::1"], "is not a broker's URL: write nats://HOST:PORT"),
        (["api", "--nats", "nats://127.0.0.1:99999"], "is not a broker's URL"),
        (["api", "--nats", "nats://ada:secret@127.0.0.1:x"], "'nats://…@127.0.0.1:x' is not a broker's URL"),
        (
            ["api", "--nats", "nats://a:1", "--nats-creds", HOOKS, "--nats", "ws://b:2"],
            "write nats:// or ws:// for all",
        ),
        (["api", "--public-url", "http://[::1"], "is not a base URL: write http://HOST:PORT, or https://"),
        (["api", "--public-url", "https://x:99999"], "is not a base URL"),
        (["api", "--public-url", "https://a b/"], "is not a base URL"),
        (["run", "a:b", "--url", "http://ada:secret@x:y"], "'http://…@x:y' is not a base URL"),
        (["api", "--host", "http://127.0.0.1"], "is not a host: write 127.0.0.1"),
        (["api", "--host", "a..b"], "is not a host"),
        (["broker", "--nats-host", "a b"], "is not a host"),
        (["up", "--port", "4000", "--nats-port", "4000"], "--port and --nats-port are the same: choose two, or 0"),
        (["provision", "--max-age", "0"], "or 'unlimited'"),
        (["status", "1", "--timeout", "5s"], "--timeout limits how long an operation is followed: add --wait"),
        (["cancel", "1", "--timeout", "5s"], "add --wait, or leave it out"),
        (["replay", "--since", "9999-12-31T23:59:59Z"], "it is after the year 2199"),
        (["schemas", ""], "it is empty: write the path of a folder"),
        (["export", ""], "it is empty: write the path of a file"),
        (["keygen", ""], "it is empty: write the path of a file"),
        (["provision", "--replicas", "7"], "1<=x<=5"),
        (["provision", "--max-age", "soon"], "or 'unlimited'"),
        (["up", "--log-level", "loud"], "is not one of"),
        (["schemas"], "Missing argument 'DIR'"),
        (["webhooks", "--callback-host", "https://x.example"], "is not a host: write hooks.example.org"),
        (["api", "--callback-host", "*.org"], "is not a host"),
        (["webhooks", "--callback-host", "x.example"], "a secret is needed to sign with"),
        (["up", "--callback-host", "x.example", "--callback-secret", "hunter2"], "a secret is written whsec_"),
        (["webhooks", "--allow-private", "10.0.0.1/8"], "is not a network: write 10.1.0.0/16"),
        (["webhooks", "--config", "/nowhere.toml"], "/nowhere.toml can't be read (No such file or directory)"),
        (["up", "--webhooks-config", "/nowhere.toml"], "/nowhere.toml can't be read"),
        (["deliveries", "a.b"], "operation id 'a.b' must be"),
        (["parked", "a.b"], "durable 'a.b' must be 1 to 64 characters of A-Z, a-z, 0-9 and '-'"),
        (["parked", "*", "--retry"], "durable '*' must be"),
        (["parked", "mailer", "9" * 30], "is not in the range 1<=x<=9223372036854775807"),
        (["parked", "mailer", "--retry", "--forget"], "exclude each other: choose one"),
        (["parked", "--forget"], "--forget needs the durable, e.g. 'opstream parked mailer --forget'"),
        (["replay", "--action", "a:x", "--action", "b:y"], "it is given twice with different values: leave one out"),
        (["replay", "--follow", "--no-follow"], "it is given twice"),
        (["redeliver"], "say what to send again"),
        (["redeliver", "a.b"], "operation id 'a.b' must be"),
        (["redeliver", "--endpoint", "A"], "endpoint name 'A' must be"),
        (["export", "events.csv"], "events.csv: what is written is Parquet: write a name that ends in .parquet"),
        (["nonsense"], "No such command"),
    ],
)
def test_usage_errors(given: list[Any], arguments: list[str], complaint: str) -> None:
    """Invalid options are refused with exit status 2 before anything starts."""
    result = CliRunner().invoke(main, arguments, env={"OPSTREAM_ACTIONS": "shop"})
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
    assert given == []


@pytest.mark.parametrize("command", ["up", "runner"])
def test_no_actions(given: list[Any], command: str) -> None:
    """Without --actions nothing is run in their place: the error says what to write."""
    result = CliRunner().invoke(main, [command])
    assert (result.exit_code, given) == (2, [])
    assert "write --actions with the name of your module, e.g. --actions greetings for a greetings.py" in result.output
    assert "--actions bookshelf.actions for the example" in result.output


def test_a_short_time_without_a_runner_is_refused(given: list[Any]) -> None:
    """A deployment takes an action's runners away for a moment, which must not refuse submits; 0 is never."""
    result = CliRunner().invoke(main, ["api", "--refuse-unserved-after", "299s"])
    assert result.exit_code == 2
    assert "write at least 5m" in result.output
    assert CliRunner().invoke(main, ["api", "--refuse-unserved-after", "0"]).exit_code == 0
    (settings,) = given
    assert settings.refuse_unserved_after == 0.0
