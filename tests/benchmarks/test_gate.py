"""The gate's ablation: figures of arrays done by hand, and what each variant really does."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_model

from benchmarks import gate_training
from benchmarks.accuracy_report import Result
from benchmarks.gate import COLUMNS, tables
from benchmarks.gate_figures import disturbance, last_quarter, recall, standing, threshold_at
from benchmarks.gate_streams import LONG_KINDS, LONG_ROWS, faulty_streams, told, visible
from benchmarks.gate_training import Material, UnprotectedGRU, train_variant, untrained
from benchmarks.gate_variants import VARIANTS, Batch, Variant, curriculum_sizes, shown
from train.batches import FAULT_SIZES, Rows, draw_batch
from train.cell import AnomalyGatedGRU
from train.faults import Fault, FaultEvent
from train.fit import Budget, fit

EXOGENOUS = np.array([True, False, False])
TINY = Budget(steps=4, windows=2, check_every=2)


def rows(count: int, seed: int = 1) -> Rows:
    """The tiny machine, standardised."""
    raw = tiny_model.machine_rows(count, seed)
    values = ((raw - raw.mean(axis=0)) / raw.std(axis=0)).astype(np.float32)
    return Rows((values,), (np.ones_like(values),))


def event(start: int, stop: int, channels: tuple[int, ...]) -> FaultEvent:
    return FaultEvent(Fault.LEVEL, start, stop, channels, 3.0)


def test_disturbance_counts_other_channels_during_and_all_channels_after() -> None:
    clean = np.ones((60, 2))
    errors = clean.copy()
    errors[10:14, 0] = 99.0  # the faulty channel itself does not count
    errors[10, 1] = 99.0  # nor does the first row, whose forecast was made before
    errors[11:14, 1] = 3.0
    errors[14:44] = 2.0
    errors[44:] = 99.0  # beyond the recovery
    usable = np.ones((60, 2), bool)
    during, after = disturbance(errors, clean, usable, [event(10, 14, (0,))])
    assert (during.multiple, after.multiple) == (3.0, 2.0)
    usable[14:44, 0] = False
    errors[14:44, 0] = 99.0
    assert disturbance(errors, clean, usable, [event(10, 14, (0,))])[1].multiple == 2.0


def test_disturbance_of_a_fault_in_every_channel_has_no_healthy_one() -> None:
    ones = np.ones((20, 2))
    during, after = disturbance(ones, ones, ones > 0, [event(5, 9, (0, 1))])
    assert np.isnan(during.multiple) and after.multiple == 1.0


def test_the_threshold_leaves_the_share_above() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1000.0))
    assert (scores > threshold_at(scores, 0.005)).sum() == 5


def test_recall_looks_at_the_rows_of_the_event_alone() -> None:
    scores = np.zeros(30)
    scores[[4, 9, 15]] = 2.0
    events = [event(5, 9, (0,)), event(15, 18, (0,)), event(20, 25, (0,))]
    assert recall(scores, 1.0, events) == [False, True, False]


def test_lasting_faults_are_read_at_their_end() -> None:
    scores = np.arange(40.0)
    assert last_quarter(scores, event(10, 30, (0,))).tolist() == [25, 26, 27, 28, 29]
    assert last_quarter(scores, event(10, 11, (0,))).tolist() == [10]
    assert standing(np.array([6.0, 8.0]), np.array([1.0, 2.0, 3.0]), 7.0) == 1.0


def test_streams_say_what_is_wrong_and_where() -> None:
    streams = faulty_streams(rows(1200), EXOGENOUS, 0)
    clean = streams.values[0]
    assert not streams.wrong[0].any() and not streams.wrong[..., 0].any()
    for number, events in (streams.short | streams.long).items():
        inside = np.zeros(clean.shape, bool)
        for fault in events:
            inside[fault.start : fault.stop, fault.channels] = True
        assert streams.wrong[number].any() and not (streams.wrong[number] & ~inside).any()
        same = streams.values[number] == clean
        np.testing.assert_array_equal(streams.wrong[number], ~same | (streams.masks[number] == 0))
    for number in streams.ranked:
        np.testing.assert_array_equal(streams.wrong[number].any(axis=1), streams.faulty[number])
    lasting = [fault for events in streams.long.values() for fault in events]
    assert {fault.kind for fault in lasting} == set(LONG_KINDS)
    assert all(fault.stop - fault.start == LONG_ROWS for fault in lasting)
    assert not faulty_streams(rows(300), EXOGENOUS, 0).long


def test_the_oracle_is_shown_no_faulty_reading() -> None:
    streams = faulty_streams(rows(1200), EXOGENOUS, 0)
    values, masks = told(streams)
    assert not masks[streams.wrong].any() and not values[streams.wrong].any()
    right = ~streams.wrong
    np.testing.assert_array_equal(masks[right], streams.masks[right])
    np.testing.assert_array_equal(values[right], streams.values[right])


def test_only_faults_that_show_are_asked_for() -> None:
    clean = np.zeros((20, 2), np.float32)
    values, missing = clean.copy(), np.zeros(clean.shape, bool)
    values[2:4, 0], values[6:8, 0] = 0.4, -0.6
    missing[12, 1] = True
    shows = [event(6, 8, (0,)), event(11, 14, (1,))]
    assert visible([event(2, 4, (0,)), *shows, event(6, 8, (1,))], values, clean, missing) == shows


def test_the_curriculum_goes_from_large_faults_to_the_usual_ones() -> None:
    smallest, largest = FAULT_SIZES
    assert curriculum_sizes(0.0) == (2.0, largest)
    assert curriculum_sizes(0.25)[0] == pytest.approx(np.sqrt(2.0 * smallest))
    assert curriculum_sizes(0.5) == curriculum_sizes(1.0) == pytest.approx((smallest, largest))


def batch() -> dict[str, np.ndarray]:
    return draw_batch(rows(400), 64, 8, EXOGENOUS, np.random.default_rng(0))


def test_variants_are_shown_their_own_faults() -> None:
    given = batch()
    assert shown(given, "usual", 0.0, EXOGENOUS, np.random.default_rng(1)) is given
    none = shown(given, "none", 0.0, EXOGENOUS, np.random.default_rng(1))
    np.testing.assert_array_equal(none["faulty"], given["clean"])
    np.testing.assert_array_equal(none["faulty_mask"], given["clean_mask"])
    assert not none["fault"].any() and given["fault"].any()


def levels(progress: float) -> np.ndarray:
    """Sizes of the level shifts that the curriculum injects into a batch of zeros."""
    zeros = np.zeros((64, 40, 3), np.float32)
    given = {"clean": zeros, "clean_mask": np.ones_like(zeros)}
    found = shown(given, "curriculum", progress, EXOGENOUS, np.random.default_rng(0))
    assert not found["fault"][..., 0].any()
    # A level shift alone leaves the same value in neighbouring rows.
    faulty = found["faulty"]
    return np.abs(faulty[:, 1:][(faulty[:, 1:] == faulty[:, :-1]) & (faulty[:, 1:] != 0)])


def test_the_curriculum_reaches_the_batch() -> None:
    # Shifts may add up and take each other away, so not all of them are within the bounds.
    assert np.quantile(levels(0.0), 0.2) > 1.9
    assert np.quantile(levels(1.0), 0.2) < 1.0


def shut(variant: Variant) -> dict[str, np.ndarray]:
    """A network whose gates are all shut, on the tiny machine, clean and with one large fault.

    There is no highway, so what is left of the forecast is the GRU's.
    """
    model = untrained(variant, rows(400), EXOGENOUS, 0)
    weights = model.arrays()
    weights["logit_bias"] = np.full_like(weights["logit_bias"], -50.0)
    weights["logit_kernel"] = np.zeros_like(weights["logit_kernel"])
    weights["correction_kernel"] = np.ones_like(weights["correction_kernel"])
    model.assign(weights)
    model.highway.own[:] = 0.0
    clean = rows(40).values[0]
    faulty = clean.copy()
    faulty[20:30, 1] += 2.0
    values = np.stack([clean, faulty])
    out = model(tf.constant(values), tf.ones_like(values))
    return {"values": values, **{name: value.numpy() for name, value in out.items()}}


def test_the_unprotected_variant_is_fed_raw_readings_and_the_protected_one_is_not() -> None:
    raw, kept = shut(VARIANTS["unprotected"]), shut(VARIANTS["gated"])
    for seen in (raw, kept):
        assert seen["gate"][..., 1:].max() < 1e-6  # both doubt
    np.testing.assert_allclose(raw["trusted"], raw["values"], atol=1e-5)
    np.testing.assert_allclose(kept["trusted"][..., 1:], kept["forecast"][..., 1:], atol=1e-5)
    # The recurrent layers, too, are fed the reading: the forecast follows the fault or does not.
    moved = [np.abs(seen["forecast"][1] - seen["forecast"][0]).max() for seen in (raw, kept)]
    assert moved[0] > 0.01 and moved[1] < 1e-6
    # What the raw readings do to the state is hidden from the loss.
    assert not raw["state"].any() and kept["state"].any()


def material() -> Material:
    return Material(rows(400), rows(150, 2), rows(300, 3), Rows((), ()), EXOGENOUS)


@pytest.mark.long
def test_the_usual_variants_train_as_the_product_does(tmp_path: Path) -> None:
    from train.cell_config import CellConfig

    given = material()
    trained = train_variant(VARIANTS["gated"], given, TINY)
    product = fit(
        CellConfig(channels=3), given.train, given.validate, EXOGENOUS, TINY,
        tmp_path / "checkpoint.npz", lambda step, losses: None,
    )  # fmt: skip
    best = min(product.history, key=lambda entry: entry["total"])
    assert trained.best_step == best["step"] > 0
    for name, value in trained.model.arrays().items():
        np.testing.assert_array_equal(value, product.weights[name], err_msg=name)


class FakeTrainer:
    """Takes the batches, adds 1 to a bias in each step, and has the given validation losses."""

    def __init__(self, totals: list[float]) -> None:
        self.totals, self.batches, self.checks = list(totals), [], []

    def __call__(self, model: AnomalyGatedGRU, steps: int) -> "FakeTrainer":
        self.model = model
        return self

    def train(self, batch: Batch) -> None:
        self.batches.append(batch)
        bias = self.model.kernels["correction_bias"]
        bias.assign(bias + 1.0)

    def validate(self, batch: Batch) -> dict[str, float]:
        self.checks.append(batch)
        return {"total": self.totals.pop(0)}


def test_the_best_weights_are_kept_and_training_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTrainer([3.0, 2.0, 1.0, 1.5, 1.0])
    monkeypatch.setattr(gate_training, "Trainer", fake)
    budget = Budget(steps=100, windows=2, check_every=3, patience=2)
    trained = train_variant(VARIANTS["gated"], material(), budget)
    assert trained.best_step == 6 and len(fake.batches) == 12
    assert (trained.model.arrays()["correction_bias"] == 6.0).all()


@pytest.mark.parametrize("name", ["plain", "injected", "unprotected", "gated", "curriculum"])
def test_every_variant_trains_its_own_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, usual = FakeTrainer([2.0, 1.0]), FakeTrainer([2.0, 1.0])
    budget = Budget(steps=2, windows=2, check_every=2)
    models = []
    for trainer, variant in ((fake, name), (usual, "gated")):
        monkeypatch.setattr(gate_training, "Trainer", trainer)
        models.append(train_variant(VARIANTS[variant], material(), budget).model)
    same = np.array_equal(fake.batches[0]["faulty"], usual.batches[0]["faulty"])
    assert same == (name not in ("plain", "curriculum"))
    for batch in (*fake.batches, *fake.checks):
        assert batch["fault"].any() == (name != "plain")
    assert models[0].config.gate_layers == (name not in ("plain", "injected"))
    assert isinstance(models[0], UnprotectedGRU) == (name == "unprotected")


def test_tables_have_a_row_for_each_variant_that_was_measured() -> None:
    figures = {"injected_precision": 0.25, "vus_pr": None, "auc_pr": 0.5, "error_after": 1.25}
    every = dict.fromkeys(column.figure for column in COLUMNS)
    text = tables([Result("gated", "asd/omi-1", 0, {**every, **figures})])
    assert "| gated | 1.25 | 0.250 | 0.500 |" in text
    assert "| variant | error after, × | injected AP | AUC-PR |" in text
    assert "\n| plain | 1" not in text
