"""Training: it learns, also from labels; the seed decides every bit; a kill costs only time."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.learning.highway import fit_highway
from edge_runtime.learning.prepare import Rows, describe_channels, standard_rows
from edge_runtime.learning.run import npz_bytes
from edge_runtime.learning.settings import ChannelSettings, Settings
from train.batches import draw_batch, window_length
from train.cell import weight_shapes
from train.cell_config import CellConfig
from train.fit import LABELLED_SHARE, Fit, _batches, fit
from train.labelled import NO_LABELS, Labelled
from train.run_folder import read_arrays
from train.selection import SETTLING, Candidate, forecasts
from train.simulate import simulate
from train.training_request import Budget, Pays

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
WATCHED = ["speed", "current", "flow"]
EXOGENOUS = np.array([True, False, False])
CONFIG = CellConfig(channels=3, gru_units=6, gate_units=6, order=3)
BUDGET = Budget(steps=60, windows=16, check_every=20, patience=4, seed=3)
KILLED_AT = 33  # after the first checkpoint, in the middle of the way to the second


def rows(start: int, stop: int) -> Rows:
    """Some rows of the simulated machine, in units that its first rows decide."""
    whole = simulate(900, seed=1)
    values = whole.values[:, [whole.channels.index(name) for name in WATCHED]]
    recording = replace(whole, values=values, channels=tuple(WATCHED))
    settings = Settings(None, {name: ChannelSettings() for name in WATCHED})
    channels = describe_channels([recording.cut(0, 600)], settings)
    return standard_rows([recording.cut(start, stop).values], channels, recording.period)


TRAIN, VALIDATE = rows(0, 600), rows(650, 900)


def eventful(healthy: Rows, start: int, stop: int) -> Labelled:
    """The rows with an event in which the two watched channels shake together, a little."""
    values, label = healthy.values[0].copy(), np.zeros(len(healthy.values[0]), np.float32)
    values[start:stop:2, 1:] += np.float32(0.4)
    values[start + 1 : stop : 2, 1:] -= np.float32(0.4)
    label[start:stop] = 1
    return Labelled((values,), healthy.masks, (label,))


TAUGHT, HELD_OUT = eventful(rows(600, 900), 120, 200), eventful(rows(0, 300), 150, 230)


def train(
    checkpoint: Path,
    budget: Budget = BUDGET,
    stop_at: int = 0,
    labelled: Labelled = NO_LABELS,
    pays: Pays | None = None,
) -> Fit:
    """Train on the simulated machine; at step `stop_at` say so and wait for the end."""

    def report(step: int, losses: dict[str, float]) -> None:
        if step == stop_at:
            print("here", flush=True)
            sys.stdin.read()

    return fit(CONFIG, TRAIN, VALIDATE, EXOGENOUS, budget, checkpoint, report, labelled, pays)


@dataclass(frozen=True)
class Trained:
    """A training and its checkpoint, which stays until the run folder is finished."""

    result: Fit
    checkpoint: Path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    checkpoint = tmp_path_factory.mktemp("fit") / "checkpoint.npz"
    return Trained(train(checkpoint), checkpoint)


def test_training_lowers_the_loss(uninterrupted: Trained) -> None:
    history = uninterrupted.result.history
    assert [entry["step"] for entry in history] == [0, 20, 40, 60]
    largest = {"total": 0.98, "forecast": 0.999, "gate": 0.96, "state": 0.8}
    for name, share in largest.items():
        assert history[-1][name] < share * history[0][name], name
    assert all(np.isfinite(value) for entry in history for value in entry.values())


def test_the_weights_are_finite_and_complete(uninterrupted: Trained) -> None:
    weights = uninterrupted.result.weights
    assert weights["highway"].shape == (3, 3) and weights["innovation_scale"].shape == (3,)
    highway = fit_highway(TRAIN.values, TRAIN.masks, CONFIG.order)
    np.testing.assert_array_equal(weights["highway"], highway.own)
    np.testing.assert_array_equal(weights["cross"], highway.cross)
    assert weights["cross"].any()
    assert all(np.isfinite(array).all() for array in weights.values())
    assert weights["correction_kernel"].any()  # it started from zero


@pytest.mark.long
def test_another_seed_gives_another_training(uninterrupted: Trained, tmp_path: Path) -> None:
    other = train(tmp_path / "other.npz", replace(BUDGET, steps=1, seed=4))
    assert other.history[0] != uninterrupted.result.history[0]


def drawn(labelled: Labelled) -> list[dict[str, np.ndarray]]:
    length, budget = window_length(TRAIN), replace(BUDGET, steps=3)
    return list(_batches(TRAIN, labelled, length, EXOGENOUS, budget, 0))


def test_labels_come_on_top_of_the_same_pairs() -> None:
    length = window_length(TRAIN)
    for step, (without, batch) in enumerate(zip(drawn(NO_LABELS), drawn(TAUGHT), strict=True)):
        rng = np.random.default_rng((BUDGET.seed, step))
        pairs = draw_batch(TRAIN, length, BUDGET.windows, EXOGENOUS, rng)
        assert set(without) == set(pairs)
        for name, array in pairs.items():
            np.testing.assert_array_equal(without[name], array)
            np.testing.assert_array_equal(batch[name], array)
        assert len(batch["labelled"]) == 1 and batch["label"].any()
    many = Labelled(TAUGHT.values * 9, TAUGHT.masks * 9, TAUGHT.labels * 9)
    assert {len(batch["labelled"]) for batch in drawn(many)} == {LABELLED_SHARE * BUDGET.windows}


@pytest.mark.long
def test_a_labelled_event_makes_a_similar_one_stand_out(
    uninterrupted: Trained, tmp_path: Path
) -> None:
    taught = train(tmp_path / "taught.npz", labelled=TAUGHT)
    before, after = (standing_out(result.weights) for result in (uninterrupted.result, taught))
    assert after > 2 * before > 0, (before, after)


def standing_out(weights: dict[str, np.ndarray]) -> float:
    """The gate's evidence in the held-out event above that on clean rows, in deviations of it."""
    (values,), (mask,), (label,) = HELD_OUT.values, HELD_OUT.masks, HELD_OUT.labels
    out = forecasts(Candidate("", CONFIG, weights), values[None], mask[None], EXOGENOUS)
    evidence = out["doubt"][0][:, ~EXOGENOUS].mean(axis=1)
    clean = evidence[SETTLING : int(label.argmax())]
    return float((evidence[label == 1].mean() - clean.mean()) / clean.std())


