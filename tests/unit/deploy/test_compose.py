"""deploy/compose/compose.yaml: what can be known of it without a container engine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from opstream.cli.app import main

pytestmark = pytest.mark.unit

FOLDER: Final = Path(__file__).resolve().parents[3] / "deploy" / "compose"
PUBLISHED: Final = {"api-1", "api-2", "prometheus", "grafana"}
KEYS: Final = {
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "entrypoint",
    "environment",
    "healthcheck",
    "image",
    "network_mode",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "user",
    "volumes",
}
CONDITIONS: Final = {"service_started", "service_healthy", "service_completed_successfully"}
HEALTHCHECK: Final = {"test", "interval", "timeout", "retries", "start_period", "disable"}
PINNED: Final = re.compile(r"[a-z/]+:v?\d+\.\d+\.\d+(-alpine)?")

Service = dict[str, Any]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The file, with its anchors resolved."""
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text()))


@pytest.fixture(scope="module")
def services(whole: dict[str, Any]) -> dict[str, Service]:
    """Its services by name."""
    return dict(whole["services"])


def command_lines(service: Service) -> list[list[str]]:
    """The arguments of each call of opstream in a service."""
    if "entrypoint" not in service:
        return [service["command"]]
    lines = [shlex.split(line) for line in service["command"][0].splitlines()]
    return [line[line.index("opstream") + 1 :] for line in lines if "opstream" in line]


def test_all_keys_are_of_the_compose_specification(whole: dict[str, Any], services: dict[str, Service]) -> None:
    """A key that compose does not know would be refused or ignored; what is referred to exists."""
    assert {key for key in whole if not key.startswith("x-")} == {"name", "services", "volumes"}
    for name, service in services.items():
        assert service.keys() <= KEYS, name
        assert service["healthcheck"].keys() <= HEALTHCHECK, name
        for needed, how in service.get("depends_on", {}).items():
            assert how.keys() == {"condition"}, name
            assert how["condition"] in CONDITIONS, name
            ends = services[needed]["restart"] == "no"
            assert (how["condition"] == "service_completed_successfully") == ends, (name, needed)


def test_the_commands_take_each_command_line(services: dict[str, Service], tmp_path: Path) -> None:
    """The real parser takes what the containers are started with; no process begins."""
    lines = [line for one in services.values() if one["image"] == "opstream:local" for line in command_lines(one)]
    called = [line[0] for line in lines]
    assert sorted(called) == sorted(["broker-config", "provision", "projector", "api", "api", "runner", "webhooks"])
    for line in lines:
        command = main.get_command(click.Context(main), line[0])
        assert command is not None
        keys = [word for word in line if word.startswith("/keys/")]
        for key in keys:
            (tmp_path / Path(key).name).touch()
        command.make_context(line[0], [str(tmp_path / Path(word).name) if word in keys else word for word in line[1:]])


def test_each_mounted_file_is_there(whole: dict[str, Any], services: dict[str, Service]) -> None:
    """A file that is missing would become an empty folder in the container."""
    files = 0
    for service in services.values():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("."):
                files += 1
                assert (FOLDER / source).is_file(), source
                assert volume.endswith(":ro"), volume
            else:
                assert source in whole["volumes"], source
    assert files


def test_each_process_has_its_own_key_only(services: dict[str, Service]) -> None:
    """The key that a command line names is the one that is mounted; only what makes the keys has all of them."""
    for name, service in services.items():
        mounts = [one for one in service["volumes"] if isinstance(one, dict)]
        keys = {one["target"] for one in mounts if one["target"].endswith(".nk")}
        command = service.get("command", [])
        assert keys == {word for word in command if word.endswith(".nk")}, name
        assert all(one["volume"]["subpath"] for one in mounts), name
        assert ("setup:/data" in service["volumes"]) == (name == "setup"), name


def test_each_container_may_do_little(services: dict[str, Service]) -> None:
    """No root, no capability, nothing to write to but volumes; pinned images; a probe for what goes on running."""
    for name, service in services.items():
        assert int(service["user"].split(":")[0]) > 0, name
        assert service["user"].split(":")[1] != "0", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "build" in service or PINNED.fullmatch(service["image"]), name
        assert ("test" in service["healthcheck"]) == (service["restart"] != "no"), name


def test_only_this_machine_reaches_the_ports(services: dict[str, Service]) -> None:
    """The APIs, Prometheus and Grafana are published, on 127.0.0.1 and a port each; the broker is not."""
    assert {name for name, service in services.items() if "ports" in service} == PUBLISHED
    ports = [port for name in PUBLISHED for port in services[name]["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports) == len(PUBLISHED)


def test_prometheus_scrapes_each_service(services: dict[str, Service]) -> None:
    """The targets are all services with a health port, which shows metrics to other containers."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    with_port = {name for name, one in services.items() if "--health-port" in one.get("command", [])}
    assert set(targets) == {f"{name}:8081" for name in with_port}
    for name in with_port:
        assert services[name]["command"][-4:] == ["--health-host", "0.0.0.0", "--health-port", "8081"]


@pytest.mark.parametrize("path", [FOLDER / "compose.yaml", FOLDER.parents[1] / "compose.yaml"], ids=str)
def test_projector_and_api_share_an_index(path: Path) -> None:
    """One file, in a volume that both have; the folder is there in the image, and the image's user may write to it."""
    services = yaml.safe_load(path.read_text())["services"]
    having = {name: one for name, one in services.items() if "--index" in one.get("command", [])}
    assert {name.partition("-")[0] for name in having} == {"api", "projector"}
    for service in having.values():
        command = service["command"]
        assert command[command.index("--index") + 1] == "sqlite:/index/index.db"
        assert "index:/index" in service["volumes"]
    assert re.search(r"mkdir [^&]*/index && chown opstream [^&]*/index", (FOLDER.parents[1] / "Dockerfile").read_text())


def test_the_image_has_what_an_index_in_postgresql_needs() -> None:
    """The lock from which it is installed has the client of PostgreSQL."""
    root = FOLDER.parents[1]
    assert "--require-hashes -r requirements.lock" in (root / "Dockerfile").read_text()
    assert {"psycopg", "psycopg-binary"} <= set(
        re.findall(r"^([a-z-]+)==", (root / "requirements.lock").read_text(), re.MULTILINE)
    )
