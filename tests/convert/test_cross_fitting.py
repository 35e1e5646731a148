"""Scores by shapes that never saw the row; the score's memory runs through a recording."""

import numpy as np
import pytest

from convert.convert_run import Conversion
from edge_runtime.bundle.manifest import PARTS
from edge_runtime.detector.cell import Model
from edge_runtime.detector.score import score_constants, score_parts
from edge_runtime.learning.calibrated import in_folds, measured
from edge_runtime.learning.draft import with_score_shapes
from edge_runtime.learning.linear import FOLDS, fold_spans
from edge_runtime.learning.rollout import Rollout, errors_in, remeasured, roll_all, stretch
from edge_runtime.learning.run import Run
from edge_runtime.learning.shipped import shipped_model


@pytest.fixture(scope="module")
def rollouts(model: Model, tiny_run: Run) -> list[Rollout]:
    return roll_all(model, [tiny_run.rows["calibrate"][0], tiny_run.rows["validate"][0]])


@pytest.fixture(scope="module")
def model(conversion: Conversion) -> Model:
    return shipped_model(conversion.manifest, conversion.model)


def lengths(rollouts: list[Rollout]) -> list[int]:
    return [len(r.score) for r in rollouts]


def test_recordings_come_back_whole_in_their_order(model: Model, rollouts: list[Rollout]) -> None:
    _, back = measured(model.manifest, in_folds(rollouts), lengths(rollouts))
    assert lengths(back) == lengths(rollouts)
    for one, other in zip(back, rollouts, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
        np.testing.assert_array_equal(one.flags, other.flags)


def test_the_shapes_that_ship_are_those_of_all_rows(model: Model, rollouts: list[Rollout]) -> None:
    found, _ = measured(model.manifest, in_folds(rollouts), lengths(rollouts))
    folds = [piece for fold in in_folds(rollouts) for piece in fold]
    assert found == with_score_shapes(model.manifest, folds)


def test_each_fold_is_measured_with_the_shapes_of_the_others(
    model: Model, rollouts: list[Rollout]
) -> None:
    folds = in_folds(rollouts)
    _, back = measured(model.manifest, folds, lengths(rollouts))
    for number in (0, 3, FOLDS - 1):
        others = [r for i, fold in enumerate(folds) if i != number for r in fold]
        constants = score_constants(with_score_shapes(model.manifest, others))
        recording, start, stop = fold_spans(lengths(rollouts))[number][0]
        whole = rollouts[recording]
        for row in (start, (start + stop) // 2, stop - 1):
            values = (whole.value[row], whole.doubt[row], whole.mask[row])
            parts, terms = score_parts(errors_in(whole)[row], *values, constants)
            np.testing.assert_array_equal(back[recording].raw_parts[row], parts)
            np.testing.assert_array_equal(back[recording].raw_terms[row], terms)


def test_unseen_distances_are_larger_than_those_a_covariance_saw(
    model: Model, rollouts: list[Rollout]
) -> None:
    short = [stretch(rollouts[0], 0, 60)]
    shaped, unseen = measured(model.manifest, in_folds(short), lengths(short))
    seen = remeasured(short[0], score_constants(shaped))
    distance, skip = PARTS.index("distance"), len(shaped.forecast.highway)
    fitted, honest = (r.raw_parts[skip:, distance].mean() for r in (seen, unseen[0]))
    assert honest > fitted
