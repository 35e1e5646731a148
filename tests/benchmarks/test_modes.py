"""A healthy machine that changes its load: quiet in the modes that were known, and only there."""

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import modes
from benchmarks.gruard_detector import GruardDetector
from benchmarks.judge import Outcome
from benchmarks.modes import CASES, Quiet, measure, quiet_of, table
from train.simulate import simulate

ROWS = 6000  # to learn from, and to watch
LINEAR = GruardDetector("linear")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "WATCHED_ROWS", ROWS)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_known_modes_raise_no_alarm(case: modes.Case) -> None:
    found = measure(case, 0, LINEAR, ROWS)
    assert found.changes > 20 and found.alarms == 0


def test_a_mode_that_was_never_seen_does() -> None:
    found = measure(CASES[2], 0, LINEAR, ROWS)
    assert found.alarms > 2 and found.share > 10


def test_alarms_and_transitions_by_hand() -> None:
    load = np.repeat([20.0, 50.0, 50.5], 100)  # the last step is noise
    scores, alarms = np.ones(300), np.zeros(300, bool)
    scores[100:160], alarms[110:140], alarms[190] = 5, True, True
    outcome = Outcome([scores], [alarms], 0, 0, 0.0)
    assert quiet_of(CASES[0], 3, load, outcome) == Quiet(
        CASES[0].name, 3, 1, 2, pytest.approx(100 * 31 / 300), 5.0, 1.0
    )


def test_a_set_point_that_nobody_recorded() -> None:
    whole = simulate(100, 1)
    less = modes.without(whole, "set_point")
    assert less.channels == whole.channels[1:]
    np.testing.assert_array_equal(less.values, whole.values[:, 1:])


@pytest.mark.parametrize(("case", "code"), [(0, 1), (2, 0)])
def test_an_alarm_in_a_known_mode_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, case: int, code: int
) -> None:
    def heard(which: modes.Case, seed: int, detector: GruardDetector) -> Quiet:
        return Quiet(which.name, seed, 80, int(which is CASES[case]), 0.5, 9.0, 2.0)

    monkeypatch.setattr(modes, "measure", heard)
    result = CliRunner().invoke(modes.main, ["--seeds", "1"])
    assert result.exit_code == code
    assert table([heard(each, 0, LINEAR) for each in CASES]) in result.output
