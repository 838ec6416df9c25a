"""`@action`, and the `Action` that it makes. Imports no broker code, so that unit tests of actions stay light."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any, Final, Generic, ParamSpec, TypeVar

import msgspec

from opstream_runner.errors import ActionError, InvalidAction, RetryAfter, UnreadableInput
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec, Policy
from opstream_schemas.action_types.schema_nodes import Schema
from opstream_schemas.action_types.text_rules import find_text_rules
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind

from .action_options import Exclusive, Isolation, OnConflict, PriorityOption, as_seconds, validate_policy
from .context import ActionContext
from .result_check import ResultCheck
from .type_schema import SCHEMA_FORMAT, UnsupportedType, announced_schema
from .upcast import Upcast, check_upcast

P = ParamSpec("P")
R = TypeVar("R")

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Action(Generic[P, R]):
    """A handler with its name, schemas and policy. Calling it calls the handler, so a unit test needs nothing else."""

    def __init__(
        self,
        handler: Callable[P, R],
        spec: ActionSpec,
        input_type: Any,  # noqa: ANN401
        result_type: Any,  # noqa: ANN401
        upcast: Upcast | None = None,
    ) -> None:
        self.handler = handler
        self.upcast = upcast
        """Turns inputs of earlier versions into those of this one; None without."""
        self.spec = spec
        self.input_type = input_type
        self.result_type = result_type
        self.is_async = inspect.iscoroutinefunction(called_function(handler))
        """True if it is called in the event loop. What it returns from a thread may still be awaitable."""
        self.module = ""
        """Import path of the module that defines the action; `collect_actions` sets it."""
        self.decode = _input_decoder(input_type, spec.input_schema)
        """Decodes JSON into the handler's input type. It raises what the type's own code raises."""
        self.check_result: Callable[[bytes], None] = ResultCheck(result_type, spec.result_schema).check
        """Checks the JSON of a result (`ResultCheck.check`)."""
        self.__doc__ = handler.__doc__

    @property
    def kind(self) -> Kind:
        """The names of the resource and of the action."""
        return self.spec.kind

    @property
    def is_isolated(self) -> bool:
        """True if each attempt runs in a process of its own."""
        return self.spec.policy.isolation == "process"

    def read_input(self, document: bytes | msgspec.Raw) -> Any:  # noqa: ANN401 - the handler's own type
        """Decode JSON into the handler's input type.

        Raises:
            UnreadableInput: it is not of that type, or the type's own code (`__post_init__`, a converter) raises: the
                same input would be refused again. That exception is the cause if it is a mistake.
            ActionError: from the type's own code, as is `RetryAfter`.
            MemoryError: now, and perhaps not the next time.
        """
        try:
            return self.decode(document)
        except (ActionError, RetryAfter, MemoryError):
            raise
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableInput(str(error)) from None
        except Exception as error:
            kind = type.__dict__["__name__"].__get__(type(error))
            message = f"the code of the input's type raised {kind}; the runner's log has the details"
            raise UnreadableInput(message) from error

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<action {self.kind} v{self.spec.action_version}>"


def _input_decoder(input_type: Any, schema: Schema) -> Callable[[bytes | msgspec.Raw], Any]:  # noqa: ANN401
    decode = msgspec.json.Decoder(input_type).decode
    rules = find_text_rules(schema)
    if rules is None:
        return decode

    def checked(document: bytes | msgspec.Raw) -> Any:  # noqa: ANN401 - the handler's own type
        rules.check_document(document)
        return decode(document)

    return checked


def action(
    name: str,
    *,
    version: int = 1,
    lease: float = 30.0,
    max_attempts: int = 5,
    timeout: float = 0.0,
    backoff: float = 1.0,
    backoff_max: float = 60.0,
    deadline: float = DAY_SECONDS,
    retry_after: int = 1,
    retention: float = DAY_SECONDS,
    retention_failed: float = 0.0,
    retention_canceled: float = 0.0,
    cancel_grace: float = 30.0,
    clean_up: bool = False,
    isolation: Isolation = "none",
    max_concurrency: int = 0,
    exclusive: Exclusive = "",
    exclusive_group: str = "",
    on_conflict: OnConflict = "queue",
    rate: str = "",
    priority: PriorityOption = "",
    confidential: bool = False,
    upcast: Upcast | None = None,
) -> Callable[[Callable[P, R]], Action[P, R]]:
    """Offer a function `(request, ctx) -> result`, async or plain, as an action.

    The API validates requests against the type of `request` (a msgspec Struct, best with `forbid_unknown_fields=True`).
    The first line of the docstring is the action's summary. A plain function runs in a thread. Two attempts of one
    operation may overlap for a moment, so a handler must be safe to run twice at once.

    The exception that a handler raises decides what follows. `ActionError` fails the operation for good. After
    `RetryAfter` or any other exception another attempt follows, unless none is left or a client has canceled
    (docs/adr/0011).

    A canceled async handler gets `asyncio.CancelledError` at its next await; a plain one in a thread must read
    `ctx.cancel_requested`. In a process of its own, either is interrupted, and killed if it does not end
    (docs/adr/0009).

    Args:
        name: `resource:action`, each `[a-z0-9-]{1,40}`. opstream reserves some resources for its own paths
            (`opstream_schemas.names.RESERVED_RESOURCES`).
        version: raise it whenever the input's shape changes. Clients see the highest version that is announced.
        lease: seconds without a heartbeat (runner killed or frozen) after which another runner takes over.
        max_attempts: attempts before the operation fails; those that were lost with their runner count, too.
        timeout: seconds that one attempt may take; 0 for no limit. An attempt that takes longer has failed.
        backoff: seconds before the second attempt, doubled before each further one, shortened at random by up to half.
        backoff_max: the upper limit of `backoff`.
        deadline: seconds from the request until the operation fails as `DeadlineExceeded`, in whatever state it is.
        retry_after: whole seconds that clients should wait between polls.
        retention: seconds that the status stays readable after the end; at least a day.
        retention_failed: the same for operations that fail; at least a day, or 0 for the value of `retention`.
        retention_canceled: the same for operations that are canceled.
        cancel_grace: seconds that a handler has for its clean-up after it was canceled.
        clean_up: True if a cancel always reaches the handler, also one that waits, and attempts follow until its
            clean-up has ended (docs/steps.md).
        isolation: "process" runs each attempt in a process of its own.
        max_concurrency: attempts at once over all runners, 1 to 10,000; 0 for no limit but the runners' own slots.
        exclusive: "resource" lets at most one operation run for each resource id.
        exclusive_group: `[a-z0-9-]{1,40}`; exclusive actions of one group exclude each other, too.
        on_conflict: decides about a request while another operation has its resource: "queue" waits for the other,
            "reject" responds 409 `ResourceBusy`, "replace" cancels the other first.
        rate: how many attempts may start in a period over all runners, e.g. "100/m" (s, m, h or d); empty for no limit.
            After a quiet period that many start at once, and the others evenly spaced.
        priority: "high", "normal" or "low" gives the action priorities: requests choose one by the header
            `Operation-Priority`, and have this one otherwise. Not with `max_concurrency` or `rate`. Empty for none.
        confidential: True seals input, result, progress, errors, steps and signals of each operation by a key of its
            own before they are stored, and lets them be erased (docs/confidential.md). It needs `--kek-file`.
        upcast: `(input, version) -> input`, called with the decoded JSON of a request that was made for an earlier
            version; it returns what this version takes. None: such a request runs only if its input is one already.

    Raises:
        InvalidAction: the name, an option or the function's signature can't be used; the message says what to change.
    """
    given: object = name
    if not isinstance(given, str):
        what = "write the decorator with parentheses and a name" if callable(given) else "its name must be a text"
        raise InvalidAction(f"{what}, e.g. @action('book:upload'), not {_named(given)}")
    try:
        kind = Kind.parse_routable(name)
    except InvalidName as error:
        raise InvalidAction(str(error)) from error
    policy = Policy(
        lease=as_seconds(kind, "lease", lease),
        max_attempts=max_attempts,
        timeout=as_seconds(kind, "timeout", timeout),
        backoff=as_seconds(kind, "backoff", backoff),
        backoff_max=as_seconds(kind, "backoff_max", backoff_max),
        deadline=as_seconds(kind, "deadline", deadline),
        retry_after=retry_after,
        retention=as_seconds(kind, "retention", retention),
        retention_failed=as_seconds(kind, "retention_failed", retention_failed),
        retention_canceled=as_seconds(kind, "retention_canceled", retention_canceled),
        cancel_grace=as_seconds(kind, "cancel_grace", cancel_grace),
        clean_up=clean_up,
        isolation=isolation,
        max_concurrency=max_concurrency,
        exclusive=exclusive,
        exclusive_group=exclusive_group,
        on_conflict=on_conflict,
        rate=rate,
        priority=priority,
        confidential=confidential,
    )
    validate_policy(kind, version, policy)
    check_upcast(kind, version, upcast)

    def decorate(handler: Callable[P, R]) -> Action[P, R]:
        input_type, result_type = _handler_types(kind, handler)
        spec = ActionSpec(
            resource=kind.resource,
            action=kind.action,
            summary=(inspect.getdoc(called_function(handler)) or "").partition("\n")[0],
            action_version=version,
            input_schema=_schema(kind, input_type, is_input=True),
            result_schema=_schema(kind, result_type, is_input=False),
            policy=policy,
            schema_format=SCHEMA_FORMAT,
        )
        made = Action(handler, spec, input_type, result_type, upcast)
        _note_made(handler, made)
        return made

    return decorate


_made: Final[dict[str, list[Action[Any, Any]]]] = {}
"""The actions that functions of modules became, by the module's name: an overwritten one would be lost unnoticed."""


