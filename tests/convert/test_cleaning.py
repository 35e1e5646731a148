"""What is left out of a clean recording, and what stays although it is rare."""

from dataclasses import replace

import numpy as np
import pytest

from convert.convert_run import Conversion
from edge_runtime.learning.cleaning import MOST, WIDENED, kept_rows
from edge_runtime.learning.rollout import Rollout, roll
from edge_runtime.learning.run import Run
from edge_runtime.learning.shipped import shipped_model

BOTH = np.array([False, True, True])
COUNT, CHANNELS = 3000, 3


@pytest.fixture(scope="module")
def rolled(conversion: Conversion, tiny_run: Run) -> Rollout:
    return roll(shipped_model(conversion.manifest, conversion.model), tiny_run.rows["train"][0])


def machine(rolled: Rollout, strange: dict[int, float], seed: int = 0) -> Rollout:
    """A recording whose readings stand `strange` scales away from each row for ten rows."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(COUNT, CHANNELS)).astype(np.float32)
    score = rng.normal(size=COUNT).astype(np.float32)
    for start, far in strange.items():
        value[start : start + 10] = far + 0.1 * value[start : start + 10]
        score[start : start + 10] += 20
    return replace(rolled, value=value, mask=np.ones_like(value), score=score)


def left_out(rolled: Rollout, strange: dict[int, float], scored: np.ndarray = BOTH) -> np.ndarray:
    (kept,) = kept_rows([machine(rolled, strange)], scored)
    return np.flatnonzero(~kept)


def test_a_stretch_like_no_other_is_left_out_with_a_margin(rolled: Rollout) -> None:
    found = left_out(rolled, {700: 12.0})
    np.testing.assert_array_equal(found, np.arange(700 - WIDENED, 710 + WIDENED))


def test_a_rare_mode_that_comes_back_stays(rolled: Rollout) -> None:
    made = machine(rolled, {300: 0.0})
    for visit in (280, 900, 1700):
        made.value[visit : visit + 50] = 12 + 0.1 * made.value[visit : visit + 50]
    (kept,) = kept_rows([made], BOTH)
    assert kept.all()
    made.value[700:], made.value[900:950] = machine(rolled, {}).value[700:], 0
    (kept,) = kept_rows([made], BOTH)
    assert not kept[300:310].any()  # it came but once


def test_a_high_score_alone_is_no_reason(rolled: Rollout) -> None:
    """The score has jumped, but the machine stands where it often stands."""
    assert not len(left_out(rolled, {700: 0.0}))


def test_a_strange_place_alone_is_no_reason(rolled: Rollout) -> None:
    made = machine(rolled, {700: 12.0})
    (kept,) = kept_rows([replace(made, score=np.zeros(COUNT, np.float32))], BOTH)
    assert kept.all()


def test_a_machine_is_not_cleaned_away(rolled: Rollout) -> None:
    starts = range(50, COUNT - 50, 100)
    rng = np.random.default_rng(1)
    strange = {start: float(rng.uniform(10, 500)) for start in starts}
    kept = COUNT - len(left_out(rolled, strange))
    assert kept >= COUNT * (1 - MOST * (10 + 2 * WIDENED) / 5)


def test_an_input_is_no_witness_and_one_channel_has_none(rolled: Rollout) -> None:
    made = machine(rolled, {700: 12.0})
    made.value[:, 1:] = machine(rolled, {}).value[:, 1:]
    (kept,) = kept_rows([made], BOTH)
    assert kept.all()
    assert not len(left_out(rolled, {700: 12.0}, scored=np.array([False, True, False])))


def test_recordings_are_told_apart(rolled: Rollout) -> None:
    first, second = kept_rows([machine(rolled, {}), machine(rolled, {40: 12.0}, seed=1)], BOTH)
    assert first.all() and (~second).sum() == 10 + 2 * WIDENED and not second[40:50].any()


def test_a_short_recording_is_not_cleaned(rolled: Rollout) -> None:
    made = machine(rolled, {700: 12.0})
    short = replace(made, value=made.value[:2000], mask=made.mask[:2000], score=made.score[:2000])
    (kept,) = kept_rows([short], BOTH)
    assert kept.all()
