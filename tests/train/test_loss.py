"""The loss: what counts, what does not, and what it is worth."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from edge_runtime.learning.highway import Highway
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig
from train.loss import (
    AFTER_WEIGHT,
    BURN_IN,
    DETECTABLE,
    FAULT_WEIGHT,
    GATE_WEIGHT,
    LABELLED_WEIGHT,
    LARGEST_LOGIT,
    LONGEST_MEMORY,
    MEMORY_WEIGHT,
    STATE_WEIGHT,
    losses,
)

WINDOWS, TIME, CHANNELS, UNITS = 2, BURN_IN + 8, 3, 4
SCALE = np.array([0.5, 1.0, 2.0], np.float32)
SURE = 100.0  # a logit without doubt
SHAPE = (WINDOWS, TIME, CHANNELS)
BOTH = CellConfig(channels=CHANNELS, gru_units=UNITS, gate_units=UNITS, order=2)


@pytest.fixture(autouse=True)
def _any_logit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers without doubt are free here; what int8 makes of them has tests of its own."""
    if "int8" not in request.node.name:
        monkeypatch.setattr("train.loss.LARGEST_LOGIT", 1e3)


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
        "update": np.full((2 * WINDOWS, TIME, UNITS), 0.5),
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
    put_fault(missed, 0, 1.05 * DETECTABLE, slice(TIME - 1, TIME))
    answers = perfect(missed)
    answers["logit"][WINDOWS, -1, 0] = SURE
    cells = 2 * WINDOWS * (TIME - BURN_IN) * 2  # the exogenous channel is not judged
    expected = FAULT_WEIGHT * SURE / (cells - 1 + FAULT_WEIGHT)
    assert loss(missed, answers)["gate"] == pytest.approx(expected, rel=1e-5)
    answers = perfect(false_alarm)
    answers["logit"][0, BURN_IN, 0] = -SURE
    assert loss(false_alarm, answers)["gate"] == pytest.approx(SURE / cells, rel=1e-5)
    assert FAULT_WEIGHT == 5


@pytest.mark.parametrize(
    ("row", "channel", "weight"),
    [(ROWS.start - 1, 0, 1.0), (ROWS.stop, 0, AFTER_WEIGHT), (TIME - 1, 0, AFTER_WEIGHT),
     (TIME - 1, 1, 1.0)],
    ids=["before it", "after it", "long after it", "another channel"],
)  # fmt: skip
def test_a_gate_that_stays_shut_after_its_fault_weighs_a_missed_fault(
    row: int, channel: int, weight: float
) -> None:
    batch = clean_batch()
    put_fault(batch, 0, 5.0, ROWS)
    answers = perfect(batch)
    answers["logit"][WINDOWS, row, channel] = -SURE
    faulty, after = ROWS.stop - ROWS.start, TIME - ROWS.stop
    cells = 2 * WINDOWS * (TIME - BURN_IN) * 2 - faulty - after
    cells += faulty * FAULT_WEIGHT + after * AFTER_WEIGHT
    assert loss(batch, answers)["gate"] == pytest.approx(weight * SURE / cells, rel=1e-5)
    assert AFTER_WEIGHT == FAULT_WEIGHT


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


def test_a_logit_that_coarsens_int8_costs_whichever_side_it_is_on() -> None:
    batch, costs = clean_batch(), []
    for logit in (LARGEST_LOGIT, LARGEST_LOGIT + 1, -LARGEST_LOGIT - 1):
        answers = perfect(batch)
        answers["logit"] = np.full_like(answers["logit"], logit)
        found = loss(batch, answers)
        costs.append(found["total"] - GATE_WEIGHT * found["gate"])
    assert costs == pytest.approx([0, 1, 1], abs=1e-5)


@pytest.mark.parametrize(("memory", "cost"), [(2, 0), (LONGEST_MEMORY, 0), (100, 1), (1e5, 1)])
def test_a_memory_that_int8_cannot_hold_costs_its_logarithm(memory: float, cost: int) -> None:
    batch = clean_batch()
    answers = perfect(batch)
    answers["logit"] = np.full_like(answers["logit"], LARGEST_LOGIT)
    free = loss(batch, answers)["total"]
    answers["update"][:] = 1 - 1 / memory
    expected = cost * MEMORY_WEIGHT * np.log(memory / LONGEST_MEMORY)
    assert loss(batch, answers)["total"] - free == pytest.approx(expected, abs=1e-3)
    assert loss(batch, answers, GATE_ALONE)["total"] == pytest.approx(free)


