"""Selection without labels: what is detected decides, and a larger model must gain something."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.learning.highway import fit_highway, innovation_scale
from edge_runtime.learning.linear import highway_arrays
from edge_runtime.learning.prepare import Rows
from edge_runtime.look.facts import FEWEST_NETWORK_ROWS
from train import model_choice
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig, without_unused
from train.model_choice import fit_model, hopeless
from train.selection import (
    MARGIN,
    SETTLING,
    Candidate,
    average_precision,
    choose,
    forecasts,
    judge,
    make_streams,
)
from train.training_request import Budget

EXOGENOUS = np.array([True, False, False])
SIZES = CellConfig(channels=3, gru_units=4, gate_units=4, order=3)
LINEAR = replace(SIZES, gru_layers=0, gate_layers=0)


def rows(count: int, seed: int) -> Rows:
    raw = tiny_model.machine_rows(count, seed)
    values = ((raw - raw.mean(axis=0)) / raw.std(axis=0)).astype(np.float32)
    return Rows((values,), (np.ones_like(values),))


def linear(kind: str) -> Candidate:
    train = rows(800, 1)
    highway = fit_highway(train.values, train.masks, SIZES.order, kind)  # type: ignore[arg-type]
    scale = innovation_scale(train.values, train.masks, highway)
    return Candidate(kind, LINEAR, {**highway_arrays(highway), "innovation_scale": scale})


def network() -> dict[str, np.ndarray]:
    weights = dict(linear("full").weights)
    train = rows(800, 1)
    highway = fit_highway(train.values, train.masks, SIZES.order)
    gated = (~EXOGENOUS).astype(np.float32)
    cell = AnomalyGatedGRU(SIZES, highway, weights["innovation_scale"], gated)
    rng = np.random.default_rng(0)
    random = {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32)
              for k, v in cell.arrays().items()}  # fmt: skip
    return {**weights, **random}


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    positive = np.array([True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, ~np.ones(4, bool)) == 0.0
    # A constant score knows nothing and gains nothing from ties.
    assert average_precision(np.ones(4), positive) < 0.5


@given(st.permutations(range(8)), st.integers(1, 7))
def test_average_precision_is_one_only_for_a_perfect_ranking(order: list[int], hits: int) -> None:
    scores, positive = np.array(order, float), np.arange(8) < hits
    perfect = scores[positive].min() > scores[~positive].max()
    assert (average_precision(scores, positive) == 1.0) == bool(perfect)


def test_streams_are_labelled_where_they_differ_from_the_clean_one() -> None:
    held_out = rows(700, 2)
    streams = make_streams(held_out, EXOGENOUS, 0)
    np.testing.assert_array_equal(streams.values[0], held_out.values[0])
    assert not streams.faulty[0].any() and streams.faulty[1:].any(axis=1).all()
    changed = (streams.values != streams.values[0]).any(axis=2) | (streams.masks == 0).any(axis=2)
    assert not (streams.faulty & ~changed).any()
    assert not changed[:, :SETTLING].any()
    np.testing.assert_array_equal(streams.values[:, :, 0] * streams.masks[:, :, 0],
                                  streams.values[0, :, 0] * streams.masks[:, :, 0])  # fmt: skip
    again = make_streams(held_out, EXOGENOUS, 0)
    np.testing.assert_array_equal(again.values, streams.values)
    assert (make_streams(held_out, EXOGENOUS, 1).values != streams.values).any()


def test_a_forecaster_that_knows_the_machine_is_judged_better() -> None:
    found = judge([linear("none"), linear("full")], rows(900, 3), EXOGENOUS, 0)
    assert found["full"] > found["none"] + MARGIN


def test_only_a_clear_gain_pays_for_a_larger_model() -> None:
    small, middle, large = (replace(linear("full"), name=name) for name in ("a", "b", "c"))
    candidates = [small, middle, large]
    assert choose(candidates, {"a": 0.5, "b": 0.5 + MARGIN / 2, "c": 0.5}) is small
    assert choose(candidates, {"a": 0.5, "b": 0.5 + 2 * MARGIN, "c": 0.5 + 2.5 * MARGIN}) is middle
    assert choose(candidates, {"a": 0.5, "b": 0.4, "c": 0.5 + 2 * MARGIN}) is large


def test_without_its_gate_a_network_trusts_every_reading() -> None:
    weights, held_out = network(), rows(200, 4)
    values, masks = held_out.values[0][np.newaxis], held_out.masks[0][np.newaxis]
    ungated = replace(SIZES, gate_layers=0)
    slim = without_unused(weights, ungated)
    assert not any(name.startswith(("gate_", "logit_")) for name in slim)
    assert without_unused(weights, SIZES) == weights
    a = forecasts(Candidate("gru", ungated, weights), values, masks, EXOGENOUS)
    b = forecasts(Candidate("gru", ungated, slim), values, masks, EXOGENOUS)
    np.testing.assert_array_equal(a["forecast"], b["forecast"])
    assert not a["doubt"].any()
    gated = forecasts(Candidate("gated", SIZES, weights), values, masks, EXOGENOUS)
    assert (gated["doubt"] > 0).all() and (gated["forecast"] != a["forecast"]).any()


def test_a_network_needs_rows_readings_a_second_channel_and_tensorflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "clean rows" in hopeless(FEWEST_NETWORK_ROWS - 1, 2, ())
    assert "one channel" in hopeless(FEWEST_NETWORK_ROWS, 1, ())
    assert "'heat' has no reading" in hopeless(FEWEST_NETWORK_ROWS, 2, ("heat",))
    assert hopeless(FEWEST_NETWORK_ROWS, 2, ()) == ""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert "TensorFlow" in hopeless(FEWEST_NETWORK_ROWS, 2, ())


@pytest.mark.long
@pytest.mark.parametrize(("gain", "last"), [(1.0, 5), (-1.0, 20)], ids=["too little", "enough"])
def test_a_network_that_gains_too_little_is_not_trained_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gain: float, last: int
) -> None:
    monkeypatch.setattr("train.selection.EARLY_GAIN", gain)
    said: list[str] = []
    training = model_choice.TrainingRows(
        rows(800, 1), rows(200, 2), rows(400, 3), rows(1400, 4), EXOGENOUS
    )
    budget = Budget(steps=20, windows=2, check_every=5)
    found = fit_model("auto", training, SIZES, budget, tmp_path, said.append, lambda *_: None)
    trained = json.loads((tmp_path / "metrics.json").read_text())["history"]
    assert trained[-1]["step"] == last and found.sizes.linear
    stops = [sentence for sentence in said if sentence.startswith("stopped early: ")]
    assert len(stops) == (last < 20)
    for sentence in stops:
        assert f"detector's {found.precisions['linear']:.3f}" in sentence
