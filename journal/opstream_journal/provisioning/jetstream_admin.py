"""Streams and consumers on the broker: read, created, changed.

These calls are made by hand. nats-py's manager drops fields that it does not know when it writes a configuration back,
changes an existing consumer instead of creating one, and hides the number of an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import nats.errors
from nats.js.api import ConsumerConfig, StreamConfig

from opstream_journal.errors import BrokerRefused, JournalUnavailable, NoLeader
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection

_TIMEOUT: Final = 5.0
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_NO_SUCH_MESSAGE: Final = 10057
_NAME_IN_USE: Final = frozenset({10058, 10148})

Fields = Mapping[str, Any]
"""Fields of a configuration in the broker's form; None removes one."""


class ConsumerProgress(NamedTuple):
    """How far a consumer is, as stream sequences, and when the broker said so, by its clock."""

    acknowledged: int
    """Up to here all messages are acknowledged."""
    delivered: int
    now: datetime


async def stream_config(connection: Connection, name: str) -> StreamConfig | None:
    """Return the configuration of a stream; None without one.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    raw = await _get_config(connection, f"STREAM.INFO.{name}")
    return None if raw is None else StreamConfig.from_response(raw)


def server_version(config: StreamConfig) -> str:
    """Return the version of the server that answered with a stream's configuration; empty if it did not say."""
    return (config.metadata or {}).get("_nats.ver", "")


async def create_stream(connection: Connection, config: StreamConfig) -> bool:
    """Create a stream. Return False if one with another configuration exists already.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    return await _create(connection, f"STREAM.CREATE.{config.name}", config.as_dict())


async def update_stream(connection: Connection, name: str, fields: Fields) -> None:
    """Change fields of a stream's configuration. The others stay as they are.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    raw = await _get_config(connection, f"STREAM.INFO.{name}") or {}
    await _request(connection, f"STREAM.UPDATE.{name}", _merged(raw, fields))


async def stream_info(connection: Connection, name: str) -> dict[str, Any] | None:
    """Return what the leader says about a stream, in the broker's form; None without one.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    return await _get_info(connection, f"STREAM.INFO.{name}")


async def delete_stream(connection: Connection, name: str) -> None:
    """Delete a stream with all its messages and consumers, if it is there.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    try:
        await _request(connection, f"STREAM.DELETE.{name}")
    except BrokerRefused as refused:
        if refused.code != _NOT_FOUND:
            raise


async def consumer_configs(connection: Connection, stream_name: str) -> list[dict[str, Any]]:
    """Return the configurations of a stream's consumers, in the broker's form.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused, as for a stream that is missing.
    """
    found: list[dict[str, Any]] = []
    while True:
        answer = await _request(connection, f"CONSUMER.LIST.{stream_name}", {"offset": len(found)})
        page = [one["config"] for one in answer.get("consumers") or ()]
        found += page
        if not page or len(found) >= answer["total"]:
            return found


async def consumer_info(connection: Connection, stream_name: str, name: str) -> dict[str, Any] | None:
    """Return all that JetStream says of a consumer; None without one.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    return await _get_info(connection, f"CONSUMER.INFO.{stream_name}.{name}")


async def account_info(connection: Connection) -> dict[str, Any]:
    """Return what the account uses, and its limits.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    return await _request(connection, "INFO")


async def streams_with_subject(connection: Connection, subject: str) -> list[str]:
    """Return the names of the streams that take a subject, or one that it matches; at most 1,024.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    answer = await _request(connection, "STREAM.NAMES", {"subject": subject})
    return list(answer.get("streams") or ())


async def stream_subjects(connection: Connection, name: str, subject_filter: str) -> list[str]:
    """Return the subjects of a stream that match a filter and have a message; at most 100,000, the broker's limit.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    answer = await _request(connection, f"STREAM.INFO.{name}", {"subjects_filter": subject_filter})
    found: dict[str, int] = answer["state"].get("subjects") or {}
    return list(found)


async def delete_message(connection: Connection, name: str, sequence: int) -> None:
    """Remove a message from a stream, if it is there.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    try:
        await _request(connection, f"STREAM.MSG.DELETE.{name}", {"seq": sequence})
    except BrokerRefused as refused:
        if refused.err_code != _NO_SUCH_MESSAGE:
            raise


async def consumer_config(connection: Connection, stream_name: str, name: str) -> ConsumerConfig | None:
    """Return the configuration of a consumer; None without one.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    raw = await raw_consumer_config(connection, stream_name, name)
    return None if raw is None else ConsumerConfig.from_response(raw)


