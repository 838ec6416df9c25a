# ruff: noqa: INP001 - a script, in no package
"""Subscribes to the ends of operations with nats-py alone: no package of opstream's is needed. Copy it.

    python subscribe_natspy.py nats://127.0.0.1:4222 book:* mailer

Prints a line for each operation of the action that ended. It survives restarts of the broker and of itself: the
durable consumer keeps its position, and unacknowledged events are redelivered. Several processes share the events.
Needs nats-py 2.16 or later; docs/events.md explains the subjects, the envelope and the guarantees.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

STREAM = "OPERATIONS"
ENDS = ("succeeded", "failed", "canceled")
ACK_WAIT = 30.0
MAX_DELIVERIES = 20
LONGEST = 300.0


class Unreadable(Exception):
    """The message is no event that this program knows. No retry helps."""


async def handle(event: dict[str, Any]) -> None:
    """Your work. If it raises an error, it is retried. It may get an event twice, with the same `event["id"]`."""
    name = event["type"].removeprefix("opstream.action.").removesuffix(".v1")
    print(name, event["subject"], json.dumps(event["data"]), flush=True)


async def serve(server: str, kind: str, durable: str) -> None:
    """Connect, find or create the durable, and handle its events until SIGTERM or SIGINT."""

    async def closed() -> None:
        # nats-py closes a connection after a protocol error, and this program would then wait for ever.
        if not stopping.is_set():
            print("the connection was closed for good", file=sys.stderr, flush=True)
            os._exit(1)

    stopping = asyncio.Event()
    nc = await nats.connect(
        server,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.5,
        ping_interval=5,
        closed_cb=closed,
        error_cb=print_error,
    )
    # Only now: while there is no broker, a signal ends the process at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    js = nc.jetstream()
    await make_durable(js, kind, durable)
    await follow(nc, js, durable, stopping)
    with contextlib.suppress(Error):
        await nc.close()


async def make_durable(js: JetStreamContext, kind: str, durable: str) -> None:
    """Create the durable if it is missing. It is looked up first, since nats-py would change an existing one."""
    resource, _, action = kind.partition(":")
    filters = [f"operations.*.{resource}.{action}.{event}" for event in ENDS]
    try:
        found = (await js.consumer_info(STREAM, durable)).config
    except NotFoundError:
        config = ConsumerConfig(
            durable_name=durable,
            filter_subjects=filters,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.NEW,
            ack_wait=ACK_WAIT,
            max_ack_pending=1000,
        )
        await js.add_consumer(STREAM, config)
        return
    if sorted(found.filter_subjects or [found.filter_subject or ""]) != sorted(filters):
        sys.exit(f"durable {durable} is there with other filters ({found.filter_subjects}): take another name")


async def follow(nc: Client, js: JetStreamContext, durable: str, stopping: asyncio.Event) -> None:
    """Fetch and handle one event after another."""
    pulled = await js.pull_subscribe_bind(durable, STREAM)
    stopped = asyncio.create_task(stopping.wait())
    while not stopping.is_set():
        try:
            messages = await pulled.fetch(1, timeout=2)
        except TimeoutError:
            continue  # nothing happened
        except Error as error:
            # No broker, no leader or no such consumer: fetch fails at once, so wait before the next try.
            print(f"can't fetch: {error or type(error).__name__}", file=sys.stderr, flush=True)
            await asyncio.wait([stopped], timeout=1)
            if nc.is_connected:
                await check_durable(js, durable)
            continue
        for message in messages:
            await process(message)
    stopped.cancel()


async def check_durable(js: JetStreamContext, durable: str) -> None:
    """End the process if the durable was deleted: a person must decide where to continue."""
    try:
        await js.consumer_info(STREAM, durable)
    except NotFoundError:
        sys.exit(f"durable {durable} was deleted: what happened since then is only in the stream")
    except (Error, TimeoutError):
        return  # the next failure checks again


async def process(message: Msg) -> None:
    """Handle one message, and acknowledge it, or have it redelivered."""
    sequence, tries = message.metadata.sequence.stream, message.metadata.num_delivered
    heartbeats = asyncio.create_task(send_heartbeats(message))
    try:
        await handle(decode(message))
    except Exception as error:  # noqa: BLE001 - any error of your work
        # Poison must not be retried for ever. The event stays in the stream: nats stream get OPERATIONS SEQUENCE
        if tries >= MAX_DELIVERIES or isinstance(error, Unreadable):
            print(f"given up: message {sequence} of {STREAM}: {error!r}", file=sys.stderr, flush=True)
            await send_to_broker(message.term())
        else:
            pause = min(2.0 ** (tries - 1), LONGEST) * random.uniform(0.5, 1.0)  # noqa: S311 - only spreads the load
            print(f"failed: message {sequence}, again in {pause:.1f} s: {error!r}", file=sys.stderr, flush=True)
            await send_to_broker(message.nak(delay=pause))
    else:
        await send_to_broker(message.ack())
    finally:
        heartbeats.cancel()


def decode(message: Msg) -> dict[str, Any]:
    """Decode the event.

    Raises:
        Unreadable: it is no event, or of a later version than this program knows.
    """
    try:
        event: dict[str, Any] = json.loads(message.data)
        is_known = event["specversion"] == "1.0" and event["type"].endswith(".v1")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"no event: {error!r}") from error
    if not is_known:
        raise Unreadable(f"type {event['type']} is not known")
    return event


async def send_heartbeats(message: Msg) -> None:
    """Keep the broker from giving the event to another process while the handler works."""
    while True:
        await asyncio.sleep(ACK_WAIT / 3)
        await send_to_broker(message.in_progress())


async def send_to_broker(acknowledgement: Awaitable[None]) -> None:
    """Send to the broker; if that fails, the event is redelivered."""
    with contextlib.suppress(Error, TimeoutError):
        await acknowledgement


async def print_error(error: Exception) -> None:
    """Print an error that nats-py reports, such as a lost connection."""
    print(f"broker: {error or type(error).__name__}", file=sys.stderr, flush=True)


def main() -> None:
    """Read the arguments and serve."""
    if len(sys.argv) != 4 or not all(sys.argv[2].partition(":")):
        sys.exit(
            "usage: subscribe_natspy.py NATS_URL RESOURCE:ACTION DURABLE (e.g. nats://127.0.0.1:4222 'book:*' mailer)"
        )
    asyncio.run(serve(*sys.argv[1:]))


if __name__ == "__main__":
    main()
