"""Actions that a module defines and then loses, because a later function has the same Python name."""

from __future__ import annotations

from types import ModuleType

import pytest

from opstream_runner import InvalidAction
from opstream_runner.authoring.action import collect_actions

pytestmark = pytest.mark.unit

HEAD = "from opstream_runner import ActionContext, action\n"


def define(kind: str, name: str = "act") -> str:
    return f'\n@action("{kind}")\ndef {name}(request: None, ctx: ActionContext) -> None: ...\n'


def loaded(source: str, module: ModuleType | None = None) -> ModuleType:
    """Run a module's source, as an import does."""
    module = module or ModuleType("shop_of_lost_actions_" + str(abs(hash(source))))
    exec(HEAD + source, vars(module))
    return module


def kinds(module: ModuleType) -> list[str]:
    return [str(one.kind) for one in collect_actions([module])]


@pytest.mark.parametrize(
    "later", [define("book:print"), "\ndef act() -> None: ...\n", "\nact = None\n"], ids=["action", "function", "value"]
)
def test_a_later_function_of_the_same_name(later: str) -> None:
    """The action that is lost is named, and what to do."""
    module = loaded(define("book:upload") + later + define("book:other", "other"))
    with pytest.raises(InvalidAction, match=r"action book:upload .* is lost, since 'act' is defined again later: give"):
        kinds(module)


def test_an_action_that_is_kept_under_another_name() -> None:
    """It is not lost."""
    assert kinds(loaded(define("book:upload") + "\nfirst = act\n" + define("book:print"))) == [
        "book:print",
        "book:upload",
    ]


def test_an_action_that_is_removed_on_purpose() -> None:
    """`del` says that it is meant."""
    assert kinds(loaded(define("book:upload") + "\ndel act\n" + define("book:print", "other"))) == ["book:print"]


def test_a_module_that_is_loaded_again() -> None:
    """A reload makes the same actions again, and loses none."""
    module = loaded(define("book:upload"))
    assert kinds(module) == ["book:upload"]
    assert kinds(loaded(define("book:upload"), module)) == ["book:upload"]
