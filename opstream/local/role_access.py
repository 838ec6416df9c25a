"""The keys and permissions of `opstream up --secure`: in the data folder, made at the first start, and kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from opstream.terminal.console import CommandError

_FOLDER: Final = "access"
_NEW: Final = "access.new"
_OLD: Final = "access.old"
_STREAMS: Final = Path("jetstream") / "$G" / "streams"
"""Where a broker without accounts keeps its streams."""


class RoleAccess:
    """What the broker and the processes of one data folder use.

    Args:
        data_dir: the folder.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self.accounts = self._data_dir / _FOLDER / "accounts.conf"

    def check(self, *, is_secure: bool) -> None:
        """Check that the data folder belongs to a broker of the same kind: streams belong to an account.

        Raises:
            CommandError: it does not; the system would begin with nothing.
        """
        if is_secure and not self._is_made() and any((self._data_dir / _STREAMS).glob("*")):
            raise CommandError(
                f"the operations in {self._data_dir} belong to a broker without roles, and --secure would not see "
                "them: leave it out, or choose another --data-dir"
            )
        if not is_secure and self._is_made():
            raise CommandError(
                f"the operations in {self._data_dir} belong to a broker with roles: write --secure, or choose another "
                "--data-dir"
            )

    @property
    def keys(self) -> str:
        """The path of the folder with the keys."""
        return str(self._data_dir / _FOLDER / "keys")

    def key(self, name: str) -> str:
        """Return the path of the key of a role."""
        return str(Path(self.keys) / f"{name}.nk")

    def begin(self, port: int) -> tuple[str, ...]:
        """Return the options of `opstream broker-config` that write what counts from now on, with the same keys."""
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept, new, old = (self._data_dir / name for name in (_FOLDER, _NEW, _OLD))
        if not kept.exists() and old.exists():  # the last start was killed in `finish`
            old.rename(kept)
        shutil.rmtree(new, ignore_errors=True)
        keys = ("--keys", str(kept / "keys")) if (kept / "keys").exists() else ()
        return ("--out", str(new), "--no-tls", "--nats-port", str(port), *keys)

    def finish(self) -> None:
        """Put what was written into its place."""
        kept, new, old = (self._data_dir / name for name in (_FOLDER, _NEW, _OLD))
        shutil.rmtree(old, ignore_errors=True)
        if kept.exists():
            kept.rename(old)
        new.rename(kept)
        shutil.rmtree(old, ignore_errors=True)

    def _is_made(self) -> bool:
        return any((self._data_dir / name).exists() for name in (_FOLDER, _OLD))
