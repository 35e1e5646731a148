"""Real devices, a broker, a web server, and what goes wrong with all of them."""

import pytest

pytest.importorskip("tuf", reason="updates are not tested: pip install '.[fleet]'")

from tests.fleet.fleet_rig import Outcome, play, rig

DEVICES, OFF = 6, 1


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    with rig(DEVICES, "4s", print) as made:
        return play(made, OFF)


@pytest.mark.long
def test_a_good_version_reaches_every_device(outcome: Outcome) -> None:
    code, facts = outcome.first
    assert (code, facts["state"], facts["counts"]) == (0, "finished", {"committed": DEVICES})


@pytest.mark.long
def test_a_bad_version_stops_in_the_first_stage(outcome: Outcome) -> None:
    code, facts = outcome.bad
    assert (code, facts["state"], facts["stage"]) == (1, "stopped", 1)
    assert 1 <= len(outcome.tried_bad) <= 1
    assert "self-test failed" in facts["reason"]


@pytest.mark.long
def test_the_next_version_reaches_every_device_whatever_was_away(outcome: Outcome) -> None:
    code, facts = outcome.last
    assert (code, facts["state"]) == (0, "finished")
    assert outcome.versions == {4: DEVICES}


@pytest.mark.long
def test_no_device_ends_without_a_working_detector(outcome: Outcome) -> None:
    assert all(each.last_valid for each in outcome.evidence)
    assert sum(each.missing + each.unmarked for each in outcome.evidence) == 0
    assert {*outcome.codes} == {0, -15}  # a run ends in good order, an update at once
