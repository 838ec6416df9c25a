"""Actions that would harm the process that runs them, and bystanders. Each does what its input says.

`hostile:async` and `hostile:plain` run in the runner, `hostile:own-async` and `hostile:own-plain` in processes of their
own. `hostile:wait` ends when its file exists. Use them with `--actions tests.support.runner.hostile_actions`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from opstream import ActionContext, action

FOREVER: Final = 600
LEASE: Final = 1.0


class Deed(msgspec.Struct):
    """What to do."""

    how: str = ""
    file: str = ""


async def exits() -> None:
    """End as argparse ends a program."""
    await asyncio.sleep(0.01)
    sys.exit(3)


async def gather(deed: Deed) -> None:
    """Await a task that exits."""
    await asyncio.gather(exits(), asyncio.sleep(0.02))


async def group(deed: Deed) -> None:
    """Await a group with a task that is interrupted."""

    async def interrupted() -> None:
        await asyncio.sleep(0.01)
        raise KeyboardInterrupt

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(interrupted())
        tasks.create_task(asyncio.sleep(FOREVER))


async def catch(deed: Deed) -> str:
    """Survive the exit of a task."""
    try:
        await asyncio.create_task(exits())
    except SystemExit as error:
        await asyncio.sleep(0.01)
        return f"caught {error.code}"
    return "no exit"


async def callback(deed: Deed) -> str:
    """Exit in a callback."""
    asyncio.get_running_loop().call_soon(sys.exit, 0)
    await asyncio.sleep(0.05)
    return "returned"


async def stop(deed: Deed) -> str:
    """Stop the loop."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)
    return "returned"


async def cancel_all(deed: Deed) -> str:
    """Cancel every task of the loop, as the end of a program does."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    return "returned"


async def block(deed: Deed) -> str:
    """Block the loop until the file exists."""
    while not Path(deed.file).exists():  # noqa: ASYNC240
        time.sleep(0.05)  # noqa: ASYNC251
    return "returned"


async def pool_in_loop(deed: Deed) -> int:
    """Use a pool of processes."""
    return pool(deed)


def pool(deed: Deed) -> int:
    """Use a pool of processes; its end terminates them."""
    with multiprocessing.get_context("fork").Pool(2) as workers:
        return sum(workers.map(abs, range(10)))


def terminate(deed: Deed) -> str:
    """Terminate a process that was forked."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(FOREVER,))
    process.start()
    process.terminate()
    process.join(5)
    exit_code = process.exitcode
    process.kill()
    return f"ended with {exit_code}"


def come_back(deed: Deed) -> str:
    """Fork, and return from the handler in both processes."""
    if os.fork() == 0:
        return "the child"
    return "the parent"


async def come_back_later(deed: Deed) -> str:
    """Fork, and go on in both processes."""
    pid = os.fork()
    await asyncio.sleep(0.01)
    if pid == 0:
        Path(deed.file).write_text("the child went on")  # noqa: ASYNC240
        return "the child"
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return f"the child ended with {os.waitstatus_to_exitcode(status)}"


def leave_behind(deed: Deed) -> str:
    """Leave a forked process running in a session of its own."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(FOREVER)
        os._exit(0)
    Path(deed.file).write_text(str(pid))
    return "forked"


class RefusingHandler(logging.Handler):
    """A handler whose target is gone."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise."""
        raise OSError("the collector of logs is gone")


class RefusingFilter(logging.Filter):
    """A filter with an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Raise."""
        raise LookupError("no tenant")


_tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")


def refuse(*_: Any, **__: Any) -> NoReturn:
    """Raise."""
    raise RuntimeError("not with me")


async def old_factory(deed: Deed) -> str:
    """Set a task factory as it was before contexts."""
    asyncio.get_running_loop().set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))  # type: ignore[arg-type, return-value]
    return "returned"


async def bad_factory(deed: Deed) -> str:
    """Set a task factory that raises."""
    asyncio.get_running_loop().set_task_factory(refuse)
    return "returned"


def trace(deed: Deed) -> str:
    """Trace all threads by a function that raises."""
    threading.settrace(refuse)
    return "returned"


def log_factory(deed: Deed) -> str:
    """Put the tenant into each record, as only this thread can."""
    _tenant.set("acme")
    make = logging.getLogRecordFactory()

    def factory(*args: Any, **values: Any) -> logging.LogRecord:
        record = make(*args, **values)
        record.tenant = _tenant.get()
        return record

    logging.setLogRecordFactory(factory)
    return "returned"


def log_handler(deed: Deed) -> str:
    """Give our logger a handler that raises."""
    logging.getLogger("opstream_runner").addHandler(RefusingHandler())
    return "returned"


def log_filter(deed: Deed) -> str:
    """Give all our loggers a filter that raises."""
    for name in list(logging.getLogger().manager.loggerDict):
        logging.getLogger(name).addFilter(RefusingFilter())
    for handler in logging.getLogger().handlers:
        handler.addFilter(RefusingFilter())
    return "returned"


def close_stderr(deed: Deed) -> str:
    """Close standard error."""
    sys.stderr.close()
    return "returned"


ASYNC: Final[dict[str, Callable[[Deed], Awaitable[Any]]]] = {
    one.__name__: one
    for one in (
        gather,
        group,
        catch,
        callback,
        stop,
        cancel_all,
        block,
        pool_in_loop,
        come_back_later,
        old_factory,
        bad_factory,
    )
}
PLAIN: Final[dict[str, Callable[[Deed], Any]]] = {
    one.__name__: one
    for one in (pool, terminate, come_back, leave_behind, trace, log_factory, log_handler, log_filter, close_stderr)
}


@action("hostile:async", max_attempts=1, lease=LEASE)
async def in_loop(request: Deed, ctx: ActionContext) -> Any:
    """Do it in the loop of the handlers."""
    print(f"{ctx.operation_id} begins attempt {ctx.attempt}", flush=True)
    return await ASYNC[request.how](request)


@action("hostile:plain", max_attempts=1)
def in_thread(request: Deed, ctx: ActionContext) -> Any:
    """Do it in a thread."""
    return PLAIN[request.how](request)


@action("hostile:own-async", max_attempts=1, isolation="process")
async def in_own_loop(request: Deed, ctx: ActionContext) -> Any:
    """Do it in the loop of a process."""
    return await ASYNC[request.how](request)


@action("hostile:own-plain", max_attempts=1, isolation="process")
def in_own_thread(request: Deed, ctx: ActionContext) -> Any:
    """Do it in the main thread of a process."""
    return PLAIN[request.how](request)


@action("hostile:wait", lease=LEASE)
async def wait(request: Deed, ctx: ActionContext) -> int:
    """Wait for the file; return the number of the attempt."""
    print(f"{ctx.operation_id} begins attempt {ctx.attempt}", flush=True)
    while not Path(request.file).exists():  # noqa: ASYNC110, ASYNC240 - any process may make it
        await asyncio.sleep(0.02)
    return ctx.attempt


@action("hostile:wait-plain", lease=LEASE)
def wait_plain(request: Deed, ctx: ActionContext) -> int:
    """Do the same in a thread."""
    print(f"{ctx.operation_id} begins attempt {ctx.attempt}", flush=True)
    while not Path(request.file).exists():
        ctx.check_canceled()
        time.sleep(0.02)
    return ctx.attempt
