"""All services with their health ports: a few operations move the metrics, which docs, dashboard and rules name."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import msgspec
import pytest

from opstream_journal import announce_action
from opstream_journal.stores.action_catalog import find_action
from opstream_schemas.names import Kind
from tests.support.broker.server import free_port
from tests.support.journal.journals import linked
from tests.support.system.processes import Process, run
from tests.support.system.scrape import Scrape, scrape
from tests.support.system.services import BROKER, System
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import SECRET

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = ROOT / "docs/metrics.md"
DASHBOARD: Final = ROOT / "deploy/grafana/opstream.json"
RULES: Final = ROOT / "deploy/prometheus/opstream.rules.yml"
LAST_ATTEMPT: Final = "opstream_webhook_last_attempt_timestamp_seconds"
MODULE: Final = "metered"
ACTIONS: Final = '''\
"""Actions that succeed, fail, wait for a file, or wait for their turn."""
import asyncio
from pathlib import Path

from opstream import ActionContext, ActionError, action


@action("meter:say")
async def say(request: str, ctx: ActionContext) -> str:
    return await ctx.step("say", str, request)


@action("meter:refuse")
async def refuse(request: str, ctx: ActionContext) -> str:
    raise ActionError("Refused", request)


@action("meter:retry", backoff=3600, backoff_max=3600)
async def retry(request: str, ctx: ActionContext) -> str:
    def fail() -> None:
        raise RuntimeError(request)

    await ctx.step("fail", fail)
    return request


async def wait(request: str, ctx: ActionContext) -> str:
    while not Path("open").exists():
        await asyncio.sleep(0.05)
    return request


@action("meter:hold", exclusive="resource")
async def hold(request: str, ctx: ActionContext) -> str:
    return await wait(request, ctx)


@action("meter:crowd", max_concurrency=1)
async def crowd(request: str, ctx: ActionContext) -> str:
    return await wait(request, ctx)


@action("meter:pace", rate="1/h")
async def pace(request: str, ctx: ActionContext) -> str:
    return request
'''


class Services(NamedTuple):
    """All services, with the URL of the health port of each."""

    system: System
    urls: dict[str, str]
    http: httpx.Client

    @property
    def api(self) -> str:
        """The URL for clients."""
        return self.system.api

    def scrape(self, name: str) -> Scrape:
        """The page of a service."""
        return scrape(self.http, self.urls[name])

    def submit(self, path: str, **headers: str) -> str:
        """Submit; return the operation's id."""
        answer = self.http.post(f"{self.api}{path}", json="hello", headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def until(self, name: str, is_met: Callable[[Scrape], bool]) -> Scrape:
        """Scrape a service until its page is as wanted. Gauges of the broker are read every five seconds."""
        pages: list[Scrape] = []

        def look() -> bool:
            pages[:] = [self.scrape(name)]
            return is_met(pages[0])

        asyncio.run(eventually(look, within=30, poll=0.2))
        return pages[0]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """All services, ready. Nothing listens at the endpoint of the webhooks."""
    folder = tmp_path_factory.mktemp("metered")
    (folder / f"{MODULE}.py").write_text(ACTIONS, encoding="utf-8")
    ports = {name: free_port() for name in ("api", "projector", "runner", "webhooks", "closed")}
    hooks = f'[[hooks]]\nname = "down"\nurl = "http://127.0.0.1:{ports["closed"]}/"\nsecrets = ["{SECRET}"]\n'
    (folder / "hooks.toml").write_text(hooks, encoding="utf-8")
    with ExitStack() as stack:
        system = System(folder, stack, MODULE)
        system.start(BROKER)
        system.wait_ready(BROKER)
        nats = ("--nats", system.nats)
        assert run("provision", *nats, "--actions", MODULE, "--max-bytes", "64MiB", cwd=folder).returncode == 0
        hooked = ("--config", "hooks.toml", "--allow-private", "127.0.0.0/8", "--allow-http")
        options = {
            "api": ("--port", str(system.port("api"))),
            "projector": ("--index", f"sqlite:{folder / 'index.db'}"),
            "runner": ("--actions", MODULE, "--concurrency", "7"),
            "webhooks": hooked,
        }
        for name, own in options.items():
            process = Process(name, *nats, *own, "--health-port", str(ports[name]), cwd=folder)
            system.processes[name] = stack.enter_context(process)
        found = Services(
            system,
            {name: f"http://127.0.0.1:{ports[name]}" for name in options},
            stack.enter_context(httpx.Client(trust_env=False, timeout=20)),
        )
        asyncio.run(eventually(lambda: all(map(found_ready(found), options)), within=30, poll=0.1))
        yield found


def found_ready(services: Services) -> Callable[[str], bool]:
    """Return a look whether a service is ready by its health port."""

    def is_ready(name: str) -> bool:
        try:
            return services.http.get(f"{services.urls[name]}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    return is_ready


def test_clients_see_no_metrics(services: Services) -> None:
    """On the port of the clients there is no such path, whatever the method and the spelling."""
    for path in ("/metrics", "/metrics/", "//metrics", "/%6detrics", "/docs/metrics"):
        for method in ("GET", "HEAD", "POST"):
            answer = services.http.request(method, f"{services.api}{path}", headers={"Accept": "text/plain"})
            assert answer.status_code in {404, 405}, (method, path)
            assert "opstream_ready" not in answer.text
    assert services.scrape("api").value("opstream_ready") == 1


def test_operations_move_the_metrics(services: Services) -> None:
    """What becomes of operations, what waits and why, requests, appends, attempts and deliveries: each is counted once,
    by the service whose it is."""
    before = {name: services.scrape(name) for name in services.urls}
    says = [services.submit("/meter:say") for _ in range(3)]
    services.submit("/meter:refuse")
    services.submit("/meter:retry")
    holds = [services.submit("/meter/42:hold") for _ in range(3)]
    for _ in range(2):
        services.submit("/meter:crowd")
        services.submit("/meter:pace")
    services.submit("/meter:say", **{"Operation-Id": says[0]})  # again: the journal has it
    assert services.http.post(f"{services.api}/meter:unknown", json="x").status_code == 404
    assert services.http.post(f"{services.api}/status/{holds[2]}:cancel").status_code == 200

    projector = services.until(
        "projector",
        lambda page: (
            page.value("opstream_operations_total", action="meter:say", outcome="succeeded") == 3
            and page.value("opstream_waiting", action="meter:hold", reason="Resource") == 1
            and page.value("opstream_waiting", action="meter:pace", reason="Rate") == 1
        ),
    )
    assert projector.value("opstream_operations_total", action="meter:refuse", outcome="failed") == 1
    assert projector.value("opstream_operations_total", action="meter:hold", outcome="canceled") == 1
    assert projector.value("opstream_queue_seconds_count", action="meter:say") == 3
    assert projector.value("opstream_operation_seconds_count", action="meter:say") == 3
    assert 0 < projector.value("opstream_operation_seconds_sum", action="meter:say") < 60
    assert projector.value("opstream_waiting", action="meter:retry", reason="Retry") == 1
    assert projector.value("opstream_waiting", action="meter:crowd", reason="Concurrency") == 1
    assert projector.value("opstream_oldest_waiting_seconds", action="meter:crowd", reason="Concurrency") > 0
    assert projector.value("opstream_timers_overdue") == 0
    services.until("projector", lambda page: page.value("opstream_projector_lag_events") == 0)

    runner = services.scrape("runner")
    assert runner.value("opstream_running", action="meter:hold") == 1
    assert runner.value("opstream_running", action="meter:crowd") == 1
    assert runner.value("opstream_running", action="meter:say") == 0
    assert runner.value("opstream_slots", action="meter:say") == 7
    assert runner.value("opstream_attempt_seconds_count", action="meter:say") == 3
    assert runner.value("opstream_attempt_seconds_count", action="meter:retry") == 1
    assert runner.value("opstream_steps_total", action="meter:say", result="succeeded") == 3
    assert runner.value("opstream_steps_total", action="meter:retry", result="failed") == 1
    assert runner.value("opstream_appends_total", result="stored") > before["runner"].value(
        "opstream_appends_total", result="stored"
    )

    api = services.scrape("api")
    submit = "/{resource}/{id}:{action}"
    assert api.value("opstream_http_requests_total", route=submit, status="202") == 13
    missing = {"route": submit, "status": "404"}
    assert api.value("opstream_http_requests_total", **missing) == 1 + before["api"].value(
        "opstream_http_requests_total", **missing
    )
    assert api.value("opstream_http_request_seconds_count", route="/status/{id}:cancel") == 1
    assert api.value("opstream_appends_total", result="conflict") == 1
    assert api.value("opstream_append_seconds_count") == 13
    assert 0 < api.value("opstream_journal_bytes") < api.value("opstream_journal_limit_bytes") == 64 * 2**20
    assert 0 < api.value("opstream_journal_free_bytes") < 64 * 2**20
    assert api.value("process_cpu_seconds_total") > before["api"].value("process_cpu_seconds_total")

    webhooks = services.until(
        "webhooks", lambda page: page.value("opstream_webhook_attempts_total", outcome="retrying") >= 5
    )
    assert webhooks.value("opstream_webhook_attempt_seconds_count") >= 5
    last = {name: webhooks.value(LAST_ATTEMPT, endpoint="down", outcome=name) for name in ("retrying", "delivered")}
    assert last["retrying"] > webhooks.value("process_start_time_seconds") > last["delivered"] == 0
    assert api.value("opstream_journal_replicas", state="current") == 1
    assert 0 <= projector.value("opstream_broker_read_age_seconds") < 60


def test_clients_that_wait(services: Services) -> None:
    """A request that waits and one that follows events are shown while they are open."""
    operation_id = services.submit("/meter/7:hold")
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(trust_env=False, timeout=60))
        url = f"{services.api}/status/{operation_id}"
        stack.enter_context(http.stream("GET", f"{url}/events", headers={"Accept": "text/event-stream"}))
        waiting = threading.Thread(target=lambda: services.http.get(url, headers={"Prefer": "wait=20"}))
        waiting.start()
        stack.callback(waiting.join)
        services.until(
            "api",
            lambda page: (
                page.value("opstream_http_clients", kind="wait")
                == page.value("opstream_http_clients", kind="events")
                == 1
            ),
        )
        services.http.post(f"{url}:cancel")
    services.until(
        "api",
        lambda page: not any(page.value("opstream_http_clients", kind=kind) for kind in ("wait", "events")),
    )


def test_large_documents_and_files(services: Services) -> None:
    """What lies in the payload store is counted by who stores it and who reads it, with its bytes."""
    before = {name: services.scrape(name) for name in ("api", "runner")}
    text = "x" * 300_000
    put = services.http.put(f"{services.api}/payloads/filed/scan.tif", content=b"x" * 1_000)
    assert put.status_code == 201, put.text
    headers = {"Operation-Id": "filed", "Operation-Upload": put.json()["claim"]}
    assert services.http.post(f"{services.api}/meter:say", json=text, headers=headers).status_code == 202
    done = services.http.get(f"{services.api}/status/filed", headers={"Prefer": "wait=20"}).json()
    assert done["result"] == text

    def grown(name: str, metric: str, **labels: str) -> float:
        return services.scrape(name).value(metric, **labels) - before[name].value(metric, **labels)

    assert grown("api", "opstream_uploads_total", outcome="stored") == 1
    assert services.scrape("api").value("opstream_uploads_open") == 0
    assert grown("api", "opstream_payloads_total", act="stored") == 2  # the file and the input
    assert grown("api", "opstream_payload_bytes_total", act="stored") == 301_002  # with the quotes of the text
    assert grown("api", "opstream_payloads_total", act="read") >= 1
    assert grown("runner", "opstream_payloads_total", act="read") == 1
    assert grown("runner", "opstream_payload_bytes_total", act="read") == 300_002
    assert grown("runner", "opstream_payloads_total", act="stored") == 2  # the result of the step, and of the action


async def announce_later_version(nats: str, kind: Kind) -> None:
    """Announce an action as a runner of its next version does."""
    async with linked(nats) as link:
        spec = await find_action(link, kind)
        assert spec is not None
        await announce_action(link, msgspec.structs.replace(spec, action_version=spec.action_version + 1))


def test_requests_of_a_version_that_no_runner_has(services: Services) -> None:
    """They wait for a runner of their version, which the runners of another one show."""
    asyncio.run(announce_later_version(services.system.nats, Kind("meter", "refuse")))

    def leaves_one(page: Scrape) -> bool:
        services.submit("/meter:refuse")  # until the API knows of the version
        return page.value("opstream_waiting", action="meter:refuse", reason="Version") >= 1

    page = services.until("runner", leaves_one)
    assert page.value("opstream_waiting", action="meter:say", reason="Version") == 0


def test_the_page_names_every_metric(services: Services) -> None:
    """docs/metrics.md has the name, the kind, the labels and the services of each metric, and no other."""
    pages = {name: services.scrape(name) for name in services.urls}
    documented = read_tables(PAGE.read_text(encoding="utf-8"))
    shown: dict[str, tuple[str, str, str]] = {}
    for name in sorted({name for page in pages.values() for name in page.kinds}):
        having = [service for service, page in pages.items() if name in page.kinds]
        found = [page.label_names[name] for page in pages.values() if name in page.label_names]
        # A family without a series, such as that of conditions, shows no labels.
        labels = ", ".join(sorted(set().union(*found))) if found else documented.get(name, ("", "", ""))[1]
        where = "all" if len(having) == len(pages) else ", ".join(sorted(having))
        shown[name] = (pages[having[0]].kinds[name], labels, where)
    assert documented == shown


def expressions() -> dict[str, str]:
    """The queries of the dashboard by the titles of their panels, and those of the alerts by their names."""
    found: dict[str, str] = {}
    for panel in msgspec.json.decode(DASHBOARD.read_bytes())["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for rule in re.finditer(r"- alert: (\w+)\n +expr: (\|\n(?: {10,}.*\n)+|.*\n)", RULES.read_text(encoding="utf-8")):
        found[rule[1]] = rule[2].removeprefix("|")
    return found


def test_dashboard_and_rules_name_metrics_that_there_are(services: Services) -> None:
    """Each metric in a query is on the page of a running service."""
    names = {name for service in services.urls for name in services.scrape(service).kinds}
    lines = names | {f"{name}_bucket" for name in names}
    used = {name for text in expressions().values() for name in re.findall(r"\b(?:opstream|process)_\w+", text)}
    assert len(used) > 25
    assert used <= lines
    assert {name for name in names if name.startswith("opstream_")} - {
        one.removesuffix("_bucket") for one in used
    } == set()


def test_each_panel_has_its_row_and_unit() -> None:
    """A row is a question; each of its panels says what it shows, and in which unit."""
    panels = msgspec.json.decode(DASHBOARD.read_bytes())["panels"]
    assert all(panel["title"].endswith("?") for panel in panels if panel["type"] == "row")
    shown = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in shown)
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.fixture(scope="module")
def prometheus(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that scrapes the services each second and evaluates the rules."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("there is no prometheus on the PATH: install Debian's package prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    jobs = [
        {"job_name": f"opstream-{name}", "static_configs": [{"targets": [url.removeprefix("http://")]}]}
        for name, url in services.urls.items()
    ]
    intervals = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": intervals, "rule_files": [str(RULES)], "scrape_configs": jobs}
    (folder / "prometheus.yml").write_bytes(msgspec.json.encode(config))  # JSON is YAML, too
    options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}")
    with Process(*options, command=[binary], cwd=folder) as process:
        process.wait_for("Server is ready to receive web requests")
        yield f"http://127.0.0.1:{port}/api/v1"


