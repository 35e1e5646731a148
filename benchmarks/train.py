"""Training speed of AnomalyGatedGRU and of a plain keras.layers.GRU of the same size.

Both take one optimiser step on the same windows, in turn, so that a busy machine slows both. Our
step runs every window twice (clean and faulty); the GRU gets the same doubled batch.

    python -m benchmarks.train [--json]
"""

import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import tensorflow as tf

from benchmarks.pages import machine
from edge_runtime.detector.interpreter import quiet_stderr
from edge_runtime.learning.highway import Highway
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig
from train.fit import CLIP_NORM, LEARNING_RATE, Trainer

WINDOWS, LENGTH, CHANNELS, UNITS = 24, 128, 8, 32
ROUNDS = 30


def gated_step(batch: dict[str, tf.Tensor]) -> Callable[[], object]:
    """One step of our training."""
    config = CellConfig(channels=CHANNELS, gru_units=UNITS, gate_units=UNITS)
    own = np.zeros((config.order, CHANNELS), np.float32)
    own[0] = 1.0
    highway = Highway(own, np.zeros((0, 0), np.float32))
    ones = np.ones(CHANNELS, np.float32)
    trainer = Trainer(AnomalyGatedGRU(config, highway, 0.3 * ones, ones), steps=ROUNDS)
    return lambda: trainer.train(batch)


def plain_step(batch: dict[str, tf.Tensor]) -> Callable[[], object]:
    """One step of a plain GRU that forecasts the next sample."""
    values = tf.concat([batch["clean"], batch["faulty"]], 0)
    model = keras.Sequential(
        [keras.layers.GRU(UNITS, return_sequences=True), keras.layers.Dense(CHANNELS)]
    )
    model(values)
    optimizer = keras.optimizers.Adam(LEARNING_RATE, global_clipnorm=CLIP_NORM)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((values[:, 1:] - model(values)[:, :-1]) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return lambda: float(step())


def measure() -> dict[str, object]:
    """Median seconds per step of both, taken in turn, and their ratio."""
    rng = np.random.default_rng(0)
    shape = (WINDOWS, LENGTH, CHANNELS)
    clean = rng.normal(size=shape).astype(np.float32)
    ones = np.ones(shape, np.float32)
    batch = {
        "clean": clean,
        "clean_mask": ones,
        "faulty": clean,
        "faulty_mask": ones,
        "fault": 0 * ones,
    }
    steps = {"gated": gated_step(batch), "plain": plain_step(batch)}
    first: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with quiet_stderr():
        for name, step in steps.items():
            first[name] = _timed(step)
    for _ in range(ROUNDS):
        for name, step in steps.items():
            seconds[name].append(_timed(step))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    samples = 2 * WINDOWS * LENGTH
    return {
        "machine": machine(),
        "samples_per_step": samples,
        "first_step_s": {name: round(value, 2) for name, value in first.items()},
        "ms_per_step": {name: round(1e3 * value, 2) for name, value in median.items()},
        "samples_per_s": {name: round(samples / value) for name, value in median.items()},
        "ratio": round(median["gated"] / median["plain"], 2),
    }


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(as_json: bool) -> None:
    """Measure steps per second of our training and of a plain Keras GRU of the same size."""
    result = measure()
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, value in result.items():
        click.echo(f"{name}: {value}")


if __name__ == "__main__":
    main()