def test_however_long_a_memory_int8_loss_still_pulls_at_it() -> None:
    batch = clean_batch()
    answers = perfect(batch)
    oracle = Oracle(**answers)
    logit = tf.Variable(np.full(answers["update"].shape, 9.0, np.float32))
    tensors = {name: tf.constant(value, tf.float32) for name, value in batch.items()}
    with tf.GradientTape() as tape:
        oracle.answers["update"] = tf.sigmoid(logit)
        total = losses(oracle, tensors)["total"]  # type: ignore[arg-type]
    gradient = tape.gradient(total, logit).numpy()[:, BURN_IN:]
    each = MEMORY_WEIGHT / gradient.size
    np.testing.assert_allclose(gradient, each, rtol=0.01)


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


OTHERS = 3  # labelled windows: an event of four rows in the first, of one in the second, none
EVENTS = [(0, ROWS), (1, slice(BURN_IN + 3, BURN_IN + 4))]


def labelled_batch() -> dict[str, np.ndarray]:
    values = np.random.default_rng(1).normal(size=(OTHERS, TIME, CHANNELS)).astype(np.float32)
    label = np.zeros((OTHERS, TIME), np.float32)
    for window, rows in EVENTS:
        label[window, rows] = 1
    ones = np.ones_like(values)
    return {**clean_batch(), "labelled": values, "labelled_mask": ones, "label": label}


