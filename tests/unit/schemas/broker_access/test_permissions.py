"""The table of permissions has a row, or a reason for none, for each subject, stream and call that the code has."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import API, ActionAccess, Grant, Role, Way, permissions
from opstream_schemas.events import EVENT_DATA
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

KIND: Final = Kind("book", "upload")
SAMPLES: Final[dict[str, Any]] = {
    "event": "succeeded",
    "operation_id": "op1",
    "kind": KIND,
    "reason": "retry",
    "why": "retry",
    "resource": "book",
    "action": "upload",
    "endpoint": "billing",
    "outcome": "delivered",
    "durable": "mailer",
    "stream": "OPERATIONS",
    "sequence": 1,
    "bucket": "holds",
    "key": "h.action.book.upload.abc",
    "key_id": "4k7wq2mznb",
    "schedule_key": "nightly",
    "schedule_event": "changed",
    "tenant": "acme",
    "scope": "action.book.upload",
    "resource_id": "7",
    "is_proven": False,
    "priority": "low",
    "act": "canceled",
}
"""Arguments of the functions that make subjects, by their names."""
NO_SUBJECTS: Final = {
    "action_key": "a part of `bucket_subject`",
    "lock_key": "a part of `bucket_subject`",
    "presence_key": "a part of `bucket_subject`",
    "last_presence_key": "a part of `bucket_subject`",
    "access_key": "a part of `bucket_subject`",
    "operation_key": "a part of `bucket_subject`",
    "bucket_stream": "a stream",
    "runner_consumer": "a consumer",
    "is_wake": "a question",
    "is_deadline": "a question",
    "event_type_subject": "of a stream or consumer",
    "operation_filter": "an argument of reads and appends",
    "operation_timers_filter": "an argument of a purge",
    "events_filter": "an argument of reads",
    "fired_messages_filters": "an argument of reads",
    "runner_filters": "a consumer's",
    "priority_filter": "a consumer's",
    "queued_request_subject": "only the broker writes it",
}
OPERATORS: Final = {
    "STREAM.CREATE",
    "STREAM.UPDATE",
    "STREAM.MSG.DELETE",
    "CONSUMER.CREATE",
    "CONSUMER.DELETE",
    "STREAM.SNAPSHOT",
    "STREAM.RESTORE",
    "STREAM.DELETE",
}
"""Calls that the code makes and that no role may: of `provision`, `parked`, `backup` and `restore`, and of logins that
may make consumers."""
ERASES: Final = f"STREAM.MSG.DELETE.{subjects.bucket_stream(subjects.OPERATION_KEYS_BUCKET)}"
"""The only message that a role may delete: a key, which the broker overwrites on its disk (docs/adr/0076)."""
EVENT_WRITERS: Final = {
    "requested": {Role.API},
    "cancel-requested": {Role.API, Role.PROJECTOR},
    "canceled": {Role.API, Role.RUNNER, Role.PROJECTOR},
    "started": {Role.RUNNER},
    "progressed": {Role.RUNNER},
    "step-started": {Role.RUNNER},
    "step-succeeded": {Role.RUNNER},
    "step-failed": {Role.RUNNER},
    "waiting": {Role.RUNNER},
    "signaled": {Role.API},
    "attached": {Role.RUNNER},
    "cleaning-up": {Role.RUNNER},
    "attempt-failed": {Role.RUNNER, Role.PROJECTOR},
    "succeeded": {Role.RUNNER},
    "failed": {Role.RUNNER, Role.PROJECTOR},
}
"""Who may record what."""


def all_grants() -> dict[Role, tuple[Grant, ...]]:
    actions = (ActionAccess(KIND, "action.book.upload", has_priorities=True),)
    return {role: permissions(role, actions=actions, durable="mailer") for role in Role}


def users_of(subject: str) -> set[Role]:
    return {role for role, rows in all_grants().items() if any(_matches(row.subject, subject) for row in rows)}


def _matches(pattern: str, subject: str) -> bool:
    for part, token in itertools.zip_longest(pattern.split("."), subject.split(".")):
        if part == ">":
            return token is not None
        if part is None or token is None or part not in {"*", token}:
            return False
    return True


def makers() -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(subjects, inspect.isfunction)
    return {
        name: one for name, one in found if one.__module__ == subjects.__name__ and not name.startswith(("_", "parse_"))
    }


@pytest.mark.parametrize("name", makers())
def test_each_subject_has_a_row(name: str) -> None:
    """What a function of `subjects.py` makes may be used by a role; or the function is named here with a reason."""
    if name in NO_SUBJECTS:
        return
    maker = makers()[name]
    made = maker(**{one: SAMPLES[one] for one in inspect.signature(maker).parameters})
    for subject in [made] if isinstance(made, str) else made:
        assert users_of(subject.replace("*", "any")), (
            f"{name} makes {subject}: add its row to the table, and its attack"
        )


def test_each_event_has_its_writers() -> None:
    """Each type of event may be recorded by exactly the roles that do so."""
    assert {data.name for data in EVENT_DATA} == EVENT_WRITERS.keys()
    listeners = {row.subject for rows in all_grants().values() for row in rows if row.way is Way.LISTEN}
    for event, writers in EVENT_WRITERS.items():
        subject = subjects.event_subject("op1", KIND, event)
        found = {
            role
            for role, rows in all_grants().items()
            if any(row.way is not Way.LISTEN and _matches(row.subject, subject) for row in rows)
        }
        assert found == writers, event
    known = ("$KV.actions", "$KV.access.key", "stored.OPERATIONS.")
    assert all("cancel-requested" in one or "failed" in one or one.startswith(known) for one in listeners)


def test_no_role_makes_consumers_or_changes_streams() -> None:
    """A consumer delivers to any subject that its maker names, so no role may make one; streams are the operator's."""
    for role, rows in all_grants().items():
        for row in rows:
            words = row.subject.removeprefix(f"{API}.")
            if (role, words) == (Role.API, ERASES):
                continue
            assert not words.startswith((*OPERATORS, "CONSUMER.DURABLE")), role
            assert not re.fullmatch(r"CONSUMER\.MSG\.NEXT\..*\*.*|\$JS\.ACK\.[^.]*\.\*.*", words), role


def test_only_the_api_reads_the_secret() -> None:
    """The bucket with API keys and the secret of the installation is read by no other role, and written by none."""
    stream = subjects.bucket_stream(subjects.ACCESS_BUCKET)
    for call in (f"STREAM.MSG.GET.{stream}", f"DIRECT.GET.{stream}", f"DIRECT.GET.{stream}.$KV.access.secret"):
        assert users_of(f"{API}.{call}") == {Role.API}, call
    written = [row for rows in all_grants().values() for row in rows if row.subject.startswith("$KV.access")]
    assert [row.way for row in written] == [Way.LISTEN]


def test_a_runner_may_act_for_its_actions_only() -> None:
    """No row of a runner has another action's subject, and each row has a reason."""
    other = Kind("shop", "order")
    for subject in (
        subjects.event_subject("op1", other, "succeeded"),
        subjects.timer_subject(other, "op1", "retry"),
        subjects.fired_wake_subject(other, "op1", "retry"),
        subjects.bucket_subject("actions", subjects.action_key(other)),
        subjects.bucket_subject("holds", "h.action.shop.order.abc"),
        subjects.bucket_subject("operations", "op1"),
    ):
        assert Role.RUNNER not in users_of(subject), subject
    assert all(row.why for rows in all_grants().values() for row in rows)
    assert permissions(Role.ADMIN) == ()
