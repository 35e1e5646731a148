"""A series split and standardised as the training command does it, and one variant trained on it.

The loop is that of `train.fit`, which takes neither another cell nor other faults; a test holds the
two together.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.gate_variants import Variant, shown
from benchmarks.series import Series
from train.batches import Rows, draw_batch, window_length
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig
from train.fit import SHORTEST_CHECK, VALIDATION_WINDOWS, Budget, Trainer
from train.highway import fit_highway, innovation_scale
from train.model_choice import FEWEST_STEPS, STEPS_PER_ROW, joined
from train.prepare import describe_channels, standard_rows
from train.quiet import quiet_stderr
from train.recording import Recording
from train.settings import ChannelSettings, Settings
from train.split import split_by_time
from train.train_run import LARGEST_GAP

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Material:
    """Standardised rows of one series. held_out: clean rows that no training sees, in time order.

    exogenous: bool [channels].
    """

    train: Rows
    validate: Rows
    held_out: Rows
    tests: Rows
    exogenous: Bools


@dataclass(frozen=True)
class Trained:
    """A model with its best weights by validation loss. best_step: when it had them."""

    model: AnomalyGatedGRU
    best_step: int
    seconds: float


class UnprotectedGRU(AnomalyGatedGRU):
    """A gate that doubts but does not hold: history and GRU are fed the usable readings raw."""

    def trust(self, gate: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """All of it, whatever the gate says."""
        return mask

    def call(
        self, values: tf.Tensor, mask: tf.Tensor, state_noise: float = 0.0
    ) -> dict[str, tf.Tensor]:
        """As the base class, but the state is hidden from the loss.

        A model that cannot keep a fault out of its state is not asked to.
        """
        out = super().call(values, mask, state_noise)
        return {**out, "state": tf.zeros_like(out["state"])}


def material_of(series: Series) -> Material:
    """Split in time as `train_run` does; later rows, calibration and test, are held out."""
    gap = min(LARGEST_GAP, sum(r.rows for r in series.train) // 50)
    split = split_by_time(series.train, gap=gap, margin=gap)
    rules = {n: ChannelSettings(exogenous=n in series.exogenous) for n in series.channels}
    channels = describe_channels(split.train, Settings(series.period, rules))

    def standard(recordings: Sequence[Float32]) -> Rows:
        return standard_rows(recordings, channels, series.period)

    def values(recordings: Sequence[Recording]) -> list[Float32]:
        return [recording.values for recording in recordings]

    return Material(
        train=standard(values(split.train)),
        validate=standard(values(split.validate)),
        held_out=joined(standard(values(split.calibrate)), standard(values(split.test))),
        tests=standard([test.values for test in series.tests]),
        exogenous=~series.scored,
    )


def train_variant(variant: Variant, material: Material, budget: Budget) -> Trained:
    """Train one variant with the default sizes, at most as long as the training command would."""
    started = time.monotonic()
    train, exogenous = material.train, material.exogenous
    most = max(STEPS_PER_ROW * train.total, FEWEST_STEPS)
    budget = replace(budget, steps=min(budget.steps, most))
    model = untrained(variant, train, exogenous, budget.seed)
    if not variant.trained:
        return Trained(model, 0, time.monotonic() - started)
    length = window_length(train)
    rows, trainer = train.longer_than(length), Trainer(model, budget.steps)
    rng = np.random.default_rng(budget.seed + 1)
    check = shown(_check_batch(material, length, rng), variant.faults, 1.0, exogenous, rng)
    with quiet_stderr():
        best, best_step, weights = trainer.validate(check)["total"], 0, _copied(model)
    for step in range(budget.steps):
        rng = np.random.default_rng((budget.seed, step))
        batch = draw_batch(rows, length, budget.windows, exogenous, rng)
        trainer.train(shown(batch, variant.faults, step / budget.steps, exogenous, rng))
        done = step + 1
        if done % budget.check_every == 0 or done == budget.steps:
            total = trainer.validate(check)["total"]
            if total < best:
                best, best_step, weights = total, done, _copied(model)
            elif done - best_step >= budget.patience * budget.check_every:
                break
    model.assign(weights)
    return Trained(model, best_step, time.monotonic() - started)


def untrained(variant: Variant, train: Rows, exogenous: Bools, seed: int) -> AnomalyGatedGRU:
    """The variant's network before its first step, which is the linear forecaster."""
    config = CellConfig(channels=len(exogenous), gate_layers=int(variant.gate))
    if not variant.trained:
        config = replace(config, gru_layers=0)
    highway = fit_highway(train.values, train.masks, config.order, config.highway)
    scale = innovation_scale(train.values, train.masks, highway)
    gated = (~exogenous).astype(np.float32)
    moving = np.concatenate(train.values).std(axis=0) > 0
    cell = AnomalyGatedGRU if variant.protected else UnprotectedGRU
    return cell(config, highway, scale, gated, seed, moving)


def _check_batch(material: Material, length: int, rng: np.random.Generator) -> dict[str, Float32]:
    """The batch that tells when to stop, from the training rows where the others are too short."""
    longest = max(map(len, material.validate.values), default=0)
    rows = material.train
    if longest >= SHORTEST_CHECK:
        length, rows = min(length, longest), material.validate
    usable = rows.longer_than(length)
    return draw_batch(usable, length, VALIDATION_WINDOWS, material.exogenous, rng)


def _copied(model: AnomalyGatedGRU) -> dict[str, Float32]:
    return {name: value.copy() for name, value in model.arrays().items()}
