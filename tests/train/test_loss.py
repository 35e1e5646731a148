"""The loss: what counts, what does not, and what it is worth."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from train.cell import AnomalyGatedGRU, CellConfig
from train.highway import Highway
from train.loss import BURN_IN, DETECTABLE, FAULT_WEIGHT, STATE_WEIGHT, losses

WINDOWS, TIME, CHANNELS, UNITS = 2, BURN_IN + 8, 3, 4
SCALE = np.array([0.5, 1.0, 2.0], np.float32)
SURE = 100.0  # a logit without doubt
SHAPE = (WINDOWS, TIME, CHANNELS)
BOTH = CellConfig(channels=CHANNELS, gru_units=UNITS, gate_units=UNITS, order=2)


class Oracle:
    """Stands where the model stands and gives the answers it was given."""

    def __init__(self, config: CellConfig = BOTH, **answers: np.ndarray) -> None:
        self.config = config
        self.innovation_scale = SCALE
        self.gated = np.array([1, 1, 0], np.float32)
        self.answers = {
            name: tf.Variable(value, dtype=tf.float32) for name, value in answers.items()
        }

    def __call__(
        self, values: tf.Tensor, masks: tf.Tensor, state_noise: float
    ) -> dict[str, tf.Tensor]:
        return {name: tf.convert_to_tensor(value) for name, value in self.answers.items()}


def clean_batch() -> dict[str, np.ndarray]:
    clean = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    ones, zeros = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    return {
        "clean": clean,
        "clean_mask": ones.copy(),
        "faulty": clean.copy(),
        "faulty_mask": ones.copy(),
        "fault": zeros,
    }


def put_fault(batch: dict[str, np.ndarray], channel: int, sizes: float, rows: slice) -> None:
    """A labelled deviation of `sizes` innovation scales in the first window."""
    batch["faulty"][0, rows, channel] += sizes * SCALE[channel]
    batch["fault"][0, rows, channel] = 1


def perfect(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    target = np.concatenate([batch["clean"]] * 2)
    fault = np.concatenate([np.zeros(SHAPE), batch["fault"]])
    return {
        "forecast": target,
        "trusted": target.copy(),
        "logit": SURE * (1 - 2 * fault),
        "state": np.full((2 * WINDOWS, TIME, UNITS), 0.3),
    }


def loss(
    batch: dict[str, np.ndarray], answers: dict[str, np.ndarray], config: CellConfig = BOTH
) -> dict[str, float]:
    tensors = {name: tf.constant(value, tf.float32) for name, value in batch.items()}
    found = losses(Oracle(config, **answers), tensors)  # type: ignore[arg-type]
    return {name: float(value) for name, value in found.items()}


ROWS = slice(BURN_IN + 2, BURN_IN + 6)


def test_a_perfect_answer_costs_nothing() -> None:
    batch = clean_batch()
    put_fault(batch, 0, 5.0, ROWS)
    found = loss(batch, perfect(batch))
    assert found == dict.fromkeys(("total", "forecast", "gate", "state"), 0.0)


@pytest.mark.parametrize("name", ["forecast", "trusted", "logit", "state"])
def test_each_wrong_answer_costs_something(name: str) -> None:
    batch = clean_batch()
    answers = perfect(batch)
    answers[name][-1, -1] -= 150.0
    assert loss(batch, answers)["total"] > 0


@pytest.mark.parametrize("name", ["forecast", "trusted", "logit", "state"])
def test_the_burn_in_does_not_count(name: str) -> None:
    batch = clean_batch()
    answers = perfect(batch)
    answers[name][:, :BURN_IN] -= 150.0
    assert loss(batch, answers)["total"] == 0


def test_where_the_clean_reading_is_unknown_no_forecast_is_judged() -> None:
    batch = clean_batch()
    answers = perfect(batch)
    batch["clean_mask"][1, -3:, 1] = batch["faulty_mask"][1, -3:, 1] = 0
    for name in ("forecast", "trusted", "logit"):
        answers[name][1, -3:, 1] -= 150.0
        answers[name][WINDOWS + 1, -3:, 1] -= 150.0
    assert loss(batch, answers)["total"] == 0


def test_the_forecast_is_held_to_the_clean_signal_not_the_faulty_one() -> None:
    batch = clean_batch()
    put_fault(batch, 1, 3.0, ROWS)
    answers = perfect(batch)
    answers["forecast"] = np.concatenate([batch["clean"], batch["faulty"]])
    cells = 2 * WINDOWS * (TIME - BURN_IN) * CHANNELS
    # Beyond two scales the error counts linearly: 2 (3 - 1) = 4 in each of the four rows.
    assert loss(batch, answers)["forecast"] == pytest.approx(4 * 4 / cells, rel=1e-5)


@pytest.mark.parametrize("sizes", [0.1, 0.95 * DETECTABLE])
def test_an_invisible_fault_weighs_nothing(sizes: float) -> None:
    batch = clean_batch()
    put_fault(batch, 0, sizes, ROWS)
    answers = perfect(batch)
    for verdict in (SURE, -SURE):
        answers["logit"][WINDOWS, ROWS, 0] = verdict
        assert loss(batch, answers)["gate"] == 0


def test_a_visible_fault_that_is_missed_weighs_five_false_closings() -> None:
    missed, false_alarm = clean_batch(), clean_batch()
    put_fault(missed, 0, 1.05 * DETECTABLE, slice(BURN_IN, BURN_IN + 1))
    answers = perfect(missed)
    answers["logit"][WINDOWS, BURN_IN, 0] = SURE
    cells = 2 * WINDOWS * (TIME - BURN_IN) * 2  # the exogenous channel is not judged
    expected = FAULT_WEIGHT * SURE / (cells - 1 + FAULT_WEIGHT)
    assert loss(missed, answers)["gate"] == pytest.approx(expected, rel=1e-5)
    answers = perfect(false_alarm)
    answers["logit"][0, BURN_IN, 0] = -SURE
    assert loss(false_alarm, answers)["gate"] == pytest.approx(SURE / cells, rel=1e-5)
    assert FAULT_WEIGHT == 5


def test_a_reading_that_dropped_out_asks_nothing_of_the_gate() -> None:
    batch = clean_batch()
    put_fault(batch, 0, 5.0, ROWS)
    batch["faulty_mask"][0, ROWS, 0] = 0
    answers = perfect(batch)
    answers["logit"][WINDOWS, ROWS, 0] = SURE
    assert loss(batch, answers)["gate"] == 0


def test_the_gate_of_an_exogenous_channel_is_not_judged() -> None:
    batch = clean_batch()
    answers = perfect(batch)
    answers["logit"][..., 2] = -SURE
    assert loss(batch, answers)["gate"] == 0


def test_only_the_faulty_state_is_pulled_towards_the_clean_one() -> None:
    batch = clean_batch()
    answers = perfect(batch)
    answers["state"][WINDOWS:] += 0.5
    oracle = Oracle(**answers)
    tensors = {name: tf.constant(value, tf.float32) for name, value in batch.items()}
    with tf.GradientTape() as tape:
        state = losses(oracle, tensors)["state"]  # type: ignore[arg-type]
    assert float(state) == pytest.approx(0.25)
    gradient = np.asarray(tape.gradient(state, oracle.answers["state"]))
    assert not gradient[:WINDOWS].any() and (gradient[WINDOWS:, BURN_IN:] > 0).all()


def real_model(config: CellConfig = BOTH) -> AnomalyGatedGRU:
    own = np.full((2, CHANNELS), 0.4, np.float32)
    highway = Highway(own, np.zeros((0, 0), np.float32))
    return AnomalyGatedGRU(config, highway, SCALE, np.array([1, 1, 0], np.float32), seed=1)


GATE_ALONE, GRU_ALONE = replace(BOTH, gru_layers=0), replace(BOTH, gate_layers=0)


def test_what_a_model_lacks_costs_it_nothing() -> None:
    batch = clean_batch()
    put_fault(batch, 0, 5.0, ROWS)
    answers = perfect(batch)
    answers["logit"] -= 1.0 + 2 * answers["logit"]
    answers["state"][WINDOWS:] += 0.5
    both = loss(batch, answers)
    assert both["gate"] > 0 and both["state"] == pytest.approx(0.25)
    del answers["state"]
    assert loss(batch, answers, GATE_ALONE) == {**both, "state": 0.0, "total": pytest.approx(
        both["total"] - STATE_WEIGHT * both["state"], rel=1e-6
    )}  # fmt: skip
    answers["state"] = perfect(batch)["state"] + 0.5
    nothing = dict.fromkeys(("total", "forecast", "gate", "state"), 0.0)
    assert loss(batch, answers, GRU_ALONE) == nothing


@pytest.mark.parametrize("config", [BOTH, GATE_ALONE, GRU_ALONE], ids=str)
def test_every_weight_of_every_model_can_learn(config: CellConfig) -> None:
    batch = clean_batch()
    put_fault(batch, 0, 5.0, ROWS)
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    model, rng = real_model(config), np.random.default_rng(0)
    arrays = model.arrays()
    model.assign({k: (v + rng.normal(0, 0.2, v.shape)).astype("f4") for k, v in arrays.items()})
    with tf.GradientTape() as tape:
        total = losses(model, tensors)["total"]
    names = list(model.kernels)
    gradients = tape.gradient(total, [model.kernels[name].value for name in names])
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient is not None and np.asarray(gradient).any(), name


def test_a_twin_without_faults_has_the_clean_state() -> None:
    batch = clean_batch()
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    assert float(losses(real_model(), tensors)["state"]) < 1e-12
    put_fault(batch, 0, 5.0, ROWS)
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    assert float(losses(real_model(), tensors)["state"]) > 1e-6
