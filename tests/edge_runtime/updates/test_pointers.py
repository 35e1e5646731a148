"""The pointers alone: every event, and what no order of events can bring about."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.updates.pointers import ATTEMPTS, Pointers, Rejected, Trial, from_facts

A, B, C = (letter * 64 for letter in "abc")


def test_the_first_bundle_needs_no_trial() -> None:
    assert Pointers().chosen(A) == Pointers(current=A)


def test_a_trial_that_proves_itself() -> None:
    trial = Pointers(A).chosen(B)
    assert trial == Pointers(A, trial=Trial(B, ATTEMPTS)) and trial.kept == {A, B}
    assert trial.proven(B) == Pointers(B, previous=A)
    assert trial.proven(B).chosen(C).proven(C) == Pointers(C, previous=B)


def test_a_trial_that_fails_leaves_a_reason() -> None:
    failed = Pointers(A).chosen(B).failed(B, "self-test")
    assert failed == Pointers(A, rejected=Rejected(B, "self-test"))
    assert failed.chosen(C).rejected == Rejected(B, "self-test")
    assert failed.chosen(B) == Pointers(A, trial=Trial(B, ATTEMPTS))  # asked for again


def test_attempts_are_counted_down_and_given_back() -> None:
    pointers = Pointers(A).chosen(B, 2)
    for left in (1, 0):
        pointers = pointers.attempted(B)
        assert pointers.trial == Trial(B, left)
    with pytest.raises(ValueError, match="no attempt"):
        pointers.attempted(B)
    assert pointers.spared(B).trial == Trial(B, 1)


def test_events_about_another_slot_change_nothing() -> None:
    pointers = Pointers(A).chosen(B)
    for event in (pointers.attempted, pointers.spared, pointers.proven):
        assert event(A) is event(C) is pointers
    assert pointers.failed(C, "no") is pointers


def test_choosing_the_current_one_ends_the_trial() -> None:
    assert Pointers(A).chosen(B).chosen(A) == Pointers(A)


def test_going_back_ends_a_trial_then_swaps() -> None:
    pointers = Pointers(B, previous=A)
    trial = pointers.chosen(C)
    assert trial.rolled_back().trial is None and trial.rolled_back().current == B
    back = pointers.rolled_back()
    assert (back.current, back.previous) == (A, B) and back.rejected.slot == B
    assert (back.rolled_back().current, back.rolled_back().previous) == (B, A)
    for nowhere in (Pointers(), Pointers(A)):
        with pytest.raises(GruardError, match="no bundle to roll back to"):
            nowhere.rolled_back()


def test_a_current_one_that_is_damaged_gives_its_place() -> None:
    pointers = Pointers(A, previous=B, trial=Trial(C, 2))
    assert pointers.replaced(B, "rot") == Pointers(B, None, Trial(C, 2), Rejected(A, "rot"))
    assert pointers.replaced(C, "rot") == Pointers(C, B, None, Rejected(A, "rot"))
    assert pointers.replaced(A, "rot") is pointers and Pointers().replaced(A, "") == Pointers()


EVENTS = st.tuples(
    st.sampled_from(
        ["chosen", "attempted", "spared", "proven", "failed", "rolled_back", "replaced"]
    ),
    st.sampled_from([A, B, C]),
)


@given(st.lists(EVENTS, max_size=30))
def test_whatever_happens(events: list[tuple[str, str]]) -> None:
    pointers = Pointers()
    for name, slot in events:
        before = pointers
        arguments = {"failed": (slot, "why"), "replaced": (slot, "rot"), "rolled_back": ()}.get(
            name, (slot,)
        )
        try:
            pointers = getattr(pointers, name)(*arguments)
        except (GruardError, ValueError):
            continue
        # Once there is a current one there always is, and only what was on trial becomes it.
        assert (pointers.current is None) == (pointers == Pointers())
        if before.current and pointers.current != before.current and name != "replaced":
            assert before.on_trial(pointers.current) or pointers.current == before.previous
            assert pointers.previous == before.current and pointers.trial is None
        assert not (pointers.current and pointers.on_trial(pointers.current))
        assert from_facts(json.loads(json.dumps(asdict(pointers)))) == pointers


GOOD = asdict(Pointers(A, B, Trial(C, 1), Rejected(B, "why")))


@pytest.mark.parametrize(
    "change",
    [
        {"current": None}, {"current": "abc"}, {"current": 7}, {"extra": 1},
        {"trial": {"slot": C}}, {"trial": {"slot": None, "attempts": 1}}, {"trial": []},
        {"trial": {"slot": C, "attempts": -1}}, {"trial": {"slot": C, "attempts": True}},
        {"rejected": {"slot": B, "reason": None}}, {"rejected": {"slot": "../b", "reason": ""}},
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(change: dict[str, object]) -> None:
    assert from_facts(GOOD)
    with pytest.raises(ValueError, match=r"."):
        from_facts(GOOD | change)
