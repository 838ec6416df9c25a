"""What the client's calls do, without a network and without waiting: retries, waiting, results, errors."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opstream.client.errors import (
    InvalidRequest,
    OperationCanceled,
    OperationFailed,
    RequestRefused,
    ServiceUnavailable,
    UnexpectedAnswer,
    WaitTimeout,
)
from opstream.client.io_requests import NoResponse
from opstream.client.lists.flows import ListFlows
from opstream.client.models import Operation
from opstream_schemas.errors import ErrorCode
from opstream_schemas.operation.state import Status
from opstream_schemas.status_monitor import StatusMonitor
from tests.support.client.flow_driver import BASE, After, World, refusal, reply

pytestmark = pytest.mark.unit

LOST = NoResponse("no response in time")
DEEP = b'{"a":' + b"[" * 100_000
HTML = b"<html>upstream is away</html>"
ACCEPTED = reply(202, {"id": "made-id", "status": "NotStarted"}, retry_after=1)
RUNNING = reply(200, {"id": "x", "status": "Running"}, retry_after=1)
HELD = reply(200, {"id": "x", "status": "Running"}, retry_after=1, preference_applied="wait=30")
DONE = reply(200, {"id": "x", "status": "Succeeded", "result": {"n": 1}})


def submit(world: World, value: Any = msgspec.UNSET, **options: Any) -> Operation:
    given = {"operation_id": None, "headers": None, "timeout": 60.0, **options}
    return world.run(world.flows.submit("book/42:upload-start", value, **given))


def wait(world: World, operation: Operation | str = "x", **options: Any) -> Operation:
    given = {"timeout": None, "on_change": None, **options}
    return world.run(world.flows.wait(operation, **given))


def test_a_submit() -> None:
    """One POST with a new operation id and the input as JSON; the returned operation has its status and URL."""
    world = World(ACCEPTED)
    operation = submit(world, {"title": "Moby Dick"})
    (sent,) = world.sent
    assert (sent.method, sent.url) == ("POST", f"{BASE}/book/42:upload-start")
    assert sent.content == b'{"title":"Moby Dick"}'
    assert (sent.headers["Operation-Id"], sent.headers["Content-Type"]) == ("made-id", "application/json")
    assert (operation.id, operation.status, operation.url) == ("made-id", "NotStarted", f"{BASE}/status/made-id")
    assert not operation.is_terminal


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (msgspec.UNSET, b"{}"),
        (None, b"null"),
        (msgspec.Raw(b'{"a": 1}'), b'{"a": 1}'),
        (msgspec.defstruct("Input", [("a", int)])(1), b'{"a":1}'),
    ],
    ids=["nothing", "null", "JSON", "struct"],
)
def test_inputs(value: Any, body: bytes) -> None:
    """Without an input an empty object is sent; JSON text is sent unchanged."""
    world = World(ACCEPTED)
    submit(world, value)
    assert world.sent[0].content == body


def test_an_input_that_is_no_json() -> None:
    """An input that can't be JSON is refused before anything is sent."""
    world = World()
    with pytest.raises(InvalidRequest, match="can't be written as JSON"):
        submit(world, object())


@pytest.mark.parametrize(
    "trouble",
    [
        LOST,
        reply(429, HTML),
        reply(408, HTML),
        reply(500, HTML),
        reply(502, HTML),
        reply(503, HTML),
        reply(504, HTML),
        reply(520, HTML),
        refusal(503, "JournalUnavailable"),
    ],
    ids=lambda one: getattr(one, "reason", None) or one.status,
)
def test_a_submit_that_is_tried_again(trouble: Any) -> None:
    """After no response, or a transient one, the identical request is sent again."""
    world = World(trouble, trouble, ACCEPTED)
    submit(world, {"a": 1}, headers={"traceparent": "t"})
    first, second, third = world.sent
    assert first == second == third
    assert first.headers["traceparent"] == "t"
    assert world.sleeps == [0.2, 0.4]
    assert len(world.troubles) == 2


