"""What authors write: `@action` and its errors, and `collect_actions`."""

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from opstream_runner import Action, ActionContext, InvalidAction, action
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec, Policy
from opstream_schemas.names import RESERVED_RESOURCES, Kind

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = pytest.mark.unit


class Book(msgspec.Struct):
    """The input of this module's actions."""

    title: str
    pages: int = 0


@action(
    "book:print",
    version=3,
    lease=10,
    max_attempts=2,
    timeout=600,
    backoff=2,
    backoff_max=30,
    deadline=3600,
    retry_after=7,
    retention=172_800,
    retention_failed=90 * DAY_SECONDS,
    retention_canceled=DAY_SECONDS,
    cancel_grace=5,
    isolation="process",
    max_concurrency=3,
    exclusive="resource",
    exclusive_group="press",
    on_conflict="reject",
    rate="100/m",
)
async def print_book(request: Book, ctx: ActionContext) -> list[str]:
    """Print a book.

    On paper.
    """
    await ctx.progress(50, "half")
    return [request.title, ctx.resource_id]


@action("book:count")
def count_pages(request: Book, ctx: ActionContext) -> int:
    return request.pages * ctx.attempt


def offered(handler: Callable[..., Any], name: str = "book:print", **options: Any) -> Action[..., Any]:
    """The action made from a handler."""
    return action(name, **options)(handler)


async def test_an_action_is_still_its_handler() -> None:
    """A unit test of an action calls it, with a context of its own."""
    expected = ["Emma", "42"]

    assert expected == await print_book(Book("Emma"), ActionContext(operation_id="op-1", resource_id="42"))


def test_a_plain_function_is_an_action_too() -> None:
    """Without `async` it is called the same way, and `is_async` is False."""
    assert Book("Emma", 2).pages * 3 == count_pages(Book("Emma", 2), ActionContext(operation_id="op-1", attempt=3))
    assert print_book.is_async
    assert not count_pages.is_async


def test_an_action_says_what_it_is() -> None:
    """The runner announces its kind, its types and all its options."""
    policy = Policy(
        lease=10.0,
        max_attempts=2,
        timeout=600.0,
        backoff=2.0,
        backoff_max=30.0,
        deadline=3600.0,
        retry_after=7,
        retention=172_800.0,
        retention_failed=7_776_000.0,
        retention_canceled=86_400.0,
        cancel_grace=5.0,
        isolation="process",
        max_concurrency=3,
        exclusive="resource",
        exclusive_group="press",
        on_conflict="reject",
        rate="100/m",
    )

    assert Kind("book", "print") == print_book.kind
    assert (Book, list[str]) == (print_book.input_type, print_book.result_type)
    assert policy == print_book.spec.policy
    assert print_book.spec.action_version == 3
    assert repr(print_book) == "<action book:print v3>"


def test_the_defaults_are_those_of_the_design() -> None:
    """A deadline and a retention of a day, five attempts, delays from a second to a minute, a lease and a grace of 30
    seconds, version 1, no process of its own, no limits."""
    spec = count_pages.spec

    expected = Policy(
        lease=30.0,
        max_attempts=5,
        timeout=0.0,
        backoff=1.0,
        backoff_max=60.0,
        retry_after=1,
        deadline=86_400.0,
        retention=86_400.0,
        retention_failed=0.0,
        retention_canceled=0.0,
        cancel_grace=30.0,
        isolation="none",
        max_concurrency=0,
        exclusive="",
        exclusive_group="",
        on_conflict="queue",
        rate="",
    )
    assert expected == spec.policy == Policy()
    assert (print_book.is_isolated, count_pages.is_isolated) == (True, False)
    assert spec.action_version == 1


def test_the_summary_is_the_first_line_of_the_docstring() -> None:
    """The rest is for readers of the code; without a docstring there is no summary."""
    assert print_book.spec.summary == "Print a book."
    assert print_book.__doc__ == print_book.handler.__doc__
    assert not count_pages.spec.summary


def test_an_announced_action_is_read_back() -> None:
    """An action that is read from the catalog equals the one that was written, numbers and types included."""
    document = msgspec.json.encode(print_book.spec)

    assert print_book.spec == msgspec.json.decode(document, type=ActionSpec)
    assert document == msgspec.json.encode(msgspec.json.decode(document, type=ActionSpec))
    assert {"actionVersion", "inputSchema", "resultSchema"} < msgspec.json.decode(document).keys()


