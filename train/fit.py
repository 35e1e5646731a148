"""The training loop: compiled steps, early stopping, checkpoints, resume after a kill."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_runtime.detector.interpreter import quiet_stderr
from edge_runtime.errors import GruardError
from edge_runtime.learning.highway import fit_highway, innovation_scale
from edge_runtime.learning.linear import highway_arrays
from edge_runtime.learning.prepare import Rows
from edge_runtime.learning.run import json_bytes
from train.batches import BURN_IN, draw_batch, window_length
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig
from train.labelled import NO_LABELS, Labelled, draw_labelled
from train.loss import losses
from train.run_folder import read_arrays, save_arrays, write_atomically
from train.training_request import Budget, Pays, Report

Float32 = npt.NDArray[np.float32]
LEARNING_RATE, CLIP_NORM = 3e-3, 1.0
VALIDATION_WINDOWS = 48
SHORTEST_CHECK = 2 * BURN_IN
EARLY_SHARE = 0.35  # of the steps, after which `pays` decides
LABELLED_SHARE = 0.25  # at most this many labelled windows per pair of clean and faulty windows


@dataclass(frozen=True)
class Fit:
    """The best weights by validation loss, with the highway, and the history of the training."""

    weights: dict[str, Float32]
    history: list[dict[str, float]]
    seconds: float


def fit(
    config: CellConfig,
    train: Rows,
    validate: Rows,
    exogenous: npt.NDArray[np.bool_],
    budget: Budget,
    checkpoint: Path,
    report: Report,
    labelled: Labelled = NO_LABELS,
    pays: Pays | None = None,
) -> Fit:
    """Train on `train`, stop early by `validate`, and update `checkpoint` (an .npz) at each check.

    `labelled` stretches train the gate and do not affect early stopping. Training continues from an
    existing checkpoint of the same settings and data; another checkpoint is an error. `report` is
    called with the losses after every step. After `EARLY_SHARE` of the steps training ends if the
    best weights so far do not pay.
    """
    highway = fit_highway(train.values, train.masks, config.order, config.highway)
    scale = innovation_scale(train.values, train.masks, highway)
    gated = (~exogenous).astype(np.float32)
    moving = np.concatenate(train.values).std(axis=0) > 0
    model = AnomalyGatedGRU(config, highway, scale, gated, budget.seed, moving)
    trainer = Trainer(model, budget.steps)
    key = _key(config, budget, (*train.values, *train.masks, gated, *labelled.arrays))
    progress = _restore(checkpoint, trainer, key)
    length = window_length(train)
    check = _check_batch(train, validate, length, exogenous, budget.seed)
    started = time.monotonic()
    with quiet_stderr():
        first = trainer.validate(check)
    if not progress.history:
        progress.keep(0, first, model)
    fixed = {**highway_arrays(highway), "innovation_scale": scale}
    early = budget.check_every * max(round(EARLY_SHARE * budget.steps / budget.check_every), 1)

    def over() -> bool:
        if pays and progress.step == early and not pays({**progress.best, **fixed}):
            return True
        return progress.stale >= budget.patience

    # A run that was killed after its last check is already finished.
    first_step = budget.steps if over() else progress.step
    batches = _batches(train, labelled, length, exogenous, budget, first_step)
    for step, batch in enumerate(batches, progress.step + 1):
        report(step, trainer.train(batch))
        if step % budget.check_every == 0 or step == budget.steps:
            progress.keep(step, trainer.validate(check), model)
            _save(checkpoint, trainer, progress, key, progress.seconds + time.monotonic() - started)
            if over():
                break
    seconds = progress.seconds + time.monotonic() - started
    return Fit({**progress.best, **fixed}, progress.history, seconds)


def _check_batch(
    train: Rows, validate: Rows, length: int, exogenous: npt.NDArray[np.bool_], seed: int
) -> dict[str, Float32]:
    """Draw the batch for early stopping, from `validate` unless that is too short for a window."""
    longest = max(map(len, validate.values), default=0)
    rows = train
    if longest >= SHORTEST_CHECK:
        length, rows = min(length, longest), validate
    usable = rows.longer_than(length)
    return draw_batch(
        usable, length, VALIDATION_WINDOWS, exogenous, np.random.default_rng(seed + 1)
    )


class Trainer:
    """Optimiser and compiled steps around a model; `steps` is the length of the schedule."""

    def __init__(self, model: AnomalyGatedGRU, steps: int) -> None:
        self.model = model
        schedule = keras.optimizers.schedules.CosineDecay(
            LEARNING_RATE / 10,
            max(steps - steps // 20, 1),
            warmup_target=LEARNING_RATE,
            warmup_steps=max(steps // 20, 1),
        )
        self.optimizer = keras.optimizers.Adam(schedule, global_clipnorm=CLIP_NORM)
        self.optimizer.build(model.trainable_variables)
        # XLA fuses the many small operations of the time loop: twice the speed of the plain graph.
        self._train = tf.function(self._train_step, autograph=False, jit_compile=True)
        self._validate = tf.function(
            lambda batch: losses(model, batch), autograph=False, jit_compile=True
        )

    def _train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            result = losses(self.model, batch)
        gradients = tape.gradient(result["total"], self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return result

    def train(self, batch: Mapping[str, Float32]) -> dict[str, float]:
        """Do one optimiser step and return the losses before it."""
        return _floats(self._train({k: tf.constant(v) for k, v in batch.items()}))

    def validate(self, batch: Mapping[str, Float32]) -> dict[str, float]:
        """Return the losses of `batch` without changing the model."""
        return _floats(self._validate({k: tf.constant(v) for k, v in batch.items()}))


class _Progress:
    """The state of a training that a checkpoint stores, besides optimiser and current weights."""

    def __init__(self) -> None:
        self.step, self.seconds, self.stale = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Float32] = {}

    def keep(self, step: int, validation: dict[str, float], model: AnomalyGatedGRU) -> None:
        """Append a validation result, and keep the weights if it is the best so far."""
        better = not self.history or validation["total"] < min(h["total"] for h in self.history)
        self.history.append({"step": float(step), **validation})
        self.step, self.stale = step, 0 if better else self.stale + 1
        if better:
            self.best = {name: value.copy() for name, value in model.arrays().items()}


def _batches(
    train: Rows,
    labelled: Labelled,
    length: int,
    exogenous: npt.NDArray[np.bool_],
    budget: Budget,
    done: int,
) -> Iterator[dict[str, Float32]]:
    """Yield the batches of the remaining steps; each step has its own seed, also after a resume."""
    from concurrent.futures import ThreadPoolExecutor

    rows = train.longer_than(length)
    # At most one window per stretch: the model memorises a few events that are drawn repeatedly.
    windows = min(math.ceil(LABELLED_SHARE * budget.windows), len(labelled.labels))

    def draw(step: int) -> dict[str, Float32]:
        rng = np.random.default_rng((budget.seed, step))
        pairs = draw_batch(rows, length, budget.windows, exogenous, rng)
        return pairs | draw_labelled(labelled, length, windows, rng)

    # One batch is drawn while the step before it runs.
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(draw, done)
        for step in range(done, budget.steps):
            batch = following.result()
            following = pool.submit(draw, step + 1)
            yield batch


def _key(config: CellConfig, budget: Budget, arrays: Sequence[Float32]) -> str:
    """Return a key of settings and rows; only a checkpoint with the same key is continued."""
    rows = hashlib.sha256()
    for array in arrays:
        rows.update(np.ascontiguousarray(array).tobytes())
    return json.dumps([asdict(config), asdict(budget), rows.hexdigest()], sort_keys=True)


def _save(
    checkpoint: Path, trainer: Trainer, progress: _Progress, key: str, seconds: float
) -> None:
    arrays: dict[str, Any] = {
        f"optimizer/{i:03d}": np.asarray(v) for i, v in enumerate(trainer.optimizer.variables)
    }
    arrays |= {f"weights/{name}": value for name, value in trainer.model.arrays().items()}
    arrays |= {f"best/{name}": value for name, value in progress.best.items()}
    state = {"key": key, "seconds": seconds, "stale": progress.stale, "history": progress.history}
    arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    save_arrays(checkpoint, arrays)


def _restore(checkpoint: Path, trainer: Trainer, key: str) -> _Progress:
    progress = _Progress()
    if not checkpoint.is_file():
        return progress
    arrays = read_arrays(checkpoint, "add --force to start again")
    try:
        state = json.loads(arrays.pop("state").tobytes())
    except (KeyError, ValueError):
        raise GruardError(f"{checkpoint}: not a checkpoint; add --force to start again") from None
    if state["key"] != key:
        raise GruardError(
            f"{checkpoint}: an unfinished training with other settings or data; "
            "repeat its command to resume, or add --force to start again"
        )
    for i, variable in enumerate(trainer.optimizer.variables):
        variable.assign(arrays[f"optimizer/{i:03d}"])
    trainer.model.assign(_below(arrays, "weights/"))
    progress.best = _below(arrays, "best/")
    progress.history, progress.stale = state["history"], state["stale"]
    progress.seconds = state["seconds"]
    progress.step = int(progress.history[-1]["step"])
    return progress


def _below(arrays: dict[str, Any], prefix: str) -> dict[str, Float32]:
    return {name.removeprefix(prefix): v for name, v in arrays.items() if name.startswith(prefix)}


def _floats(result: dict[str, tf.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in result.items()}


def write_metrics(path: Path, fit_result: Fit, extra: dict[str, Any]) -> None:
    """Write metrics.json: the learning history, the time taken, and `extra`."""
    best = min(fit_result.history, key=lambda entry: entry["total"])
    linear = fit_result.history[0]
    metrics = {
        **extra,
        "seconds": round(fit_result.seconds, 2),
        "best": best,
        "linear_forecast_loss": linear["forecast"],
        "history": fit_result.history,
    }
    write_atomically(path, json_bytes(metrics))
