"""Whether a stream or consumer with one of our names is opstream's, or another application's. Pure.

A name proves nothing: `OPERATIONS`, `TIMERS` and `ARCHIVE` are names that others choose, too. The subjects do: each
stream that any version of opstream made has some that no other application has a reason to choose. `timers.>` is an
exception, so a stream that lacks one of our subjects must also keep its messages as ours does. A bucket's subject
follows from its name, so its duplicate window decides, which every version of opstream set to another value than the
tools and clients of NATS do.
"""

from __future__ import annotations

from typing import Final

from nats.js.api import ConsumerConfig, StreamConfig

RIGHT_BROKER: Final = (
    "is it the right broker? Nothing was made or changed. Name opstream's own with --nats, or give opstream an account "
    "of its own on this one"
)
"""What follows a finding."""

_BUCKET_PREFIXES: Final = ("KV_", "OBJ_")
_TOOLS_WINDOW: Final = 120.0


def explain_foreign_stream(actual: StreamConfig, wanted: StreamConfig) -> str:
    """Return why a stream is another application's; empty if it is opstream's, even if it differs.

    Args:
        actual: the stream on the broker.
        wanted: the stream of that name as opstream makes it.
    """
    if _sources(actual) & _sources(wanted):
        return ""
    if set(actual.subjects or ()).isdisjoint(wanted.subjects or ()):
        what = f"takes {', '.join(actual.subjects)}" if actual.subjects else "takes no subject"
        return f"stream {wanted.name} {what}, and nothing of opstream's, so it is another application's"
    if not set(actual.subjects or ()).issuperset(wanted.subjects or ()) and actual.retention != wanted.retention:
        what = f"takes {', '.join(actual.subjects or ())}, and keeps messages by another policy than opstream's"
        return f"stream {wanted.name} {what}, so it is another application's"
    if str(wanted.name).startswith(_BUCKET_PREFIXES) and _is_foreign_bucket(actual, wanted):
        name = str(wanted.name).partition("_")[2]
        return f"bucket {name} (stream {wanted.name}) was not made by opstream, so it is another application's"
    return ""


def explain_foreign_consumer(actual: ConsumerConfig, wanted: ConsumerConfig) -> str:
    """Return why a consumer is another application's; empty if it is opstream's, even if it differs."""
    if actual.deliver_subject:
        return (
            f"consumer {wanted.durable_name} is pushed to {actual.deliver_subject}, which opstream's never are, so it "
            "is another application's"
        )
    return ""


def _sources(config: StreamConfig) -> set[str]:
    return {source.name for source in config.sources or ()}


def _is_foreign_bucket(actual: StreamConfig, wanted: StreamConfig) -> bool:
    # The tools and clients of NATS give a bucket a window of 2 minutes, or of its age if that is less. Ours have 15 s.
    window = round(actual.duplicate_window or 0.0, 6)
    return window != wanted.duplicate_window and window in {_TOOLS_WINDOW, round(actual.max_age or 0.0, 6)}