def test_an_entry_of_an_older_runner() -> None:
    """An action from an older runner has the defaults of the options that it did not know."""
    document = msgspec.to_builtins(count_pages.spec)
    del document["policy"]["cancelGrace"], document["policy"]["isolation"]

    assert count_pages.spec == msgspec.convert(document, ActionSpec)


@pytest.mark.parametrize(
    "name",
    ["", "book", "book:", ":print", "Book:print", "book:print!", "a:b:c", "book.x:print", "x" * 41 + ":a", "a:b\n"],
)
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    """A name that could not be routed is refused by the decorator."""
    with pytest.raises(InvalidAction):
        action(name)


@pytest.mark.parametrize("resource", sorted(RESERVED_RESOURCES))
def test_a_reserved_resource_is_refused(resource: str) -> None:
    """No action takes a path that opstream keeps; the error names all of these and what to do."""
    with pytest.raises(InvalidAction, match="reserved") as error:
        action(f"{resource}:print")

    assert all(word in str(error.value) for word in (*RESERVED_RESOURCES, ".well-known", "choose another name"))


@pytest.mark.parametrize("name", [".well-known:print", ".well-known/agents:print", "/.well-known/agents:print"])
def test_nothing_below_well_known_is_offered(name: str) -> None:
    """The grammar of names keeps every action out of `/.well-known/`."""
    with pytest.raises(InvalidAction, match="a-z, 0-9 and '-'"):
        action(name)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("version", 0),
        ("version", -1),
        ("version", 2**53),
        ("version", 1.5),
        ("version", True),
        ("lease", 0),
        ("lease", 0.999),
        ("lease", -30),
        ("lease", 1e12),
        ("lease", math.nan),
        ("lease", math.inf),
        ("lease", 10**400),
        ("lease", "5"),
        ("lease", None),
        ("lease", True),
        ("timeout", "1"),
        ("deadline", None),
        ("max_attempts", 0),
        ("max_attempts", -1),
        ("max_attempts", 10**30),
        ("max_attempts", 2.5),
        ("max_attempts", math.inf),
        ("retry_after", 0),
        ("retry_after", 0.5),
        ("retry_after", 2.0),
        ("retry_after", 3601),
        ("retry_after", True),
        ("retention", DAY_SECONDS - 1),
        ("retention", -1),
        ("retention", 3651 * DAY_SECONDS),
        ("retention", math.nan),
        ("retention", math.inf),
        ("retention_failed", DAY_SECONDS - 1),
        ("retention_failed", -DAY_SECONDS),
        ("retention_failed", 3651 * DAY_SECONDS),
        ("retention_failed", math.nan),
        ("retention_failed", math.inf),
        ("retention_failed", "90d"),
        ("retention_canceled", 1),
        ("retention_canceled", None),
        ("cancel_grace", 0),
        ("cancel_grace", -1),
        ("cancel_grace", 1e300),
        ("cancel_grace", math.nan),
        ("cancel_grace", math.inf),
        ("isolation", ""),
        ("isolation", "thread"),
        ("isolation", True),
        ("timeout", -1),
        ("timeout", 1e300),
        ("timeout", math.nan),
        ("timeout", math.inf),
        ("backoff", 0),
        ("backoff", -1),
        ("backoff", math.nan),
        ("backoff_max", 0.5),
        ("backoff_max", 1e300),
        ("backoff_max", math.nan),
        ("backoff_max", math.inf),
        ("deadline", 0.5),
        ("deadline", -1),
        ("deadline", 1e12),
        ("deadline", math.nan),
        ("deadline", math.inf),
        ("max_concurrency", -1),
        ("max_concurrency", 10_001),
        ("max_concurrency", True),
        ("max_concurrency", 2.0),
        ("exclusive", "book"),
        ("exclusive", None),
        ("exclusive_group", "press"),
        ("exclusive_group", "Press!"),
        ("exclusive_group", "x" * 41),
        ("on_conflict", "fail"),
        ("on_conflict", "reject"),
        ("rate", "100"),
        ("rate", "0/m"),
        ("rate", "-1/m"),
        ("rate", "1.5/s"),
        ("rate", "100/w"),
        ("rate", "100/m "),
        ("rate", 100),
    ],
)
def test_an_option_out_of_range_is_refused(option: str, value: Any) -> None:
    """Each option's limits hold, and a value without JSON, or of another type in JSON, is refused."""
    with pytest.raises(InvalidAction, match=f"action book:print: {option} must"):
        action("book:print", **{option: value})


