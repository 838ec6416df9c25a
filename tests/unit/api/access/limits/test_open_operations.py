"""What counts as open: submits of this process, and events in whichever order they are seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.access.limits.open_operations import OpenOperations
from opstream_api.access.principal import Owner

pytestmark = pytest.mark.unit

ANN, BOB = Owner("acme", "ann"), Owner("evil", "ann")


@st.composite
def stories(draw: st.DrawFn) -> list[str]:
    """The steps of an operation that this process submits: its events come before or after the answer."""
    is_stored, has_ended = draw(st.booleans()), draw(st.booleans())
    answer = "stored" if is_stored and draw(st.booleans()) else "unknown"
    events = (["requested"] + (["ended"] if has_ended else [])) if is_stored else []
    place = draw(st.integers(0, len(events)))
    return ["begin", *events[:place], answer, *events[place:]]


@given(st.lists(st.tuples(st.sampled_from([ANN, BOB]), stories()), max_size=12), st.randoms())
def test_in_the_end_exactly_what_is_open_counts(told: list[tuple[Owner, list[str]]], random: object) -> None:
    """However the steps of several operations are mixed, and whatever the journal's answers were."""
    counted = OpenOperations(5)
    left = {str(number): list(steps) for number, (_, steps) in enumerate(told)}
    owners = {str(number): owner for number, (owner, _) in enumerate(told)}
    while left:
        one = random.choice(sorted(left))  # type: ignore[attr-defined] # a Random
        step = left[one].pop(0)
        if step == "begin":
            counted.begin(one, owners[one])
        elif step == "requested":
            counted.add(one, owners[one])
        elif step == "ended":
            counted.end(one)
        else:
            counted.settle(one, sequence=1 if step == "stored" else 0)
        if not left[one]:
            del left[one]
    for owner in (ANN, BOB):
        expected = [steps for one, steps in told if one == owner and "requested" in steps and "ended" not in steps]
        assert counted.count(owner) == len(expected)


def test_a_burst_does_not_get_past_the_limit() -> None:
    """What is being submitted counts before it is stored; another caller has a limit of its own."""
    counted = OpenOperations(2)
    for one in ("a", "b"):
        assert not counted.is_full(one, ANN)
        assert counted.begin(one, ANN)
    assert counted.is_full("c", ANN)
    assert not counted.is_full("a", ANN), "a repeated request is no new operation"
    assert not counted.is_full("c", BOB)
    assert not counted.begin("a", ANN)
    counted.settle("b", sequence=0)
    assert not counted.is_full("c", ANN)


def test_a_survey_replaces_all_but_what_is_being_submitted() -> None:
    """Ends that were missed are forgotten, and a submit that is under way still counts once. One that the survey found
    is stored, whatever becomes of its answer."""
    counted = OpenOperations(9)
    counted.add("ended meanwhile", ANN)
    for one in ("found", "under way"):
        counted.begin(one, ANN)
    counted.replace({"open": ANN, "found": ANN}, 10)
    assert counted.count(ANN) == 3
    for one in ("found", "under way"):
        counted.settle(one, sequence=0)
    assert counted.count(ANN) == 2


@pytest.mark.parametrize(("sequence", "left"), [(9, 0), (10, 1)])
def test_an_operation_that_ends_in_a_gap(sequence: int, left: int) -> None:
    """Its request was stored, and answered only after the connection was back: no event of it will be seen, so a survey
    that has not found it open is right. Of one that is stored later the events will be seen."""
    counted = OpenOperations(9)
    counted.begin("answered late", ANN)
    counted.replace({}, 10)
    counted.settle("answered late", sequence=sequence)
    assert counted.count(ANN) == left


def test_the_memory_is_bounded() -> None:
    """What is not counted is not refused, and its end takes nothing from what is."""
    counted = OpenOperations(9, max_tracked=2)
    for number in range(5):
        counted.add(str(number), ANN)
    assert (len(counted), counted.count(ANN)) == (2, 2)
    counted.end("4")
    counted.end("0")
    assert counted.count(ANN) == 1
