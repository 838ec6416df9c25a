"""Tokens of the client: where they are sent, when a new one is fetched, and that none is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opstream.client import InvalidRequest, OperationsClient, RequestRefused, TokenCommand, TokenUnavailable
from tests.support.client.flow_driver import BASE, World, refusal, reply

pytestmark = pytest.mark.unit

DONE = reply(200, {"id": "one", "status": "Succeeded"}, content_type="application/json")
REFUSED = refusal(401, "Unauthenticated")


def numbered() -> tuple[list[str], Callable[[], str]]:
    """A function that gives another token each time, and the tokens that it gave."""
    given: list[str] = []

    def fetch() -> str:
        given.append(f"token-{len(given) + 1}")
        return given[-1]

    return given, fetch


def test_a_token_is_sent_with_each_request() -> None:
    """Also with a further try."""
    world = World(refusal(503, "JournalUnavailable"), DONE, token="ops_a_b")
    world.run(world.flows.status("one", timeout=60))
    assert world.asked("Authorization") == ["Bearer ops_a_b"] * 2


def test_a_token_that_is_refused_is_fetched_again_once() -> None:
    """Then the refusal is the answer; the next call begins with the newer token."""
    given, fetch = numbered()
    world = World(DONE, REFUSED, DONE, REFUSED, REFUSED, token=fetch)
    for _ in range(2):
        world.run(world.flows.status("one", timeout=60))
    with pytest.raises(RequestRefused):
        world.run(world.flows.status("one", timeout=60))
    sent = [f"Bearer token-{number}" for number in (1, 1, 2, 2, 3)]
    assert world.asked("Authorization") == sent
    assert given == ["token-1", "token-2", "token-3"]
    assert world.sleeps == []


def test_a_fixed_token_is_not_sent_again() -> None:
    """It would be refused again."""
    world = World(REFUSED, token="ops_a_b")
    with pytest.raises(RequestRefused):
        world.run(world.flows.status("one", timeout=60))
    assert len(world.sent) == 1


def test_a_token_goes_to_no_other_origin() -> None:
    """Whatever `Operation-Location` a response names."""
    away = "http://evil.test/ops/status/one"
    accepted = reply(202, {"id": "one", "status": "NotStarted"}, operation_location=away, operation_id="one")
    world = World(accepted, DONE, token="ops_a_b")
    operation = world.run(world.flows.submit("book/42:upload-start", {}, operation_id="one", headers=None, timeout=60))
    world.run(world.flows.wait(operation, timeout=60, on_change=None))
    assert all(send.url.startswith(f"{BASE}/") for send in world.sent)


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nX-Injected: 1", "ops_ä"])
def test_what_is_no_token_is_not_sent_and_not_shown(token: str) -> None:
    """A line break in it could add a header."""
    with pytest.raises(InvalidRequest) as raised:
        OperationsClient("http://127.0.0.1:1", token=token)
    assert "Injected" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "headers"), [("http://ada:pw@127.0.0.1:1", None), ("http://127.0.0.1:1", {"authorization": "Basic eA=="})]
)
def test_two_credentials_are_refused(url: str, headers: dict[str, str] | None) -> None:
    """Which of them were sent would depend on the code."""
    with pytest.raises(InvalidRequest, match="leave one of them out"):
        OperationsClient(url, headers=headers, token="ops_a_b")


def test_a_command_prints_a_token(tmp_path: Path) -> None:
    """Without a shell, and without the line break at its end."""
    script = tmp_path / "give token.py"
    script.write_text("print('ops_a_$HOME')", encoding="utf-8")
    assert TokenCommand(f"{sys.executable} '{script}'")() == "ops_a_$HOME"


@pytest.mark.parametrize(
    ("code", "problem"), [("print('ops_a_secret'); raise SystemExit(3)", "exit status 3"), (None, "can't be run")]
)
def test_a_command_that_fails_says_so_without_its_output(tmp_path: Path, code: str | None, problem: str) -> None:
    """The output may be a token nevertheless."""
    script = tmp_path / "give.py"
    script.write_text(code or "", encoding="utf-8")
    command = TokenCommand(f"{sys.executable} {script}" if code else str(tmp_path / "missing"))
    with pytest.raises(TokenUnavailable, match=problem) as raised:
        command()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("command", ["", "  ", "pass 'show"])
def test_what_is_no_command_is_refused(command: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequest, match="token command"):
        TokenCommand(command)