@pytest.mark.parametrize(
    "options",
    [
        {"lease": 1},
        {"lease": 1e6},
        {"max_attempts": 1},
        {"retry_after": 1},
        {"retry_after": 3600},
        {"retention": DAY_SECONDS},
        {"retention_failed": DAY_SECONDS, "retention_canceled": 3650 * DAY_SECONDS},
        {"cancel_grace": 0.01},
        {"isolation": "none"},
        {"isolation": "process"},
        {"timeout": 0},
        {"timeout": 0.01},
        {"backoff": 0.01, "backoff_max": 0.01},
        {"deadline": 1},
        {"deadline": 3650 * DAY_SECONDS},
        {"max_concurrency": 1},
        {"max_concurrency": 10_000},
        {"exclusive": "resource"},
        {"exclusive": "resource", "exclusive_group": "x" * 40, "on_conflict": "replace"},
        {"rate": "1/d"},
    ],
)
def test_an_option_at_its_limit_is_taken(options: dict[str, Any]) -> None:
    """The limits themselves are allowed."""
    policy = offered(count_pages.handler, **options).spec.policy

    assert options == {name: getattr(policy, name) for name in options}


def no_context(request: Book) -> int: ...
def too_many(request: Book, ctx: ActionContext, more: int) -> int: ...
def swapped(ctx: ActionContext, request: Book) -> int: ...
def untyped_request(request, ctx: ActionContext) -> int: ...
def untyped_context(request: Book, ctx) -> int: ...
def untyped_result(request: Book, ctx: ActionContext): ...
def by_keyword(request: Book, *, ctx: ActionContext) -> int: ...
def by_keywords(request: Book, **ctx: ActionContext) -> int: ...
def by_position(request: Book, *ctx: ActionContext) -> int: ...
def checked_only(request: "Decimal", ctx: ActionContext) -> int: ...
def misspelled(request: "Bok", ctx: ActionContext) -> int: ...  # type: ignore[name-defined]  # noqa: F821


class Handlers:
    def method(self, request: Book, ctx: ActionContext) -> int:
        return request.pages


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (no_context, "it takes 1 parameter ('request'), not 2"),
        (too_many, "it takes 3 parameters ('request', 'ctx', 'more'), not 2"),
        (swapped, "its second parameter 'request' has the type Book, not ActionContext"),
        (untyped_request, "its parameter 'request' has no type"),
        (untyped_context, "its parameter 'ctx' has no type"),
        (untyped_result, "its result has no type; '-> None' says that there is none"),
        (by_keyword, "its parameter 'ctx' can only be passed by its name"),
        (by_keywords, "its parameter 'ctx' takes any number of arguments"),
        (by_position, "its parameter 'ctx' takes any number of arguments"),
        (checked_only, "name 'Decimal' is not defined"),
        (misspelled, "name 'Bok' is not defined"),
        (Handlers, "it takes 0 parameters (none), not 2"),
        (Handlers.method, "it takes 3 parameters ('self', 'request', 'ctx'), not 2"),
        (functools.partial(too_many, more=1, ctx=1), "it takes 1 parameter ('request'), not 2"),
        (int, ""),
        (count_pages, ""),
        (lambda request, ctx: 1, "its parameter 'request' has no type"),
    ],
)
def test_a_signature_that_can_not_be_called_is_refused(handler: Callable[..., Any], problem: str) -> None:
    """A handler takes a request and a context by position, with types known at run time; otherwise the error shows
    how, and says what is wrong with this one."""
    with pytest.raises(
        InvalidAction, match=r"action book:print: write the handler as 'def .*\(request: YourInput"
    ) as caught:
        offered(handler)
    assert problem in str(caught.value).partition("with all three types")[2]


def test_a_bound_method_is_a_handler() -> None:
    """`self` is no parameter of a bound method."""
    book = Book("Emma", 3)

    assert book.pages == offered(Handlers().method)(book, ActionContext(operation_id="op-1"))


