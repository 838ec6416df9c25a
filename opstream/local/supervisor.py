"""The supervisor of `opstream up`: the whole system on one machine, as child processes.

The children are the commands of production (`opstream broker`, `hub`, …). They start in the order broker, provision,
all services, and stop in the order api, runner, projector, webhooks, broker, so that each has those that it needs: the
hub, which is three of them, stops in two steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from opstream.terminal.console import CommandError
from opstream.terminal.logs import JSON, NAME_END

from .action_check import CHECK_COMMAND, ActionCheck
from .broker_disk import BrokerDisk
from .json_output import JsonOutput, end_error_text
from .ports import is_broker, is_ready, is_refused, wait_until
from .processes import (
    CLOSE_SIGNAL,
    ChildProcess,
    LineOutput,
    PrefixedOutput,
    end_error,
    report_failure,
    stop_in_order,
)
from .system_commands import BROKER_CONFIG, HUB, JOINT_SERVICES, LOOPBACK, Settings, SystemCommands

_START_TIMEOUT: Final = 60.0
_KILL_AFTER: Final = {
    BROKER_CONFIG: 1.0,
    "provision": 1.0,
    "api": 3.0,
    "runner": 8.0,
    "projector": 8.8,
    "webhooks": 9.3,
    HUB: 9.3,
    "broker": 9.6,
}
"""Seconds after the signal at which each is killed. The runner needs most of them: it stops its actions. The runner and
the processes that it needs (`_DRAINED`) have its drain in addition."""
_DRAINED: Final = frozenset({"runner", "projector", "webhooks", HUB, "broker"})
_SERVICES: Final = frozenset({"broker", "runner", HUB, *JOINT_SERVICES})
_NAMES: Final = ("opstream", BROKER_CONFIG, "broker", "provision", "api", "projector", "runner", "webhooks", HUB)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_all(settings: Settings) -> None:
    """Run everything until SIGTERM, SIGINT or SIGHUP, then stop it in order. A second signal kills what is left.

    Raises:
        CommandError: a port is in use, a child could not be started or ended by itself, or a second signal came.
    """
    commands = SystemCommands(settings)
    asyncio.run(_run(settings, commands))


async def _run(settings: Settings, commands: SystemCommands) -> None:
    output = JsonOutput(sys.stdout) if settings.log_format == JSON else PrefixedOutput(sys.stdout, _NAMES)
    await Supervisor(settings, commands, output).run()


class Supervisor:
    """Starts the children, watches them, and stops them. Use it once."""

    def __init__(self, settings: Settings, commands: SystemCommands, output: LineOutput) -> None:
        self._settings = settings
        self._commands = commands
        self._output = output
        self._children: dict[str, ChildProcess] = {}
        self._signals = 0
        self._stopping = asyncio.Event()
        self._failed: asyncio.Future[CommandError] = asyncio.get_running_loop().create_future()
        self._disk = BrokerDisk(settings.data_dir, asyncio.get_running_loop().time)
        self._replaced: ChildProcess | None = None
        """A broker that is stopped only to be started again."""
        self._held: dict[str, str] = {}
        """Error lines that are not printed yet, by the names of their children."""
        self._waiting: dict[str, tuple[str, ...]] = {}
        """Options of the services that ended since the disk is full, by their names: they are started again."""
        self._limit: asyncio.Timeout | None = None
        """The time for the start. It stands still while the disk is full."""

    async def run(self) -> None:
        """Run until a signal comes or a child ends, then stop the others.

        Raises:
            CommandError: as `run_all`.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._handle_exception)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._handle_signal)
        starting = asyncio.create_task(self._start(), name="start")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        caring = asyncio.create_task(self._care_for_disk(), name="disk")
        ends: list[asyncio.Future[Any]] = [stopping, self._failed]
        starting.add_done_callback(report_failure)  # which ends the wait
        caring.add_done_callback(report_failure)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (starting, stopping, caring):
                task.cancel()
            await asyncio.wait([starting, stopping, caring])
            ending = asyncio.create_task(self._stop(), name="end")
            ending.add_done_callback(report_failure)
            await asyncio.wait([ending])
            for child in self._children.values():  # only after an error in what is above: otherwise all have ended
                child.kill()
                await asyncio.wait([child.ended])
        if self._failed.done():
            raise self._failed.result()
        if self._signals > 1:
            raise CommandError("a second signal killed what had not stopped yet; nothing that was acknowledged is lost")
        self._print("stopped")

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT) as self._limit:
                await self._check_actions()
                if self._settings.is_secure:
                    await self._write_broker_config()
                await self._start_broker()
                await self._provision()
                await self._start_services()
                # Services may be ready that have had nothing to store yet.
                await self._disk.wait_usable()
                await self._wait_ready()
        except TimeoutError as error:
            raise CommandError(f"not everything was ready within {_START_TIMEOUT:g} s: see its output above") from error
        finally:
            self._limit = None
        api, broker = self._commands.api_url, self._commands.nats_url
        self._output.plain(f"opstream is ready: API {self._settings.public_url or api}, broker {broker}", is_bold=True)
        if self._settings.health_port:
            self._output.plain(f"Metrics for Prometheus: {', '.join(self._commands.metrics())}")
        self._output.plain(f"Look at {api}/console in a browser, or at {api}/docs; Ctrl-C stops everything")

    async def _check_actions(self) -> None:
        """Import the actions once, in a process of its own: a mistake in them should not start a broker first."""
        check = ActionCheck(self._print)
        child = await self._start_child("actions", (*CHECK_COMMAND, *self._settings.modules), check.read_line)
        try:
            await asyncio.wait([child.ended])
        finally:
            check.stop()
            child.kill()
        check.finish(child.ended.result())

    async def _write_broker_config(self) -> None:
        self._print(f"writing the keys of all roles to {self._settings.data_dir}/access/keys")
        child = await self._launch(BROKER_CONFIG, *self._commands.broker_config())
        await asyncio.wait([child.ended])
        if child.ended.result():
            raise end_error(child, "the configuration of the broker was not written")
        self._commands.use_broker_config()

    async def _start_broker(self) -> None:
        self._print(f"starting the broker; its data is in {self._settings.data_dir}")
        await self._launch("broker", *self._commands.broker())
        await wait_until(lambda: is_broker(LOOPBACK, self._commands.nats_port))

    async def _care_for_disk(self) -> None:
        """Restart the broker when its disk was full and has room again."""
        while True:
            await self._disk.wait_full()
            self._print(
                f"the disk of the broker is full: nothing can be stored. Free space in {self._settings.data_dir} or "
                "around it; the broker is restarted then, since it stores nothing before"
            )
            if self._limit is not None:
                self._limit.reschedule(None)
            await self._disk.wait_room()
            if not self._disk.may_restart():
                text = (
                    "the disk was full too often in the last hour: the broker is not restarted any more. Find out "
                    "what fills it, then restart 'opstream up'"
                )
                if self._waiting or self._limit is not None:
                    self._fail(CommandError(text))  # it would wait for ever
                else:
                    self._print(text)
                return
            self._print("the disk of the broker has room again: restarting the broker")
            self._replaced = self._children["broker"]
            await self._replaced.stop(_KILL_AFTER["broker"])
            self._disk.forget()
            await self._start_broker()
            self._disk.note_restarted()
            if self._limit is not None:
                self._limit.reschedule(asyncio.get_running_loop().time() + _START_TIMEOUT)
            waiting, self._waiting = self._waiting, {}
            for name, options in waiting.items():
                self._print(f"starting the {name} again")
                await self._launch(name, *options)

    async def _provision(self) -> None:
        while True:
            await self._disk.wait_usable()
            child = await self._provision_once()
            if not child.ended.result():
                return
            if not self._disk.explains(child.tail):
                raise end_error(child, "provisioning failed")

    async def _provision_once(self) -> ChildProcess:
        self._print("provisioning")
        child = await self._launch("provision", *self._commands.provision())
        await asyncio.wait([child.ended])
        return child

    async def _start_services(self) -> None:
        self._print("starting api, projector, runner and webhooks")
        for name, options in self._commands.services().items():
            await self._launch(name, *options)
        await self._wait_ready()

    async def _wait_ready(self) -> None:
        # The runner is ready when its actions are in the catalog.
        await asyncio.gather(*(wait_until(_readiness_check(*address)) for address in self._commands.readiness()))

    async def _launch(self, name: str, *options: str) -> ChildProcess:
        command = [sys.executable, "-P", "-m", "opstream", name, *self._commands.logging(name), *options]
        child = await self._start_child(name, command, lambda line: self._print_child_line(name, line))
        self._children[name] = child
        if name in _SERVICES:
            child.ended.add_done_callback(lambda _: self._handle_end(child, options))
        return child

    async def _start_child(self, name: str, command: Sequence[str], on_line: Callable[[str], None]) -> ChildProcess:
        starting = asyncio.ensure_future(
            ChildProcess.start(name, command, environment=self._commands.environment(name), on_line=on_line)
        )
        try:
            return await asyncio.shield(starting)
        except OSError as error:
            raise CommandError(f"the {name} can't be started: {error}") from error
        except asyncio.CancelledError:
            # A child that is being started must have ended, too, before the event loop is closed.
            with contextlib.suppress(OSError):
                child = await starting
                child.kill()
                await asyncio.wait([child.ended])
            raise

    def _print_child_line(self, name: str, line: str) -> None:
        if name == "broker":
            self._disk.read_line(line)
        self._show_held(name)
        if end_error_text(line):
            self._held[name] = line  # if the child ends with it, it is the error of this command, which is printed once
            return
        if name == HUB:
            service, end, rest = line.partition(NAME_END)
            if end and service in JOINT_SERVICES:
                name, line = service, rest
        # nats-server logs many lines at each start; they are shown with --log-level debug.
        if name != "broker" or " [INF]" not in line or self._settings.log_level == "debug":
            self._output.line(name, line)

    def _show_held(self, name: str) -> None:
        if name in self._held:
            self._output.line(name, self._held.pop(name))

    def _print(self, text: str) -> None:
        self._output.line("opstream", text)

    def _handle_signal(self) -> None:
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            for child in self._children.values():
                child.kill()

    def _handle_end(self, child: ChildProcess, options: tuple[str, ...]) -> None:
        if self._failed.done() or self._stopping.is_set() or child is self._replaced:
            self._show_held(child.name)
            return
        if not self._disk.explains(child.tail):
            self._fail(end_error(child, f"the {child.name} ended unexpectedly"))
            return
        self._show_held(child.name)
        if child.name != "broker":  # which is restarted anyway
            self._waiting[child.name] = options
            self._print(f"the {child.name} ended, since nothing can be stored; it is started again once there is room")

    def _handle_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End with what a task or a callback raised: without it, the others could wait for ever."""
        error = context.get("exception")
        if isinstance(error, CommandError):
            self._fail(error)
            return
        loop.default_exception_handler(context)
        if error is not None:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._fail(CommandError(f"'opstream up' itself failed, which is a bug; its traceback is above: {text}"))

    def _fail(self, error: CommandError) -> None:
        if not self._failed.done():
            self._failed.set_result(error)

    async def _stop(self) -> None:
        begin = asyncio.get_running_loop().time()
        running = [name for name in _KILL_AFTER if name in self._children and not self._children[name].ended.done()]
        if running:
            self._print(f"stopping {', '.join(_stop_order(running))}")
        if "runner" in running and self._settings.drain:
            self._print(f"running actions have {self._settings.drain:g} s to end; a second Ctrl-C kills them")
        if HUB in running:
            await self._close_api()
        spent = asyncio.get_running_loop().time() - begin
        limits = {name: _KILL_AFTER[name] + (self._settings.drain if name in _DRAINED else 0.0) for name in running}
        await stop_in_order([(self._children[name], limits[name] - spent) for name in running], self._print)

    async def _close_api(self) -> None:
        """Have the hub stop its API. The runner stops next, and projector and webhooks after it."""
        self._children[HUB].send(CLOSE_SIGNAL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_AFTER["api"]):
                await wait_until(lambda: is_refused(self._settings.host, self._commands.port))


def _stop_order(running: Sequence[str]) -> list[str]:
    """The services in the order of their stop: those of the hub by their names, its API first."""
    if HUB not in running:
        return list(running)
    others = [name for name in running if name != HUB]
    before_broker = others.index("broker") if "broker" in others else len(others)
    others[before_broker:before_broker] = JOINT_SERVICES[1:]
    return [JOINT_SERVICES[0], *others]


def _readiness_check(host: str, port: int) -> Callable[[], Awaitable[bool]]:
    return lambda: is_ready(host, port)