@pytest.mark.long
@pytest.mark.parametrize(
    ("sizes", "lower"),
    [
        pytest.param({"gru_layers": 0}, "gate", id="gate alone"),
        pytest.param({"gate_layers": 0}, "forecast", id="GRU alone", marks=pytest.mark.long),
    ],
)
def test_half_a_model_learns_its_half(tmp_path: Path, sizes: dict[str, int], lower: str) -> None:
    config = replace(CONFIG, **sizes)
    checkpoint, seen = tmp_path / "checkpoint.npz", []
    result = fit(
        config, TRAIN, VALIDATE, EXOGENOUS, replace(BUDGET, steps=40), checkpoint,
        lambda step, losses: seen.append(losses),
    )  # fmt: skip
    first, last = result.history[0], result.history[-1]
    assert last[lower] < 0.999 * first[lower] and last["total"] < first["total"]
    assert all(entry["state"] == 0 for entry in result.history)
    assert (first["gate"] > 0) == (lower == "gate") and len(seen) == 40
    kernels = {f"{name}_kernel" for name in weight_shapes(config)}
    assert {name for name in result.weights if name.endswith("_kernel")} == kernels


@pytest.mark.long
def test_the_same_seed_gives_the_same_bits_even_to_a_killed_training(
    uninterrupted: Trained, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.npz"
    child = subprocess.Popen(
        [sys.executable, __file__, str(checkpoint)],
        env={"PYTHONPATH": str(ROOT), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout and child.stdin
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdin.close()
    child.stdout.close()
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    steps: list[int] = []
    resumed = fit(
        CONFIG, TRAIN, VALIDATE, EXOGENOUS, BUDGET, checkpoint,
        lambda step, losses: steps.append(step),
    )  # fmt: skip
    assert steps == list(range(21, 61))
    assert resumed.history == uninterrupted.result.history
    assert npz_bytes(resumed.weights) == npz_bytes(uninterrupted.result.weights)


@pytest.mark.long
def test_early_stopping_stops_and_keeps_the_best(tmp_path: Path) -> None:
    budget = replace(BUDGET, steps=400, windows=8, check_every=5, patience=2)
    checkpoint = tmp_path / "checkpoint.npz"
    result = train(checkpoint, budget)
    totals = [entry["total"] for entry in result.history]
    assert result.history[-1]["step"] < budget.steps
    assert len(totals) - 1 - int(np.argmin(totals)) == budget.patience
    stored = read_arrays(checkpoint, "")
    for name, array in stored.items():
        if name.startswith("best/"):
            np.testing.assert_array_equal(array, result.weights[name.removeprefix("best/")])
    assert any(
        not np.array_equal(array, stored[name.replace("best/", "weights/")])
        for name, array in stored.items()
        if name.startswith("best/")
    )
    # Killed after the last check and before anything was written: nothing is left to learn.
    again = train(checkpoint, budget)
    assert again.history == result.history
    assert npz_bytes(again.weights) == npz_bytes(result.weights)


@pytest.mark.long
def test_a_network_that_does_not_pay_is_not_trained_to_its_end(
    uninterrupted: Trained, tmp_path: Path
) -> None:
    seen = []

    def never(weights: Mapping[str, np.ndarray]) -> bool:
        seen.append(npz_bytes(dict(weights)))
        return False

    stopped = train(tmp_path / "checkpoint.npz", pays=never)
    assert stopped.history == uninterrupted.result.history[:2]
    assert seen == [npz_bytes(stopped.weights)]


@pytest.mark.long
def test_what_was_stopped_stays_stopped_unless_the_network_is_asked_for(
    uninterrupted: Trained, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.npz"
    stopped = train(checkpoint, pays=lambda weights: False)
    assert train(checkpoint, pays=lambda weights: False).history == stopped.history
    asked_for = train(checkpoint)
    assert asked_for.history == uninterrupted.result.history
    assert npz_bytes(asked_for.weights) == npz_bytes(uninterrupted.result.weights)


def test_a_checkpoint_of_other_settings_is_refused(uninterrupted: Trained) -> None:
    for budget in (replace(BUDGET, seed=9), replace(BUDGET, steps=61)):
        with pytest.raises(GruardError, match=r"other settings or data; .* add --force"):
            train(uninterrupted.checkpoint, budget)


def test_a_checkpoint_of_other_data_is_refused(uninterrupted: Trained) -> None:
    changed = rows(0, 600)
    changed.values[0][-1, -1] += np.float32(1e-3)
    for data, exogenous, labelled in (
        (changed, EXOGENOUS, NO_LABELS),
        (TRAIN, ~EXOGENOUS, NO_LABELS),
        (TRAIN, EXOGENOUS, TAUGHT),
    ):
        with pytest.raises(GruardError, match="other settings or data"):
            fit(
                CONFIG, data, VALIDATE, exogenous, BUDGET, uninterrupted.checkpoint,
                lambda step, losses: None, labelled,
            )  # fmt: skip


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "foreign"])
def test_a_damaged_checkpoint_is_refused(
    uninterrupted: Trained, tmp_path: Path, damage: str
) -> None:
    data = bytearray(uninterrupted.checkpoint.read_bytes())
    data[len(data) // 2] ^= 4
    foreign = npz_bytes({"weights": np.zeros(3)})
    content = {"empty": b"", "cut": data[:999], "bit": data, "foreign": foreign}
    checkpoint = tmp_path / "checkpoint.npz"
    checkpoint.write_bytes(content[damage])
    with pytest.raises(GruardError, match=r"checkpoint\.npz: .*; add --force to start again"):
        train(checkpoint)


if __name__ == "__main__":
    train(Path(sys.argv[1]), stop_at=KILLED_AT)
