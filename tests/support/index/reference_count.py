"""What a count is, row by row, without SQL."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final
from unittest import mock

from hypothesis import strategies as st

from opstream_index.counts import reader
from opstream_index.counts.group_field import GroupField, parse_group_field
from opstream_index.counts.reader import CountQuery, CountReader, CountResult
from opstream_index.counts.tally import Group, duration_bucket
from opstream_index.lists import sql
from opstream_index.operation_row import OperationRow

from .reference_list import matches

group_fields: Final = st.none() | st.sampled_from(
    ["status", "kind", "error/code", "caller", "resourceId", "label/team", "label/a.b/c-d"]
).map(parse_group_field)

Numbers = dict[tuple[str | None, str], int]
"""The number of operations by group and status."""


def reference_numbers(found: list[OperationRow], query: CountQuery) -> Numbers:
    """Return the numbers of a count."""
    numbers: Counter[tuple[str | None, str]] = Counter()
    for one in found:
        is_visible = one.tenant == query.scope.tenant and query.scope.caller in {None, one.caller}
        if is_visible and matches(query.term, one):
            numbers[_key(query.group_field, one), one.status] += 1
    return dict(numbers)


def reference_buckets(found: list[OperationRow]) -> Counter[int]:
    """Return how many of these operations have which duration."""
    return Counter(
        duration_bucket(one.finished_at - one.started_at)
        for one in found
        if one.started_at is not None and one.finished_at is not None
    )


def counted(counts: CountReader, query: CountQuery, step: int) -> CountResult:
    """Return a count whose steps read so many rows."""
    with mock.patch.object(reader, "STEP", step), mock.patch.object(sql, "PROBE", 2):
        return counts.count(query, now=0)


def numbers_of(count: CountResult) -> Numbers:
    """Return the numbers of a count as the reference has them, whose sums are those of the whole."""
    groups = count.groups or [count.whole]
    whole: Counter[str] = Counter()
    for group in groups:
        whole.update(group.statuses)
        assert group.number == sum(group.statuses.values())
    assert whole == Counter(count.whole.statuses)
    assert [group.number for group in groups] == sorted((group.number for group in groups), reverse=True)
    return {(group.key, status): number for group in groups for status, number in group.statuses.items()}


def group_of(count: CountResult, key: str | None) -> Group:
    """Return the group with a key."""
    (found,) = [group for group in count.groups if group.key == key]
    return found


def _key(group_field: GroupField | None, one: OperationRow) -> str | None:
    if group_field is None:
        return None
    if group_field.label:
        label: str | None = json.loads(one.labels or "{}").get(group_field.label)
        return label
    values = [getattr(one, column) or None for column in group_field.columns]
    return None if None in values else ":".join(values)