def evaluated(rules: Any) -> bool:
    """Return True once each rule was evaluated."""
    return all(rule["health"] != "unknown" for group in rules["groups"] for rule in group["rules"])


WITHOUT_DATA: Final = {
    "Conditions A",
    "Mended by itself A",
    "Operations that wait A",
    "Operations that wait B",
    "Oldest that waits A",
}
"""Panels that show nothing while all is well."""


def test_prometheus_evaluates_all_of_it(services: Services, prometheus: str) -> None:
    """Debian's Prometheus scrapes all services; each panel and each alert has data of the real system, or says by its
    nature that there is nothing wrong."""

    def ask(what: str, **parameters: str) -> Any:
        answer = services.http.get(f"{prometheus}/{what}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def results(expression: str) -> list[Any]:
        query = expression.replace("$__rate_interval", "1m").replace("$action", ".*")
        return list(ask("query", query=query)["result"])

    services.submit("/meter:say")
    operation_id = services.submit("/meter/9:hold")
    services.http.post(f"{services.api}/status/{operation_id}:cancel")

    asyncio.run(eventually(lambda: ask("rules")["groups"] and evaluated(ask("rules")), within=20, poll=0.2))
    alerts = {rule["name"]: rule for group in ask("rules")["groups"] for rule in group["rules"]}
    empty: set[str] = set()

    def has_data() -> bool:
        services.submit("/meter:say")  # a series has a rate once it has grown between two scrapes
        empty.clear()
        empty.update(name for name, query in expressions().items() if name not in alerts and not results(query))
        return len(results("up == 1")) == len(services.urls) and empty <= WITHOUT_DATA

    try:
        asyncio.run(eventually(has_data, within=40, poll=0.5))
    except AssertionError:
        pytest.fail(f"without data: {sorted(empty - WITHOUT_DATA)}")
    assert {name for name, rule in alerts.items() if rule["health"] != "ok" or rule.get("lastError")} == set()
    assert set(alerts) <= set(expressions())
    targets = ask("targets")["activeTargets"]
    assert [one["lastError"] for one in targets] == [""] * len(services.urls)


def read_tables(text: str) -> dict[str, tuple[str, str, str]]:
    """Kind, labels and services of each metric, by the tables of the page."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"`(?:opstream|process)_\w+`", cells[0]):
            name, kind, labels, services, meaning = cells
            assert meaning, name
            found[name.strip("`")] = (kind, labels.replace("`", ""), services)
    return found


def test_each_alert_fires_and_is_silent_before() -> None:
    """promtool accepts the rules, and provokes each of them in opstream.rules.test.yml."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool on the PATH: install Debian's package prometheus")
    tests = RULES.with_suffix(".test.yml")
    for arguments in (("check", "rules", RULES.name), ("test", "rules", tests.name)):
        done = subprocess.run(
            [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    names = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
    assert re.findall(r"- name: (\w+)", tests.read_text(encoding="utf-8")) == names
