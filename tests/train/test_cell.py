"""The specification: a whole sequence is its steps, in training's arithmetic and the runtime's."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import numerics
from edge_runtime.score import ScoreConstants
from edge_runtime.step import Model, Recurrent, advance, forecast, start_recurrent
from edge_runtime.tiers import Phase
from train.cell import (
    AnomalyGatedGRU,
    CellConfig,
    Linear,
    cell_step,
    fused_linear,
    split_linear,
    weight_shapes,
)

TOLERANCE = 1e-4
ROWS = 36
CONFIGS = [
    CellConfig(channels=1, gru_units=4, gate_units=5, order=1),
    CellConfig(channels=3, gru_units=8, gate_units=6, order=4),
    CellConfig(channels=3, gru_layers=2, gru_units=5, gate_units=7, head_layers=1, order=2),
    CellConfig(channels=4, gru_units=6, gate_layers=2, gate_units=9, head_layers=1, order=3),
    CellConfig(channels=2, gru_layers=2, gru_units=7, gate_layers=2, gate_units=4, order=5),
]
Arrays = np.ndarray
SERIES = ("forecast", "gate", "logit", "trusted", "state")


class WeightsGraph:
    """The step graph of the runtime, computed from the Keras weights."""

    def __init__(self, model: AnomalyGatedGRU, linear: Linear) -> None:
        def outputs(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return cell_step(model.tensors(), model.config, inputs, linear)

        self._outputs = tf.function(outputs, autograph=False)
        self.state_sizes = (model.config.gru_units,) * model.config.gru_layers

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batch = {name: tf.constant(value[np.newaxis]) for name, value in inputs.items()}
        arrays = {name: np.asarray(value)[0] for name, value in self._outputs(batch).items()}
        return {**arrays, "doubt": np.logaddexp(0, -arrays["logit"]).astype(np.float32)}


def keras_model(config: CellConfig, seed: int = 0) -> AnomalyGatedGRU:
    """Random weights everywhere, also where training starts from zero; channel 0 is exogenous."""
    rng = np.random.default_rng(seed)
    highway = rng.normal(0, 0.4 / config.order, (config.order, config.channels))
    scale = rng.uniform(0.2, 0.6, config.channels)
    gated = np.ones(config.channels)
    if config.channels > 1:
        gated[0] = 0
    constants = (array.astype(np.float32) for array in (highway, scale, gated))
    model = AnomalyGatedGRU(config, *constants, seed=seed)
    model.assign(
        {
            name: (value + rng.normal(0, 0.3, value.shape)).astype(np.float32)
            for name, value in model.arrays().items()
        }
    )
    return model


def machine(channels: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Readings [rows, channels] with a jump that clips, and masks with holes and a blackout."""
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(0, 0.4, (ROWS, channels)), axis=0)
    values[15] += 12.0
    mask = rng.random((ROWS, channels)) > 0.1
    mask[22:27] = False
    return (values * mask).astype(np.float32), mask.astype(np.float32)


def as_sequence(
    model: AnomalyGatedGRU, values: np.ndarray, mask: np.ndarray
) -> dict[str, np.ndarray]:
    return compiled(model)(values, mask)


