"""Checks of the broker itself: versions, syncing, replicas, room, clocks, subjects. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from opstream_journal.provisioning.config_drift import Drift
from opstream_journal.runtime.broker_monitor import MAX_SKEW
from opstream_journal.wire.server_version import explain_old_version
from opstream_schemas import subjects
from opstream_schemas.text import format_count

from .server_look import ServerLook
from .system_findings import Level, SystemFinding

FULL_SHARE: Final = 0.85
"""Share of the journal's limit from which on submits are refused (ADR 0015)."""
HIGH_SHARE: Final = 0.7
"""Share of a limit of storage from which on an operator should make room."""
MAX_SUBJECTS: Final = 10_000_000
"""Subjects of one stream from which on the broker's memory needs a look: it keeps each of them."""
SAFE_REPLICAS: Final = 3
"""Copies of a stream with which a cluster loses a server and goes on."""

_SILENT: Final = 2.0
"""Seconds without a word of a server from which on it is down or cut off, more likely than slow."""
_UNKNOWN: Final = "Server name unknown"
_SYNC_DOCS: Final = (
    "put 'sync_interval: always' into the jetstream part of each server's configuration, and restart one server after "
    "the other"
)

StreamInfo = Mapping[str, Any]
"""JetStream's own answer about a stream."""


def check_versions(versions: Mapping[str, str]) -> Iterator[SystemFinding]:
    """Check the versions of the servers that are known, by where each was seen."""
    old = [text for where, version in versions.items() if (text := explain_old_version(version, where))]
    if old:
        yield SystemFinding(
            name="ServerTooOld",
            level=Level.CRITICAL,
            message="; ".join(old),
            next_step="update nats-server, one server of the cluster after the other",
        )
    else:
        shown = ", ".join(sorted(set(versions.values())))
        yield SystemFinding(name="ServerVersion", level=Level.OK, message=f"nats-server {shown}")


def check_syncing(monitored: Mapping[str, Mapping[str, Any]]) -> Iterator[SystemFinding]:
    """Check that each server syncs what it acknowledges.

    Args:
        monitored: the answer of `/varz`, by the URL of each server's monitoring port; empty if none is known.
    """
    if not monitored:
        yield SystemFinding(
            name="SyncingUnknown",
            level=Level.NOTE,
            message="a client can't see whether the broker syncs each message to the disk before it acknowledges",
            next_step="name the monitoring port of each server with --monitoring http://HOST:8222",
        )
        return
    lazy = [where for where, varz in monitored.items() if not _jetstream(varz, "config").get("sync_always")]
    if lazy:
        yield SystemFinding(
            name="NotSynced",
            level=Level.CRITICAL,
            message=f"{', '.join(lazy)} acknowledges what is not on the disk yet: a power cut loses up to two minutes",
            next_step=_SYNC_DOCS,
        )
    else:
        yield SystemFinding(name="Syncing", level=Level.OK, message="each server syncs what it acknowledges")


def check_replicas(
    streams: Sequence[StreamInfo], *, is_clustered: bool, looks: Sequence[ServerLook] = ()
) -> Iterator[SystemFinding]:
    """Check how many copies the streams have, and whether their servers are there.

    Args:
        streams: what the broker says of each.
        is_clustered: whether the broker is a cluster.
        looks: at its servers, which may say why a copy is behind.
    """
    leaderless = [_name(one) for one in streams if is_clustered and not (one.get("cluster") or {}).get("leader")]
    if leaderless:
        yield SystemFinding(
            name="StreamWithoutLeader",
            level=Level.CRITICAL,
            message=f"{', '.join(leaderless)}: no leader, so nothing can be stored there",
            next_step="start the servers of the cluster that are down: more than half of them must run",
        )
    behind = _late_copies(streams)
    if behind:
        yield _behind(behind, looks)
    partial = [_name(one) for one in streams if is_clustered and _name(one) not in leaderless and _is_partial(one)]
    if partial:
        yield SystemFinding(
            name="ReplicasIncomplete",
            level=Level.WARNING,
            message=f"{', '.join(partial)}: not all copies are there yet, so the loss of one server may stop them",
            next_step="keep as many servers running as there are to be copies, and run it again: the broker makes them "
            "in seconds, of much data in minutes",
        )
    counts = {_name(one): int(one["config"].get("num_replicas") or 1) for one in streams}
    few = [name for name, count in counts.items() if count < SAFE_REPLICAS]
    if is_clustered and few:
        yield SystemFinding(
            name="FewReplicas",
            level=Level.WARNING,
            message=f"{', '.join(few)}: fewer than {SAFE_REPLICAS} copies in a cluster, so it stops with one server",
            next_step=f"run 'opstream provision --update --replicas {SAFE_REPLICAS}'",
        )
    elif not is_clustered:
        yield SystemFinding(
            name="SingleServer",
            level=Level.NOTE,
            message="the broker is one server: while it is down nothing goes on, and its disk is the only copy",
        )
    elif not behind and not leaderless and not partial:
        yield SystemFinding(
            name="Replicas", level=Level.OK, message=f"{format_count(len(streams), 'stream')}, all copies are current"
        )