async def raw_consumer_config(connection: Connection, stream_name: str, name: str) -> dict[str, Any] | None:
    """Return the configuration in the broker's form, with the fields that nats-py does not know.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    return await _get_config(connection, f"CONSUMER.INFO.{stream_name}.{name}")


async def is_consumer_in_use(connection: Connection, stream_name: str, name: str) -> bool:
    """Return True if a process pulls from a consumer, or has messages of it that are not acknowledged.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    answer = await _request(connection, f"CONSUMER.INFO.{stream_name}.{name}")
    return bool(answer.get("num_waiting") or answer.get("num_ack_pending"))


async def ack_floor(connection: Connection, stream_name: str, name: str) -> int | None:
    """Return the stream sequence up to which a consumer has acknowledged all; None without such a consumer.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    position = await consumer_position(connection, stream_name, name)
    return None if position is None else position.acknowledged


async def consumer_position(connection: Connection, stream_name: str, name: str) -> ConsumerProgress | None:
    """Return how far a consumer is; None without such a consumer.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    try:
        answer = await _request(connection, f"CONSUMER.INFO.{stream_name}.{name}")
    except BrokerRefused as refused:
        if refused.code == _NOT_FOUND:
            return None
        raise
    return ConsumerProgress(
        acknowledged=int(answer["ack_floor"]["stream_seq"]),
        delivered=int(answer["delivered"]["stream_seq"]),
        now=datetime.fromisoformat(answer["ts"]),
    )


async def create_consumer(connection: Connection, stream_name: str, config: ConsumerConfig) -> bool:
    """Create a consumer. Return False if one with another configuration exists, which stays as it is.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    request = {"stream_name": stream_name, "config": config.as_dict(), "action": "create"}
    return await _create(connection, f"CONSUMER.CREATE.{stream_name}.{config.durable_name}", request)


async def update_consumer(connection: Connection, stream_name: str, name: str, fields: Fields) -> None:
    """Change fields of a consumer's configuration. The others stay as they are.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    raw = await _get_config(connection, f"CONSUMER.INFO.{stream_name}.{name}") or {}
    request = {"stream_name": stream_name, "config": _merged(raw, fields), "action": "update"}
    await _request(connection, f"CONSUMER.CREATE.{stream_name}.{name}", request)


async def pause_consumer(connection: Connection, stream_name: str, name: str, until: datetime | None) -> None:
    """Have a consumer deliver nothing until a time, or go on (None). On a cluster it happens a moment later.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused, as for a consumer that does not exist.
    """
    request = {} if until is None else {"pause_until": until}
    await _request(connection, f"CONSUMER.PAUSE.{stream_name}.{name}", request)


def _merged(raw: dict[str, Any], fields: Fields) -> dict[str, Any]:
    return {key: value for key, value in (raw | dict(fields)).items() if value is not None}


async def _get_config(connection: Connection, what: str) -> dict[str, Any] | None:
    answer = await _get_info(connection, what)
    return None if answer is None else dict(answer["config"])


async def _get_info(connection: Connection, what: str) -> dict[str, Any] | None:
    try:
        return await _request(connection, what)
    except BrokerRefused as refused:
        if refused.code == _NOT_FOUND:
            return None
        raise


async def _create(connection: Connection, what: str, request: Mapping[str, Any]) -> bool:
    try:
        await _request(connection, what, request)
    except BrokerRefused as refused:
        if refused.err_code in _NAME_IN_USE:
            return False
        raise
    return True


async def _request(connection: Connection, what: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
    payload = b"" if request is None else msgspec.json.encode(request)
    try:
        message = await rpc.call(connection, f"$JS.API.{what}", payload, timeout=_TIMEOUT)
        answer: dict[str, Any] = msgspec.json.decode(message.data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer on {what} is not JetStream's", maybe_stored=True) from error
    except JournalUnavailable as error:
        if not connection.is_connected:
            raise
        if isinstance(error.__cause__, nats.errors.NoRespondersError):
            raise JournalUnavailable(
                "JetStream is not enabled on this broker: put 'jetstream {}' into its configuration; if it is there, a "
                "full disk has switched it off, as its log says: free space, restart it",
                maybe_stored=False,
            ) from error
        raise NoLeader(str(error), maybe_stored=error.maybe_stored) from error
    if "error" in answer:
        refusal = msgspec.convert(answer["error"], rpc.JetStreamErrorBody)
        if refusal.code == _UNAVAILABLE:
            raise NoLeader(refusal.description)
        raise BrokerRefused(refusal.code, refusal.err_code, refusal.description)
    return answer
