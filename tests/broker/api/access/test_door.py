"""The door: no request without a valid key passes, and which action a key may submit."""

from __future__ import annotations

import pytest

from opstream_journal import Connection
from opstream_schemas.errors import ErrorCode
from tests.support.access.desk import AccessDesk
from tests.support.api.service import stored_messages
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PATHS = [
    ("GET", "/status/one"),
    ("HEAD", "/status/one"),
    ("GET", "/status/one/events"),
    ("POST", "/status/one:cancel"),
    ("POST", "/book/42:upload-start"),
    ("POST", "/book:upload-start"),
    ("POST", "/no/such:action"),
    ("GET", "/openapi.json"),
    ("GET", "/asyncapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/init.js"),
    ("GET", "/nothing"),
    ("OPTIONS", "/status/one"),
    ("DELETE", "/status/one"),
    ("GET", "/metrics"),
]


async def test_nothing_but_probes_passes_without_a_key(desk: AccessDesk) -> None:
    """Also no path that does not exist."""
    for method, path in PATHS:
        answer = await desk.api.client.request(method, path)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
        assert answer.headers["x-ms-error-code"] == ErrorCode.UNAUTHENTICATED


async def test_no_second_spelling_of_a_probe_opens_the_door(desk: AccessDesk) -> None:
    """Neither a slash more, nor an escape, nor a path that leads elsewhere."""
    for path in ("/healthz/", "//healthz", "/%68ealthz", "/healthz/../openapi.json", "/readyz/..%2fopenapi.json"):
        answer = await desk.api.raw(f"GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n".encode())
        assert answer.status in {401, 404}, path
        assert b"openapi" not in answer.body.replace(b"/openapi.json", b"")


async def test_probes_need_no_key(desk: AccessDesk) -> None:
    """An orchestrator has none."""
    for path in ("/healthz", "/readyz"):
        assert (await desk.api.client.get(path)).status_code == 200


async def test_all_wrong_credentials_get_the_same_answer(desk: AccessDesk, link: Connection) -> None:
    """Unknown, cut, of another scheme, twice, expired, revoked: byte for byte, and nothing is recorded."""
    good = await desk.caller("", "ann", "admin")
    revoked = await desk.caller("", "ann", "admin")
    expired = await desk.caller("", "ann", "admin", lifetime=-1, is_awaited=False)
    await desk.revoke(revoked)

    async def is_refused() -> bool:
        return (await revoked.get("/openapi.json")).status_code == 401

    await eventually(is_refused, within=2)
    key = good.key.encode()
    values: list[list[bytes]] = [
        [],
        [b""],
        [b"Bearer"],
        [b"Basic " + key],
        [key],
        [b"Bearer " + key[:-1]],
        [b"Bearer " + key + b"x"],
        [b"Bearer ops_unknown1_" + key[-43:]],
        [b"Bearer " + key, b"Bearer " + key],
        [b"Bearer " + key + b", Bearer " + key],
        [b"Bearer " + revoked.key.encode()],
        [b"Bearer " + expired.key.encode()],
        [b"Bearer eyJhbGciOiJub25lIn0.e30."],
        [b"Bearer ops_\xff_\xff"],
    ]
    before = await stored_messages(link)
    seen = set()
    for each in values:
        headers = [(b"Authorization", value) for value in each] + [(b"Content-Type", b"application/json")]
        answer = await desk.api.client.post("/book/42:upload-start", content=b'{"title": "x"}', headers=headers)
        shown = {name: value for name, value in answer.headers.items() if name not in {"date", "x-ms-request-id"}}
        seen.add((answer.status_code, answer.content, tuple(sorted(shown.items()))))
    assert len(seen) == 1
    assert await stored_messages(link) == before
    assert (await good.submit()).status_code == 202


async def test_the_scheme_has_no_case(desk: AccessDesk) -> None:
    """RFC 9110: `bearer` is `Bearer`."""
    caller = await desk.caller("", "ann", "read")
    answer = await desk.api.client.get("/openapi.json", headers={"Authorization": f"bEARER  {caller.key}"})
    assert answer.status_code == 200


async def test_a_submit_needs_its_scope(desk: AccessDesk, link: Connection) -> None:
    """Of that action, also for one that does not exist; the error names the scope, and nothing is recorded."""
    caller = await desk.caller("acme", "ann", "submit:book:*", "read:all", "cancel")
    before = await stored_messages(link)
    for path, scope in (("/shelf/1:index", "submit:shelf:index"), ("/no/1:such", "submit:no:such")):
        answer = await caller.submit(path, headers={"Repeatability-Request-ID": "1", **_FIRST_SENT})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden")
        assert scope in answer.json()["error"]["message"]
        assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"'
        assert answer.headers["Repeatability-Result"] == "rejected"
    assert await stored_messages(link) == before
    assert (await caller.submit()).status_code == 202
    assert (await caller.submit("/book/1:burn")).json()["error"]["code"] == "UnknownAction"


_FIRST_SENT = {"Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:00 GMT"}


async def test_documents_show_what_a_caller_may_submit(desk: AccessDesk) -> None:
    """And nothing of other actions, whichever caller asks first."""
    books = await desk.caller("acme", "ann", "submit:book:*")
    none = await desk.caller("acme", "bob", "read:all")
    everything = await desk.caller("", "ops", "admin")
    for path in ("/openapi.json", "/asyncapi.json"):
        for _ in range(2):
            shown = {one: (await one.get(path)).text for one in (everything, books, none)}
            assert ("shelf" in shown[everything], "upload-start" in shown[everything]) == (True, True)
            assert ("shelf" in shown[books], "upload-start" in shown[books]) == (False, True)
            assert ("shelf" in shown[none], "UploadStart" in shown[none]) == (False, False)


async def test_a_key_works_and_ends_within_a_second_in_every_service(desk: AccessDesk) -> None:
    """Without a restart: `caller` waits a second at most for the new key, and so does this for its end."""
    caller = await desk.caller("acme", "ann", "read")
    await desk.revoke(caller)

    async def is_refused() -> bool:
        return (await caller.get("/status/one")).status_code == 401

    await eventually(is_refused, within=2)


async def test_a_foreign_host_is_refused_before_the_key_is_looked_at(desk: AccessDesk) -> None:
    """Credentials replace none of the checks against web pages of other sites."""
    caller = await desk.caller("", "ann", "admin")
    answer = await caller.client.post(
        "/book/42:upload-start",
        content=b"{}",
        headers={"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    )
    assert answer.json()["error"]["code"] == "CrossSiteRequest"