def check_drift(missing: Sequence[str], drift: Sequence[Drift], foreign: Sequence[str]) -> Iterator[SystemFinding]:
    """Check streams and consumers against the topology."""
    if foreign:
        yield SystemFinding(
            name="ForeignStream",
            level=Level.CRITICAL,
            message="; ".join(foreign),
            next_step="name opstream's own broker with --nats, or give opstream an account of its own on this one",
        )
    if missing:
        is_lost = any(subjects.OPERATIONS_STREAM in one for one in missing)
        yield SystemFinding(
            name="NotProvisioned",
            level=Level.CRITICAL,
            message=f"missing: {', '.join(missing)}",
            next_step="if the broker had a journal, restore it from a backup first; otherwise run 'opstream provision'"
            if is_lost
            else "run 'opstream provision', which makes what is missing; then restart the services that have ended",
        )
    if drift:
        is_safe = all(one.is_safe for one in drift)
        yield SystemFinding(
            name="Drift",
            level=Level.WARNING,
            message="; ".join(map(str, drift)),
            next_step="run 'opstream provision --update'"
            if is_safe
            else "run 'opstream provision', which says what can be changed in place and what can't",
        )
    if not (missing or drift or foreign):
        yield SystemFinding(name="Topology", level=Level.OK, message="streams and consumers are as they should be")


def check_room(
    journal: StreamInfo, account: Mapping[str, Any], monitored: Mapping[str, Any]
) -> Iterator[SystemFinding]:
    """Check how full the journal, the account and the disks of the servers are."""
    used, limit = int(journal["state"].get("bytes", 0)), int(journal["config"].get("max_bytes", -1))
    places = []
    if limit > 0:
        places.append(("the journal", used, limit, "raise it: 'opstream provision --update --max-bytes …'"))
    limits = account.get("limits") or {}
    if int(limits.get("max_storage", -1)) > 0:
        stored = int(account.get("storage", 0))
        places.append(("the account", stored, int(limits["max_storage"]), "raise max_file of the account"))
    for where, varz in monitored.items():
        config, stats = _jetstream(varz, "config"), _jetstream(varz, "stats")
        if int(config.get("max_storage", -1)) > 0:
            stored = int(stats.get("storage", 0))
            places.append((where, stored, int(config["max_storage"]), "make room, or raise max_file_store"))
    full = [place for place in places if place[1] >= HIGH_SHARE * place[2]]
    for what, stored, most, step in full:
        is_stopped = stored >= FULL_SHARE * most
        yield SystemFinding(
            name="LittleRoom",
            level=Level.CRITICAL if is_stopped else Level.WARNING,
            message=f"{what} has {stored:,} of {most:,} bytes in use ({stored * 100 // most} %)"
            + (": submits are refused from 85 % on" if is_stopped else ""),
            next_step=step,
        )
    if not full:
        share = f" of {limit:,}" if limit > 0 else ", without a limit"
        yield SystemFinding(name="Room", level=Level.OK, message=f"the journal has {used:,} bytes{share}")


