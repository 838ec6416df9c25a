"""What one version of an action may not mean twice: its schemas, and whether it is confidential."""

from __future__ import annotations

import logging

from opstream_journal.errors import SchemaChanged
from opstream_schemas.action_spec import ActionSpec

logger = logging.getLogger(__name__)


def refuse_another_contract(before: ActionSpec | None, now: ActionSpec, *, allows_schema_change: bool) -> None:
    """Check that an action means the same by its version as what is announced.

    Args:
        before: what is announced; None for nothing.
        now: what is to be.
        allows_schema_change: whether its schemas may differ. Whether it is confidential may not.

    Raises:
        SchemaChanged: it has the same version with another schema, or one is confidential and the other is not.
    """
    if before is None or before.action_version != now.action_version:
        return
    if before.policy.confidential is not now.policy.confidential:
        # A process with the other code would announce it again as it was, and what follows would be in the clear.
        what = "as confidential" if before.policy.confidential else "as not confidential"
        raise SchemaChanged(
            f"{now.kind}: version {now.action_version} was announced {what}: set @action(..., "
            f"version={now.action_version + 1}), so that no runner of the other code undoes it"
        )
    if allows_schema_change:
        return
    # A release of opstream that writes types otherwise must not stop the runners of authors who have changed nothing.
    is_comparable = before.schema_format == now.schema_format > 0
    if is_comparable and (changed := now.changed_schemas(before)):
        raise SchemaChanged(
            f"{now.kind}: version {now.action_version} was announced with another schema of its "
            f"{' and its '.join(changed)}: set @action(..., version={now.action_version + 1}), so that runners of both "
            "leave each other's requests alone; or start with --allow-schema-change if no request waits that was made "
            "for the other one"
        )


def warn_of_another_schema(before: ActionSpec | None, now: ActionSpec) -> None:
    """Log a warning if an action of the same version was announced with another schema (`refuse_another_contract`)."""
    if before is None or before.action_version != now.action_version:
        return
    if changed := now.changed_schemas(before):
        logger.warning(
            "%s: version %d was announced with another schema of its %s: if you changed a type, set "
            "@action(..., version=%d), so that runners of both leave each other's requests alone "
            "(an upgrade of opstream may cause this line once)",
            now.kind,
            now.action_version,
            " and its ".join(changed),
            now.action_version + 1,
        )