def labelled_answers(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Perfect answers: one gate closes in an event, all are open elsewhere."""
    answers = perfect(batch)
    for name in ("forecast", "trusted"):
        answers[name] = np.concatenate([answers[name], batch["labelled"]])
    logit = np.full((OTHERS, TIME, CHANNELS), SURE)
    logit[..., 1] *= 1 - 2 * batch["label"]
    answers["logit"] = np.concatenate([answers["logit"], logit])
    answers["state"] = np.concatenate([answers["state"], np.zeros((OTHERS, TIME, UNITS))])
    answers["update"] = np.concatenate([answers["update"], np.zeros((OTHERS, TIME, UNITS))])
    return answers


def test_on_a_labelled_row_one_closed_gate_is_enough_whichever_it_is() -> None:
    batch = labelled_batch()
    answers = labelled_answers(batch)
    names = ("total", "forecast", "gate", "state", "labelled")
    assert loss(batch, answers) == dict.fromkeys(names, 0.0)
    logit = answers["logit"][-OTHERS:]
    for window, rows in EVENTS:  # the other watched channel instead
        logit[window, rows] = [-SURE, SURE, SURE]
    assert loss(batch, answers)["total"] == 0
    for window, rows in EVENTS:  # that of the exogenous channel does not count
        logit[window, rows] = [SURE, SURE, -SURE]
    found = loss(batch, answers)
    assert found["labelled"] > 60
    worth = LABELLED_WEIGHT * OTHERS / WINDOWS  # each window its own share, however many pairs
    assert found["total"] == pytest.approx(GATE_WEIGHT * worth * found["labelled"])
    assert found["gate"] == 0


@pytest.mark.parametrize("logits", [(3.0, 5.0), (-1.0, 0.5), (0.0, 20.0), (30.0, 31.0)])
def test_the_bag_loss_is_that_of_the_formula(logits: tuple[float, float]) -> None:
    batch = labelled_batch()
    answers = labelled_answers(batch)
    for window, rows in EVENTS:
        answers["logit"][2 * WINDOWS + window, rows, :2] = logits
    # 1 - prod logistic(l), of which a plain product of floats would leave nothing to see at 30.
    doubt = np.log1p(np.exp(-np.array(logits, np.float64))).sum()
    assert loss(batch, answers)["labelled"] == pytest.approx(-np.log(-np.expm1(-doubt)), rel=1e-4)


@pytest.mark.parametrize("sure", [0.0, 5.0, 40.0])
def test_a_missed_event_pulls_every_watched_gate_however_sure_it_is(sure: float) -> None:
    batch = labelled_batch()
    answers = labelled_answers(batch)
    answers["logit"][-OTHERS:] = sure
    oracle = Oracle(**answers)
    tensors = {name: tf.constant(value, tf.float32) for name, value in batch.items()}
    with tf.GradientTape() as tape:
        found = losses(oracle, tensors)["labelled"]  # type: ignore[arg-type]
    gradient = np.asarray(tape.gradient(found, oracle.answers["logit"]))[-OTHERS:]
    for window, rows in EVENTS:
        pull = gradient[window, rows]
        assert (pull[:, :2] > 1e-3).all() and not pull[:, 2].any()
    assert np.isfinite(gradient).all()


def test_off_the_labelled_rows_each_gate_must_stay_open() -> None:
    batch = labelled_batch()
    answers = labelled_answers(batch)
    answers["logit"][-1, -1, 0] = -SURE
    cells = 2 * (OTHERS * (TIME - BURN_IN) - 5)  # two watched channels, five labelled rows
    assert loss(batch, answers)["labelled"] == pytest.approx(SURE / cells, rel=1e-5)
    answers["logit"][-1, -1] = [SURE, SURE, -SURE]
    assert loss(batch, answers)["labelled"] == 0


def test_a_short_event_counts_as_much_as_a_long_one() -> None:
    found = []
    for window, rows in EVENTS:
        batch = labelled_batch()
        answers = labelled_answers(batch)
        answers["logit"][2 * WINDOWS + window, rows] = 2.0
        found.append(loss(batch, answers)["labelled"])
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > 0.5


@pytest.mark.parametrize("name", ["forecast", "trusted"])
def test_no_forecast_is_judged_on_a_labelled_row_only_beside_it(name: str) -> None:
    batch = labelled_batch()
    answers = labelled_answers(batch)
    for window, rows in EVENTS:
        batch["labelled"][window, rows] += 40.0
        answers[name][2 * WINDOWS + window, rows] -= 150.0
    assert loss(batch, answers)["total"] == 0
    batch["labelled"][0, ROWS.stop] += 1.0
    assert loss(batch, answers)["total"] > 0


def test_a_missing_reading_explains_a_label_and_is_not_judged() -> None:
    batch = labelled_batch()
    answers = labelled_answers(batch)
    answers["logit"][-OTHERS:] = SURE
    for window, rows in EVENTS:
        batch["labelled_mask"][window, rows, 2] = 0
    assert loss(batch, answers)["labelled"] > 60  # the exogenous channel explains nothing
    for window, rows in EVENTS:
        batch["labelled_mask"][window, rows, 0] = 0
    assert loss(batch, answers)["labelled"] == 0
    batch["labelled_mask"][-1, -1, 0] = 0
    answers["logit"][-1, -1, 0] = -SURE
    answers["forecast"][-1, -1, 0] -= 150.0
    assert loss(batch, answers)["total"] == 0


@pytest.mark.parametrize("name", ["forecast", "trusted", "logit", "state"])
def test_the_burn_in_of_a_labelled_window_and_its_state_do_not_count(name: str) -> None:
    batch = labelled_batch()
    answers = labelled_answers(batch)
    rows = slice(None) if name == "state" else slice(BURN_IN)
    answers[name][-OTHERS:, rows] -= 150.0
    assert loss(batch, answers)["total"] == 0


def test_labelled_windows_change_nothing_that_is_asked_of_the_pairs() -> None:
    batch = labelled_batch()
    put_fault(batch, 0, 5.0, ROWS)
    answers = labelled_answers(batch)
    answers["logit"][: 2 * WINDOWS] *= -0.02
    answers["state"][WINDOWS : 2 * WINDOWS] += 0.5
    with_labels = loss(batch, answers)
    pairs = {name: batch[name] for name in clean_batch()}
    alone = loss(pairs, {name: value[: 2 * WINDOWS] for name, value in answers.items()})
    assert "labelled" not in alone and with_labels["labelled"] == 0
    assert {name: with_labels[name] for name in alone} == alone


def test_a_real_model_learns_from_labelled_rows_what_it_is_asked() -> None:
    batch = {name: tf.constant(value) for name, value in labelled_batch().items()}
    model = real_model()
    with tf.GradientTape() as tape:
        found = losses(model, batch)["labelled"]
    gradient = tape.gradient(found, model.kernels["logit_kernel"].value)
    assert float(found) > 0 and np.asarray(gradient).any()