def compiled(
    model: AnomalyGatedGRU,
) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """The whole-sequence form as training compiles it; reads the weights at every call."""
    graph = tf.function(model.call, autograph=False)

    def run(values: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        outputs = graph(tf.constant(values[np.newaxis]), tf.constant(mask[np.newaxis]))
        return {name: np.asarray(outputs[name])[0] for name in SERIES}

    return run


@functools.cache
def case(config: CellConfig) -> tuple[AnomalyGatedGRU, Arrays, Arrays, dict[str, Arrays]]:
    """A model, values and mask for it, and what the whole sequence says."""
    model = keras_model(config)
    values, mask = machine(config.channels)
    return model, values, mask, as_sequence(model, values, mask)


def runtime_model(model: AnomalyGatedGRU, linear: Linear) -> Model:
    """What the runtime's arithmetic needs around the graph; the score is of no interest here."""
    count = model.config.channels
    one, zero, square = np.ones(count), np.zeros((3, count)), np.eye(count)
    score = ScoreConstants(
        np.float32(0.1), *(np.ones(4, np.float32),) * 3, one.astype(np.float32),
        zero.astype(np.float32), np.ones((3, 1), np.float32), square.astype(np.float32),
        square.astype(np.float32), numerics.log_table(), one.astype(np.float32),
    )  # fmt: skip
    graph = WeightsGraph(model, linear)
    constants = (model.highway, model.innovation_scale, model.gated)
    return Model(None, graph, "", None, None, *constants, score, ())  # type: ignore[arg-type]


def as_steps(
    model: AnomalyGatedGRU, values: np.ndarray, mask: np.ndarray, linear: Linear
) -> dict[str, np.ndarray]:
    runtime = runtime_model(model, linear)
    held_open = np.zeros(model.config.channels, np.float32)
    recurrent: Recurrent = start_recurrent(runtime, values[0])
    seen: dict[str, list[np.ndarray]] = {name: [] for name in SERIES}
    for value, usable in zip(values, mask, strict=True):
        seen["forecast"].append(forecast(runtime, recurrent))
        traces, recurrent = advance(runtime, value, usable, recurrent, held_open, Phase.GATE)
        seen["gate"].append(traces.gate)
        seen["logit"].append(traces.outputs["logit"])
        seen["trusted"].append(recurrent.history[0])
        seen["state"].append(recurrent.hidden[-1])
    return {name: np.array(rows) for name, rows in seen.items()}


@pytest.mark.parametrize("linear", [fused_linear, split_linear])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_whole_sequence_equals_its_steps(config: CellConfig, linear: Linear) -> None:
    model, values, mask, whole = case(config)
    steps = as_steps(model, values, mask, linear)
    for name in SERIES:
        np.testing.assert_allclose(whole[name], steps[name], rtol=0, atol=TOLERANCE, err_msg=name)


def test_every_weight_matters_to_the_sequence() -> None:
    config = replace(CONFIGS[2], gate_layers=2)
    model = keras_model(config)
    values, mask = machine(config.channels)
    sequence = compiled(model)
    before = sequence(values, mask)
    weights = model.arrays()
    for name, value in weights.items():
        model.assign({**weights, name: value + np.float32(0.05)})
        after = sequence(values, mask)
        largest = max(np.abs(after[series] - before[series]).max() for series in SERIES)
        assert largest > 10 * TOLERANCE, name


def test_a_step_fed_the_wrong_past_is_noticed() -> None:
    config = CONFIGS[1]
    model = keras_model(config)
    values, mask = machine(config.channels)
    whole = as_sequence(model, values, mask)
    model.highway = model.highway[::-1].copy()
    steps = as_steps(model, values, mask, fused_linear)
    assert np.abs(whole["forecast"] - steps["forecast"]).max() > 100 * TOLERANCE


def untrained(config: CellConfig, gated: float) -> AnomalyGatedGRU:
    highway = np.full((config.order, config.channels), 0.9 / config.order, np.float32)
    ones = np.ones(config.channels, np.float32)
    return AnomalyGatedGRU(config, highway, ones, gated * ones, seed=3)


@pytest.mark.parametrize("config", CONFIGS[1::2], ids=str)
def test_an_untrained_model_is_the_linear_highway_over_its_trusted_inputs(
    config: CellConfig,
) -> None:
    model = untrained(config, gated=1.0)
    values, mask = machine(config.channels)
    seen = as_sequence(model, values, mask)
    past = np.concatenate([np.repeat(values[:1], config.order, axis=0), seen["trusted"]])
    expected = np.array(
        [(past[t : t + config.order][::-1] * model.highway).sum(axis=0) for t in range(ROWS)]
    )
    np.testing.assert_allclose(seen["forecast"], np.clip(expected, -8, 8), rtol=0, atol=2e-6)
    for layers in (fused_linear, split_linear):
        graph = WeightsGraph(model, layers)
        inputs = {name: np.ones(config.channels, np.float32) for name in _vectors()}
        inputs |= {f"state_{i}": np.ones(n, np.float32) for i, n in enumerate(graph.state_sizes)}
        assert not graph(inputs)["correction"].any()


def _vectors() -> tuple[str, ...]:
    named = ("innovation", "forecast", "evidence", "magnitude", "difference", "mask", "guarded")
    return (*named, "gate")


def test_an_untrained_model_with_open_gates_forecasts_from_the_readings_alone() -> None:
    config = CONFIGS[1]
    model = untrained(config, gated=0.0)
    values = np.random.default_rng(0).normal(0, 0.5, (ROWS, config.channels)).astype(np.float32)
    seen = as_sequence(model, values, np.ones_like(values))
    np.testing.assert_allclose(seen["trusted"], values, rtol=0, atol=1e-6)
    expected = 0.9 * np.mean([values[3 - k : -1 - k] for k in range(4)], axis=0)
    np.testing.assert_allclose(seen["forecast"][4:], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_masked_reading_leaves_the_trusted_input_at_the_forecast(config: CellConfig) -> None:
    _, _, mask, seen = case(config)
    missing = mask == 0
    np.testing.assert_array_equal(seen["trusted"][missing], seen["forecast"][missing])
    assert not seen["gate"][missing].any()
    assert (seen["trusted"][~missing] != seen["forecast"][~missing]).all()


@pytest.mark.parametrize("config", CONFIGS[1:], ids=str)
def test_the_gate_of_an_exogenous_channel_is_always_open(config: CellConfig) -> None:
    _, _, mask, seen = case(config)
    gate = seen["gate"]
    np.testing.assert_array_equal(gate[:, 0], mask[:, 0])
    guarded = gate[:, 1:][mask[:, 1:] > 0]
    assert ((guarded > 0) & (guarded < 1)).all()


def test_what_a_masked_reading_says_does_not_matter_to_the_steps() -> None:
    config = CONFIGS[1]
    model = keras_model(config)
    values, mask = machine(config.channels)
    mask[0] = 1
    wild = np.where(mask > 0, values, np.float32(77.0))
    clean, noisy = (as_steps(model, rows, mask, fused_linear) for rows in (values, wild))
    np.testing.assert_array_equal(clean["state"], noisy["state"])


@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    outputs=st.integers(1, 3),
    width=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None)
def test_split_products_add_up_to_the_fused_one(
    widths: list[int], outputs: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    parts = [tf.constant(rng.normal(size=(2, w)).astype(np.float32)) for w in widths]
    kernel = tf.constant(rng.normal(size=(sum(widths), outputs * width)).astype(np.float32))
    bias = tf.constant(rng.normal(size=outputs * width).astype(np.float32))
    groups = [parts[:1], parts[1:]] if len(parts) > 1 else [parts]
    fused = fused_linear(groups, kernel, bias, outputs)
    split = split_linear(groups, kernel, bias, outputs)
    assert len(fused) == len(split) == outputs
    for a, b in zip(fused, split, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS[2:4], ids=str)
def test_weights_survive_arrays_and_assign(config: CellConfig) -> None:
    source, values, mask, expected = case(config)
    target = AnomalyGatedGRU(config, source.highway, source.innovation_scale, source.gated, seed=9)
    sequence = compiled(target)
    assert not np.array_equal(sequence(values, mask)["state"], expected["state"])
    target.assign(source.arrays())
    for name, array in sequence(values, mask).items():
        np.testing.assert_array_equal(array, expected[name])
    assert {n.removesuffix("_kernel") for n in source.arrays() if n.endswith("_kernel")} == set(
        weight_shapes(config)
    )


def test_weights_of_another_size_are_not_assigned() -> None:
    small, large = keras_model(CONFIGS[1]), keras_model(CONFIGS[2])
    with pytest.raises((KeyError, ValueError)):
        large.assign(small.arrays())


def test_the_seed_decides_the_first_weights() -> None:
    config = CONFIGS[0]
    arrays = [untrained(config, 1.0).arrays() for _ in range(2)]
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])
    other = AnomalyGatedGRU(config, *(np.ones((1, 1), np.float32),) * 3, seed=4).arrays()
    assert any(not np.array_equal(array, other[name]) for name, array in arrays[0].items())