def test_pauses_grow_and_are_spread() -> None:
    """Pauses double up to 5 seconds, and jitter takes off up to half."""
    for jitter, spread in ((1.0, 1.0), (0.0, 0.5)):
        world = World(*[LOST] * 8, ACCEPTED, jitter=jitter)
        submit(world)
        assert world.sleeps == [spread * pause for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5)]


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry_after": 7}, 7.2),
        ({"retry_after": "Tue, 24 Nov 2026 10:00:09 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 9.2),
        ({"retry_after": "Tue, 24 Nov 2026 09:00:00 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 0.2),
        ({"retry_after": "Tue, 24 Nov 2026 10:00:09 GMT"}, 0.2),
        ({"retry_after": "Tue, 24 Nov 99999999999 10:00:09 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 0.2),
        ({"retry_after": "soon"}, 0.2),
        ({"retry_after": "-3"}, 0.2),
    ],
)
def test_retry_after(headers: dict[str, Any], pause: float) -> None:
    """`Retry-After` is added to the pause, as seconds or as a date by the service's clock; other values are ignored."""
    world = World(reply(503, HTML, **headers), ACCEPTED)
    submit(world)
    assert world.sleeps == [pause]


def test_a_submit_that_gives_up() -> None:
    """At its timeout, the error has the id to submit again, and the last problem."""
    world = World(*[LOST] * 4, refusal(503, "JournalUnavailable", "the journal did not answer"))
    with pytest.raises(ServiceUnavailable) as caught:
        submit(world, operation_id="mine", timeout=4.0)
    assert world.is_used_up
    assert caught.value.operation_id == "mine"
    assert "503 Service Unavailable, JournalUnavailable: the journal did not answer" in str(caught.value)
    assert str(caught.value).endswith("submit it again with operation_id='mine'")
    assert world.now < 1004


def test_a_service_that_asks_for_more_time_than_there_is() -> None:
    """A `Retry-After` beyond the timeout fails at once."""
    world = World(refusal(503, "JournalFull", retry_after=30))
    with pytest.raises(ServiceUnavailable) as caught:
        submit(world, timeout=20.0)
    assert (caught.value.retry_after, world.sleeps) == (30, [])


def test_a_try_never_takes_longer_than_the_call_has() -> None:
    """A silent service does not delay the call beyond its timeout, except that the last try gets a second."""
    world = World(After(10, LOST), After(1.2, LOST), ACCEPTED)
    submit(world, timeout=12.0)
    assert [round(sent.timeout, 6) for sent in world.sent] == [10, 1.8, 1.0]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (
            refusal(400, "InvalidInput", "it is wrong", target="files[0]"),
            RequestRefused,
            "InvalidInput: it is wrong (files[0])",
        ),
        (refusal(404, "UnknownAction", "no runner offers it"), RequestRefused, "UnknownAction: no runner offers it"),
        (reply(404, HTML), RequestRefused, "404 Not Found by something that is not opstream: check the URL"),
        (reply(401, HTML), RequestRefused, "401 Unauthorized by something that is not opstream: check the credentials"),
        (refusal(500, "InternalError", "ours"), UnexpectedAnswer, "the service failed"),
        (reply(501, HTML), UnexpectedAnswer, "501 Not Implemented"),
        (
            reply(308, HTML, location="https://api.test/x"),
            UnexpectedAnswer,
            "does not follow the redirect to 'https://api.test/x'",
        ),
        (reply(200, {"id": "made-id", "status": "Running"}), UnexpectedAnswer, "200 OK"),
        (reply(202, HTML), UnexpectedAnswer, "not from opstream"),
        (reply(202, {"id": "x", "status": "Sleeping"}), UnexpectedAnswer, "not from opstream"),
        (reply(202, {"id": "x", "status": "Running"}), UnexpectedAnswer, "the response is about operation 'x'"),
        (reply(404, DEEP), RequestRefused, "by something that is not opstream"),
        (reply(202, DEEP), UnexpectedAnswer, "not from opstream"),
    ],
)
def test_answers_that_end_a_submit(answer: Any, error: type[Exception], text: str) -> None:
    """A 4xx is final, and so is a response that opstream never gives. The error has the next step and the id."""
    world = World(answer)
    with pytest.raises(error) as caught:
        submit(world)
    assert text in str(caught.value)
    assert "book/42:upload-start with operation id made-id" in str(caught.value)
    assert getattr(caught.value, "status", None) == answer.status


def test_a_refusal_in_parts() -> None:
    """The error body's members are attributes; further problems are in the text."""
    details = [{"code": "InvalidInput", "message": f"bad {n}", "target": f"f[{n}]"} for n in range(3)]
    world = World(refusal(400, "InvalidInput", "bad 0", target="f[0]", details=details))
    with pytest.raises(RequestRefused) as caught:
        submit(world)
    error = caught.value
    assert (error.status, error.code, error.message, error.target) == (400, ErrorCode.INVALID_INPUT, "bad 0", "f[0]")
    assert [detail.target for detail in error.details] == ["f[0]", "f[1]", "f[2]"]
    assert str(error).endswith("InvalidInput: bad 0 (f[0]); bad 1 (f[1]); bad 2 (f[2])")


def test_given_headers() -> None:
    """Given headers are sent, but can't replace the operation id."""
    world = World(ACCEPTED)
    submit(world, headers={"X-Tenant": "a", "operation-id": "other", "ACCEPT": "text/html"})
    assert world.asked("x-tenant") == ["a"]
    assert world.asked("operation-id") == ["made-id"]
    assert world.asked("accept") == ["application/json"]


def test_labels() -> None:
    """Labels are one header."""
    world = World(ACCEPTED)
    submit(world, labels={"team": "press", "run": "7 of 9"})
    assert world.asked("operation-label") == ["team=press, run=7 of 9"]


@pytest.mark.parametrize(
    "labels",
    [
        {"Team": "press"},
        {"team": ""},
        {"team": "a,b=c"},
        {"team": " a"},
        {"team": "é"},
        {f"k{n}": "v" for n in range(17)},
    ],
)
def test_labels_that_can_not_be_sent(labels: dict[str, str]) -> None:
    """They are refused before anything is sent; none arrives as another one."""
    world = World(ACCEPTED)
    with pytest.raises(InvalidRequest):
        submit(world, labels=labels)
    assert world.sent == []


def test_waiting_with_prefer_wait() -> None:
    """Each request asks for a wait of 30 seconds; after one that waited, the next follows at once."""
    world = World(After(30, HELD), After(12, DONE))
    assert wait(world).status is Status.SUCCEEDED
    assert world.asked("Prefer") == ["wait=30", "wait=30"]
    assert world.sleeps == []
    assert all(sent.timeout > 30 for sent in world.sent)


def test_waiting_without_prefer_wait() -> None:
    """A service or proxy that does not wait is polled as its Retry-After says, or every second."""
    slow = reply(200, {"id": "x", "status": "Running"}, retry_after=5)
    mute = reply(200, {"id": "x", "status": "Running"})
    world = World(After(0.1, slow), mute, After(0.4, HELD), DONE)
    wait(world)
    assert world.sleeps == [5, 1, 0.6]


def test_waiting_with_on_change() -> None:
    """`on_change` is called with each changed state; requests wait as long as the poll interval."""
    half = reply(200, {"id": "x", "status": "Running", "percentComplete": 50}, retry_after=3, preference_applied="x")
    world = World(After(1, HELD), After(1, HELD), After(3, half), DONE)
    seen: list[tuple[str, float | None]] = []
    last = wait(world, on_change=lambda one: seen.append((one.status, one.monitor.percent_complete)))
    assert seen == [("Running", None), ("Running", 50), ("Succeeded", None)]
    assert world.asked("Prefer") == ["wait=1", "wait=1", "wait=1", "wait=3"]
    assert msgspec.json.decode(bytes(last.monitor.result)) == {"n": 1}  # type: ignore[arg-type]


def test_the_given_state_is_no_change() -> None:
    """With an Operation, `on_change` is called only for later changes."""
    world = World(RUNNING, DONE)
    seen: list[str] = []
    handle = Operation(f"{BASE}/status/x", StatusMonitor(id="x", status=Status.RUNNING))
    wait(world, handle, on_change=lambda one: seen.append(one.status))
    assert seen == ["Succeeded"]


def test_waiting_outlives_an_outage() -> None:
    """Without a timeout, a wait lasts through any outage; afterwards the pauses are short again."""
    outage = [LOST, reply(502, HTML), refusal(503, "JournalUnavailable", retry_after=1), reply(503, HTML)] * 20
    world = World(RUNNING, *outage, RUNNING, LOST, DONE)
    assert wait(world).is_terminal
    assert world.is_used_up
    assert world.now - 1000 > 300
    assert world.sleeps[-1] == 0.2


def test_a_wait_that_is_over() -> None:
    """The error has the last seen operation; requests wait no longer than the timeout."""
    world = World(After(3, HELD), HELD)
    with pytest.raises(WaitTimeout, match=r"operation x is Running after 4 s and goes on: wait for it again") as caught:
        wait(world, timeout=4.0)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.operation is not None
    assert (caught.value.operation_id, caught.value.operation.status) == ("x", "Running")
    assert world.asked("Prefer") == ["wait=3", None]
    assert world.now == 1004


def test_a_wait_without_an_answer() -> None:
    """It takes its whole timeout, so that a loop of waits does not overload a service that is down."""
    world = World(refusal(503, "JournalUnavailable", retry_after=30))
    with pytest.raises(WaitTimeout, match=r"operation x was not seen after 4 s .* JournalUnavailable") as caught:
        wait(world, timeout=4.0)
    assert caught.value.operation is None
    assert world.now == 1004


def test_a_wait_of_no_time() -> None:
    """A wait of 0 seconds polls once."""
    assert wait(World(DONE), timeout=0.0).is_terminal
    with pytest.raises(WaitTimeout):
        wait(World(RUNNING), timeout=0.0)


@pytest.mark.parametrize("call", ["wait", "status", "cancel", "retry", "history", "follow"])
def test_an_operation_that_is_not_known(call: str) -> None:
    """A 404 ends any call at once."""
    world = World(refusal(404, "OperationNotFound", "there is no such operation"))
    options = {
        "wait": {"on_change": None},
        "cancel": {"reason": ""},
        "history": {"after": 0},
        "follow": {"after": 0},
    }.get(call, {})
    with pytest.raises(RequestRefused, match="operation x was refused: OperationNotFound") as caught:
        world.run(getattr(world.flows, call)("x", timeout=None, **options))
    assert caught.value.code == "OperationNotFound"


@pytest.mark.parametrize("call", ["wait", "status", "cancel", "retry", "history", "follow"])
def test_an_invalid_id(call: str) -> None:
    """An invalid id is refused before anything is sent: it would reach another path."""
    world = World()
    options = {
        "wait": {"on_change": None},
        "cancel": {"reason": ""},
        "history": {"after": 0},
        "follow": {"after": 0},
    }.get(call, {})
    with pytest.raises(InvalidRequest, match="must be 1 to 64 characters"):
        world.run(getattr(world.flows, call)("../docs", timeout=None, **options))


def test_a_cancel() -> None:
    """A POST with the reason, sent again if there is no response."""
    world = World(LOST, reply(200, {"id": "x", "status": "Running"}))
    operation = world.run(world.flows.cancel("x", reason="enough", timeout=60.0))
    assert operation.status == "Running"
    assert [(one.method, one.url, one.content) for one in world.sent] == [
        ("POST", f"{BASE}/status/x:cancel", b'{"reason":"enough"}')
    ] * 2


def test_a_retry() -> None:
    """A POST, sent again if there is no response; the answer is another operation."""
    follow_up = reply(202, {"id": "x-retry-1", "status": "NotStarted", "retryOf": "x"})
    world = World(LOST, follow_up)
    operation = world.run(world.flows.retry("x", timeout=60.0))
    assert (operation.id, operation.monitor.retry_of) == ("x-retry-1", "x")
    assert operation.url == f"{BASE}/status/x-retry-1"
    assert [(one.method, one.url, one.content) for one in world.sent] == [("POST", f"{BASE}/status/x:retry", b"{}")] * 2


@pytest.mark.parametrize("body", [{"id": "../docs", "status": "NotStarted"}, {"status": "NotStarted"}, b"<html>"])
def test_a_retry_without_a_follow_up(body: Any) -> None:
    """What is no status monitor is not the service's."""
    world = World(reply(202, body))
    with pytest.raises(UnexpectedAnswer):
        world.run(world.flows.retry("x", timeout=60.0))


def test_a_bulk_request() -> None:
    """A POST with the query and an id of the client's own, sent again with the same one."""
    world = World(LOST, reply(202, {"id": "all", "status": "NotStarted"}))
    operation = world.run(
        ListFlows(world.flows).bulk(
            "cancel", "filter=attempt%20gt%201", reason="full", operation_id="all", timeout=60.0
        )
    )
    assert (operation.id, operation.url) == ("all", f"{BASE}/status/all")
    assert [(one.method, one.url, one.content, one.headers["Operation-Id"]) for one in world.sent] == [
        ("POST", f"{BASE}/status:cancel?filter=attempt%20gt%201", b'{"reason":"full"}', "all")
    ] * 2


def test_a_dry_run() -> None:
    """Count and sample; what is none is refused."""
    world = World(reply(200, {"count": 2, "isWhole": True, "sample": [{"id": "a"}]}), reply(200, b"<html>"))
    preview = world.run(ListFlows(world.flows).preview("retry", "filter=x", timeout=60.0))
    assert (preview.count, preview.is_whole, [*map(bytes, preview.sample)]) == (2, True, [b'{"id":"a"}'])
    with pytest.raises(UnexpectedAnswer):
        world.run(ListFlows(world.flows).preview("retry", "filter=x", timeout=60.0))


def result(world: World, result_type: Any = Any) -> Any:
    return world.run(world.flows.result("x", result_type, timeout=None, on_change=None))


class Counted(msgspec.Struct):
    n: int


def test_results() -> None:
    """Plain JSON values, or the requested type."""
    assert result(World(DONE)) == {"n": 1}
    assert result(World(DONE), Counted) == Counted(1)
    assert result(World(DONE), msgspec.Raw) == msgspec.Raw(b'{"n":1}')
    assert result(World(reply(200, {"id": "x", "status": "Succeeded"})), None) is None


def test_a_result_of_another_type() -> None:
    """The error names the operation and the place in the result."""
    with pytest.raises(UnexpectedAnswer, match=r"operation x is not of the requested type: .* at `\$\[...\]`"):
        result(World(DONE), dict[str, str])


def test_a_result_that_is_no_text() -> None:
    """A result that is not UTF-8 raises UnexpectedAnswer."""
    with pytest.raises(UnexpectedAnswer):
        result(World(reply(200, b'{"id":"x","status":"Succeeded","result":"\xff\xfe"}')))


@pytest.mark.parametrize("call", ["status", "wait", "cancel"])
def test_an_answer_about_another_operation(call: str) -> None:
    """A response about another operation, as a wrong cache gives it, raises UnexpectedAnswer."""
    options: dict[str, dict[str, Any]] = {"wait": {"on_change": None}, "cancel": {"reason": ""}}
    world = World(DONE)
    with pytest.raises(UnexpectedAnswer, match="the response is about operation 'x': check the URL, and any cache"):
        world.run(getattr(world.flows, call)("y", timeout=None, **options.get(call, {})))


def test_a_failure() -> None:
    """The exception has the action's code and message."""
    failed = reply(200, {"id": "x", "status": "Failed", "error": {"code": 418, "message": "short", "target": "t"}})
    with pytest.raises(OperationFailed, match="operation x failed: 418: short") as caught:
        result(World(failed))
    error = caught.value
    assert (error.code, error.message, error.target, error.operation.id) == (418, "short", "t", "x")


def canceled(reason: str) -> bytes:
    event = {
        "specversion": "1.0",
        "id": "e",
        "source": "test",
        "type": "opstream.action.canceled.v1",
        "subject": "x",
        "time": "2026-11-24T10:00:00Z",
        "datacontenttype": "application/json",
        "position": 3,
        "previoushash": "",
        "data": {"reason": reason} if reason else {},
    }
    return msgspec.json.encode(event)


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (reply(200, {"value": [msgspec.Raw(canceled("enough"))]}), "enough"),
        (reply(200, {"value": [msgspec.Raw(canceled(""))]}), ""),
        (LOST, ""),
        (reply(502, HTML), ""),
        (refusal(404, "OperationNotFound"), ""),
        (reply(200, {"value": [1]}), ""),
    ],
)
def test_a_cancellation(history: Any, reason: str) -> None:
    """The reason is read from the history, with one try."""
    world = World(reply(200, {"id": "x", "status": "Canceled"}), history)
    with pytest.raises(OperationCanceled) as caught:
        result(world)
    assert caught.value.reason == reason
    assert str(caught.value) == f"operation x was canceled{f': {reason}' if reason else ''}"
    assert world.sent[1].url == f"{BASE}/status/x/events"
