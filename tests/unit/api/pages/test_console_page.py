"""The console's files, without a server: what is served, under which policy, and that nothing is read before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from opstream_api.errors import ApiError
from opstream_api.http.requests import Headers, parse_headers
from opstream_api.pages import console_page
from opstream_api.pages.console_page import CONSOLE_PATH, CONTENT_SECURITY_POLICY, ConsolePage
from opstream_schemas.errors import ErrorCode

pytestmark = pytest.mark.unit

FOLDER: Final = Path(console_page.__file__).with_name("console")
FILES: Final = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.*"))
NAMESPACE: Final = "http://www.w3.org/2000/svg"
"""The one URL in the files: a name, which no browser loads."""


def sent(**headers: str) -> Headers:
    """The headers of a request."""
    return parse_headers([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


def text_of(name: str) -> str:
    """A file as it is sent."""
    path = CONSOLE_PATH if name == "index.html" else f"{CONSOLE_PATH}/{name}"
    body: bytes = ConsolePage().respond(path, sent()).body
    return body.decode()


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    """It names no host and no exception, and each answer has it."""
    rules = dict(rule.strip().split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert {word for rule in rules.values() for word in rule.split()} == {"'self'", "'none'", "'script'"}
    answer = ConsolePage().respond(CONSOLE_PATH, sent())
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["cache-control"] == "public, no-cache"


@pytest.mark.parametrize("name", FILES)
def test_a_file_keeps_to_the_policy(name: str) -> None:
    """It has no URL of another host, no inline script or style, and no way to make markup of a text."""
    text = text_of(name)
    assert re.findall(r"https?://[^\s\"'`]+", text.replace(NAMESPACE, "")) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text) == []
    if name.endswith(".html"):
        assert re.findall(r"<script[^>]*>[^<]+</script>|<style|\sstyle=|\son\w+=", text) == []


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_a_module_imports_what_is_served(name: str) -> None:
    """Each import is relative, and leads to a file that exports what is asked for; each file is imported or a start."""
    text = text_of(name)
    for names, target in re.findall(r"^import \{([^}]*)\} from \"([^\"]+)\";$", text, re.MULTILINE):
        assert target.startswith((".", "..")), target
        path = (FOLDER / name).parent.joinpath(target).resolve().relative_to(FOLDER).as_posix()
        for wanted in filter(None, (part.strip().split(" as ")[0] for part in names.split(","))):
            assert re.search(
                rf"^export (?:async )?(?:function\*? |class |const |let ){wanted}\b", text_of(path), re.MULTILINE
            )
    assert text.count("\nimport ") + text.startswith("import ") == len(re.findall(r"^import \{", text, re.MULTILINE))


def test_every_file_is_used() -> None:
    """By the page, by another module, or by a stylesheet's place in the page."""
    html = text_of("index.html")
    used = set(re.findall(r'(?:href|src)="console/([^"]+)"', html))
    for name in [name for name in FILES if name.endswith(".js")]:
        for target in re.findall(r"from \"([^\"]+)\";", text_of(name)):
            used.add((FOLDER / name).parent.joinpath(target).resolve().relative_to(FOLDER).as_posix())
    assert used == set(FILES) - {"index.html"}


def test_nothing_is_read_before_a_browser_asks(tmp_path: Path) -> None:
    """A process whose console nobody opens keeps none of it in memory; what was sent is kept, and sent again."""
    for name in ("index.html", "main.js"):
        (tmp_path / name).write_text("first", encoding="utf-8")
    page = ConsolePage(tmp_path)
    (tmp_path / "main.js").write_text("second", encoding="utf-8")
    assert page.respond("console/main.js", sent()).body == b"second"
    (tmp_path / "main.js").write_text("third", encoding="utf-8")
    assert page.respond("console/main.js", sent()).body == b"second"


def test_a_broken_installation_is_said_at_the_start(tmp_path: Path) -> None:
    """With the file that is missing, and what to do."""
    with pytest.raises(FileNotFoundError, match=r"index\.html, which is not installed: install opstream again"):
        ConsolePage(tmp_path)


@pytest.mark.parametrize("path", ["console/nothing.js", "console/../console_page.py", "console/console", "main.js", ""])
def test_other_files_are_not_found(path: str) -> None:
    """Files that do not belong to the console are not served, even if they are next to it on disk."""
    with pytest.raises(ApiError) as caught:
        ConsolePage().respond(path, sent())
    assert caught.value.code is ErrorCode.NOT_FOUND
