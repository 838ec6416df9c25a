"""What the doctor finds: a level, what is so, what it means, and what to do next."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How urgent a finding is. From `WARNING` on it needs action, and the exit status of the command is 1."""

    OK = "ok"
    """Looked at, and as it should be."""
    NOTE = "note"
    """Not known, or worth knowing; no action is needed."""
    WARNING = "warning"
    CRITICAL = "critical"
    """Something does not work now, or what was acknowledged may be lost."""


class SystemFinding(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One finding."""

    name: str
    """In PascalCase, the same in all versions: `ServerTooOld`."""
    level: Level
    message: str
    """What is so, and what it means, in words."""
    next_step: str = ""
    """What the operator should do; empty where nothing is to be done."""

    @property
    def needs_action(self) -> bool:
        """Return True if the operator has to do something."""
        return self.level in {Level.WARNING, Level.CRITICAL}
