"""A slow disk: strace delays each fsync of a server, as the disk of a cloud machine would.

The delay comes before the system calls fsync and fdatasync, and only there. What it does not delay: a write to a file
that is open with O_SYNC or O_DSYNC (nats-server writes the state of consumers and streams so, and then syncs their
folder, which is delayed), sync_file_range, msync, and a sync through io_uring. On the real slow disk those take longer,
too, so that it costs such a server more than is measured here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from opstream.terminal.console import CommandError

_CALLS: Final = "fsync,fdatasync"
_PROBE_TIMEOUT: Final = 10.0


def slowed(command: Sequence[str], delay_us: int) -> list[str]:
    """The command with each of its syncs delayed.

    strace is no parent of the command, but a detached tracer (`-D`): the process that is started is the server itself.
    Signals, also SIGKILL and the kernel's own at the death of a parent, reach it; its tracer ends with it.

    Args:
        command: of a server; its children and threads are delayed, too.
        delay_us: microseconds for each sync; 0 for the command as it is.
    """
    if not delay_us:
        return [*command]
    inject = f"inject={_CALLS}:delay_enter={delay_us}"
    return [
        "strace",
        "-D",
        "-qq",
        "-f",
        "--seccomp-bpf",
        "-e",
        f"trace={_CALLS}",
        "-e",
        inject,
        "-o",
        "/dev/null",
        *command,
    ]


def check_tracer(delay_us: int) -> None:
    """Check that strace can delay syncs, if there is a delay.

    Raises:
        CommandError: strace is not installed, is too old, or may not trace; the message names the next step.
    """
    if not delay_us:
        return
    if shutil.which("strace") is None:
        raise CommandError("there is no strace, which delays each fsync: install it (apt-get install strace)")
    probe = slowed(["true"], 1)
    probe.remove("-D")  # so that strace's own status is seen
    tried = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=_PROBE_TIMEOUT)
    if tried.returncode:
        said = tried.stderr.strip() or f"exit status {tried.returncode}"
        raise CommandError(
            f"strace can't trace here ({said}): it takes strace 5.3 or later, "
            "and in a container the capability SYS_PTRACE"
        )