def _note_made(handler: Callable[..., Any], made: Action[Any, Any]) -> None:
    if "." not in getattr(handler, "__qualname__", "."):
        _made.setdefault(handler.__module__, []).append(made)


def collect_actions(modules: list[ModuleType]) -> list[Action[Any, Any]]:
    """Return the actions that modules define, ordered by kind, and set each action's `module`.

    Raises:
        InvalidAction: two different actions have the same kind or the same Python name, or a module defines none.
    """
    found: dict[Kind, Action[Any, Any]] = {}
    for module in modules:
        actions = [value for value in vars(module).values() if isinstance(value, Action)]
        if not actions:
            raise InvalidAction(f"module {module.__name__} defines no action: decorate a function with @action(...)")
        _refuse_lost_actions(module, actions)
        for one in actions:
            if (first := found.setdefault(one.kind, one)) is not one:
                places = f"{_defined(first)} and {_defined(one)}"
                raise InvalidAction(f"action {one.kind} is defined twice: {places}; rename one or leave out a module")
            one.module = one.module or module.__name__
    return [found[kind] for kind in sorted(found)]


def _defined(one: Action[Any, Any]) -> str:
    """Return the name of an action's function, with its file and line if it has one."""
    function = inspect.unwrap(called_function(one.handler))
    name = getattr(function, "__name__", "a handler")
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _named(value: object) -> str:
    return f"@action on {value.__name__}" if inspect.isfunction(value) else repr(value)