def module(name: str, **members: object) -> ModuleType:
    """A module with these members."""
    made = ModuleType(name)
    vars(made).update(members)
    return made


def test_actions_are_collected_from_modules_in_order() -> None:
    """Whatever their order and their names in the modules, actions come sorted by kind."""
    other = offered(count_pages.handler, "author:count")
    modules = [module("a", z=print_book, y=count_pages, x=1), module("b", w=other)]

    assert [other, count_pages, print_book] == collect_actions(modules)


def test_an_action_is_collected_once() -> None:
    """A module named twice, a second name for an action, or an import of it elsewhere makes no second action."""
    first = module("a", one=print_book, two=print_book)
    second = module("b", three=print_book)

    assert [print_book] == collect_actions([first, first, second])


def test_a_collected_action_knows_its_module() -> None:
    """Another process finds it there; of several modules that contain it, the first that was named counts."""
    one = offered(count_pages.handler)
    assert not one.module

    collect_actions([module("a", x=one), module("b", y=one)])

    assert one.module == "a"


@pytest.mark.parametrize("apart", [False, True])
def test_two_actions_of_one_kind_are_refused(apart: bool) -> None:
    """It would be unclear which of them runs."""
    again = offered(count_pages.handler, "book:print")
    modules = [module("a", x=print_book), module("b", y=again)] if apart else [module("a", x=print_book, y=again)]

    with pytest.raises(InvalidAction, match="book:print is defined twice") as refused:
        collect_actions(modules)
    for one in (print_book.handler, count_pages.handler):
        assert f"{one.__name__} ({__file__}:{one.__code__.co_firstlineno})" in str(refused.value)


def test_a_module_without_actions_is_refused() -> None:
    """A misspelled module must not look like a runner without actions."""
    with pytest.raises(InvalidAction, match="module b defines no action"):
        collect_actions([module("a", x=print_book), module("b", Action=Action, y=count_pages.handler)])


def test_no_modules_hold_no_actions() -> None:
    """Nothing is collected from nothing."""
    assert not collect_actions([])


async def coroutine(request: Book, ctx: ActionContext) -> list[str]:
    """Print a book."""
    return ["x"]


def plain(request: Book, ctx: ActionContext) -> list[str]:
    """Print a book."""
    return ["x"]


def traced(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler as most decorators do."""

    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return wrapper


async def of_shelf(shelf: str, request: Book, ctx: ActionContext, *, copies: int) -> list[str]:
    """Print a book."""
    return [shelf] * copies


def with_copies(request: Book, ctx: ActionContext, copies: int) -> list[str]:
    """Print a book."""
    return ["x"] * copies


class Printer:
    """An object that is called."""

    paper: str

    async def __call__(self, request: Book, ctx: ActionContext) -> list[str]:
        """Print a book."""
        return ["x"]

    @staticmethod
    async def static(request: Book, ctx: ActionContext) -> list[str]:
        """Print a book."""
        return ["x"]


@pytest.mark.parametrize(
    ("handler", "is_async"),
    [
        (coroutine, True),
        (plain, False),
        (staticmethod(coroutine), True),
        (vars(Printer)["static"], True),
        (Printer.static, True),
        (Printer(), True),
        (Printer().__call__, True),
        (functools.partial(of_shelf, "a", copies=2), True),
        (functools.partial(functools.partial(of_shelf, "a"), copies=2), True),
        (functools.partial(plain), False),
        (functools.partial(with_copies, copies=1), False),
        (traced(coroutine), False),
        (functools.cache(plain), False),
    ],
)
def test_whatever_can_be_called_is_a_handler(handler: Any, is_async: bool) -> None:
    """What runs in the event loop is what an `async def` would do, whatever holds it."""
    one = action("book:print")(handler)
    assert (one.is_async, one.spec.summary) == (is_async, "Print a book.")
    assert (one.input_type, one.result_type) == (Book, list[str])


def test_a_generator_is_refused() -> None:
    """It would never run."""

    def yields(request: Book, ctx: ActionContext) -> Any:
        yield ["x"]

    async def yields_async(request: Book, ctx: ActionContext) -> Any:
        yield ["x"]

    for handler in (yields, yields_async, functools.partial(yields), staticmethod(yields_async)):
        with pytest.raises(InvalidAction, match=r"a generator can't be a handler: report progress by ctx.progress"):
            action("book:print")(handler)