def check_subjects(streams: Sequence[StreamInfo], *, most: int = MAX_SUBJECTS) -> Iterator[SystemFinding]:
    """Check how many subjects the streams have. The broker keeps each in its memory."""
    counts = {_name(one): int(one["state"].get("num_subjects", 0)) for one in streams}
    many = {name: count for name, count in counts.items() if count > most}
    if many:
        shown = ", ".join(f"{name} {count:,}" for name, count in many.items())
        yield SystemFinding(
            name="ManySubjects",
            level=Level.WARNING,
            message=f"{shown} subjects: the broker keeps each in memory, some 2 KiB an operation",
            next_step="shorten --max-age or retentions, or give the broker more memory (docs/hardware.md)",
        )
    else:
        yield SystemFinding(name="Subjects", level=Level.OK, message=f"{sum(counts.values()):,} subjects")


def check_clocks(skews: Mapping[str, timedelta]) -> Iterator[SystemFinding]:
    """Check clocks against that of the broker.

    Args:
        skews: how much each clock is ahead of the broker's, by whose it is; less than zero for behind.
    """
    wrong = {whose: skew for whose, skew in skews.items() if abs(skew) > MAX_SKEW}
    if wrong:
        shown = "; ".join(
            f"the clock of {whose} is {abs(skew) / timedelta(seconds=1):.0f} s "
            f"{'ahead of' if skew > timedelta(0) else 'behind'} the broker's"
            for whose, skew in wrong.items()
        )
        yield SystemFinding(
            name="ClockSkew",
            level=Level.WARNING,
            message=shown,
            next_step="let the machines synchronise their clocks (NTP; docs/running.md, Clocks)",
        )
    else:
        yield SystemFinding(name="Clocks", level=Level.OK, message=f"{', '.join(skews)} and the broker agree")


def _late_copies(streams: Sequence[StreamInfo]) -> dict[str, tuple[str, list[str]]]:
    """Return the streams whose copy is missing or behind, by server, with how that is."""
    late: dict[str, tuple[str, list[str]]] = {}
    for stream in streams:
        for peer in (stream.get("cluster") or {}).get("replicas") or ():
            if peer.get("offline") or not peer.get("current"):
                silent = int(peer.get("active") or 0) / 1e9
                how = "offline" if peer.get("offline") else "behind"
                if not peer.get("offline") and silent >= _SILENT:
                    how = f"silent for {silent:.0f} s"
                late.setdefault(str(peer.get("name", "?")), (how, []))[1].append(_name(stream))
    return late


def _is_partial(stream: StreamInfo) -> bool:
    """Return True if a stream has not all copies that it is to have.

    After `num_replicas` was raised, a server from 2.15 on makes the copies one stream after another. Until it begins
    with a stream it lists none of those to come, and until it is done it says what is `desired`.
    """
    cluster = stream.get("cluster") or {}
    wanted = int(stream["config"].get("num_replicas") or 1)
    return bool(cluster.get("desired")) or 1 + len(cluster.get("replicas") or ()) < wanted


def _behind(late: Mapping[str, tuple[str, Sequence[str]]], looks: Sequence[ServerLook]) -> SystemFinding:
    """Return which copies are behind, with what was seen of their servers."""
    by_name = {one.name: one for one in looks if one.name}
    silent = ", ".join(one.url for one in looks if one.silence)
    shown, steps = [], []
    for name, (how, streams) in sorted(late.items()):
        look = by_name.get(name)
        # The broker knows only the id of a server that it has not met since it was started.
        server = f"a server whose name the others do not know ({name})" if name.startswith(_UNKNOWN) else name
        shown.append(f"{server if look is None else f'{server} at {look.url}'} ({how}): {', '.join(sorted(streams))}")
        if look is None:
            step = (
                f"start {'the server that is missing' if name.startswith(_UNKNOWN) else server}, or look at its machine"
            )
            steps.append(f"{step} ({silent} does not answer)" if silent else step)
        elif look.refusal:
            steps.append(f"mend the TLS of {server}, which may keep it from the other servers, too: {look.refusal}")
        else:
            steps.append(
                f"{server} answers clients, so look into its log, and for its name into those of the others: it may "
                "still copy, its disk may be full, or the certificate for its routes may have ended"
            )
    return SystemFinding(
        name="ReplicaBehind",
        level=Level.WARNING,
        message=f"copies are missing or behind on {'; '.join(shown)}. One more failure may stop the system",
        next_step=f"{'; '.join(dict.fromkeys(steps))}. The copy catches up by itself",
    )


def _name(stream: StreamInfo) -> str:
    return str(stream["config"]["name"])


def _jetstream(varz: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (varz.get("jetstream") or {}).get(part) or {}
    return found