def _refuse_lost_actions(module: ModuleType, actions: list[Action[Any, Any]]) -> None:
    kinds = {one.kind for one in actions}  # a module that is loaded again makes its actions again
    for lost in _made.get(module.__name__, []):
        name = lost.handler.__name__
        if lost.kind not in kinds and name in vars(module):
            raise InvalidAction(
                f"action {lost.kind} of module {module.__name__} is lost, since {name!r} is defined again later: "
                "give one of them another Python name"
            )


def _handler_types(kind: Kind, handler: Callable[..., Any]) -> tuple[Any, Any]:
    name = getattr(handler, "__name__", "handler")
    wanted = (
        f"action {kind}: write the handler as "
        f"'def {name}(request: YourInput, ctx: ActionContext) -> YourResult', with all three types"
    )
    try:
        bound = handler.keywords if isinstance(handler, functools.partial) else {}
        parameters = {name: one for name, one in inspect.signature(handler).parameters.items() if name not in bound}
        called = called_function(handler)
        # An object that wraps a function, as `functools.cache` makes it, has the function's annotations.
        hints = typing.get_type_hints(handler if hasattr(handler, "__wrapped__") else called, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        # A type was imported under TYPE_CHECKING only, or the object is not a function.
        raise InvalidAction(f"{wanted}, known at run time: {error}") from error
    if problem := _signature_problem(list(parameters.values()), hints):
        raise InvalidAction(f"{wanted}: {problem}")
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise InvalidAction(
            f"action {kind}: a generator can't be a handler: report progress by ctx.progress(), and return a list"
        )
    return hints[next(iter(parameters))], hints["return"]


def _signature_problem(parameters: list[inspect.Parameter], hints: dict[str, Any]) -> str:
    """Return what is wrong with the parameters and types of a handler; empty if nothing is."""
    odd = next((one for one in parameters if one.kind not in _POSITIONAL), None)
    if odd is not None:
        kind = "can only be passed by its name" if odd.kind is odd.KEYWORD_ONLY else "takes any number of arguments"
        return f"its parameter {odd.name!r} {kind}, but request and ctx are passed by position"
    if len(parameters) != 2:
        names = ", ".join(repr(one.name) for one in parameters) or "none"
        return f"it takes {len(parameters)} parameter{'s' * (len(parameters) != 1)} ({names}), not 2"
    untyped = next((one.name for one in parameters if one.name not in hints), None)
    if untyped is not None:
        return f"its parameter {untyped!r} has no type"
    if (given := hints[parameters[1].name]) is not ActionContext:
        shown = getattr(given, "__name__", None) or str(given)
        return f"its second parameter {parameters[1].name!r} has the type {shown}, not ActionContext"
    return "" if "return" in hints else "its result has no type; '-> None' says that there is none"


def called_function(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a call of a handler calls: that of a partial, a static method or an object."""
    while isinstance(handler, functools.partial | staticmethod | classmethod):
        handler = handler.func if isinstance(handler, functools.partial) else handler.__func__
    if inspect.isroutine(handler) or isinstance(handler, type):
        return handler
    return MethodType(type(handler).__call__, handler) if callable(handler) else handler


def _schema(kind: Kind, model: Any, *, is_input: bool) -> dict[str, Any]:  # noqa: ANN401 - any type that msgspec knows
    try:
        return announced_schema(model, is_input=is_input)
    except UnsupportedType as error:
        raise InvalidAction(f"action {kind}: {error}") from error
