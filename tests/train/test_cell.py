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
from edge_runtime.bundle.manifest import PARTS
from edge_runtime.detector.cell import Model, Recurrent, advance, forecast, start_recurrent
from edge_runtime.detector.linear import LinearForecasts
from edge_runtime.detector.score import ScoreConstants
from edge_runtime.detector.tiers import Phase
from edge_runtime.learning.highway import Highway
from train.cell import (
    AnomalyGatedGRU,
    Linear,
    cell_step,
    fused_linear,
    split_linear,
    weight_shapes,
)
from train.cell_config import CellConfig

TOLERANCE = 1e-4
ROWS = 36
CONFIGS = [
    CellConfig(channels=1, gru_units=4, gate_units=5, order=1),
    CellConfig(channels=3, gru_units=8, gate_units=6, order=4),
    CellConfig(channels=3, gru_layers=2, gru_units=5, gate_units=7, head_layers=1, order=2),
    CellConfig(channels=4, gru_units=6, gate_layers=2, gate_units=9, head_layers=1, order=3),
    CellConfig(channels=2, gru_layers=2, gru_units=7, gate_layers=2, gate_units=4, order=5),
]
GATE_ALONE = [
    CellConfig(channels=3, gru_layers=0, gate_units=6, order=4),
    CellConfig(channels=2, gru_layers=0, gate_layers=3, gate_units=5, order=1),
]
GRU_ALONE = [
    CellConfig(channels=3, gru_units=8, gate_layers=0, order=4),
    CellConfig(channels=2, gru_layers=2, gru_units=5, gate_layers=0, head_layers=1, order=3),
]
LINEAR = [CellConfig(channels=3, gru_layers=0, gate_layers=0, order=4)]
EVERY = [*CONFIGS, *GATE_ALONE, *GRU_ALONE, *LINEAR]
Arrays = np.ndarray
SERIES = ("forecast", "gate", "logit", "trusted")

NONE = np.zeros((0, 0), np.float32)


def series(config: CellConfig) -> tuple[str, ...]:
    return (*SERIES, "state", "update") if config.gru_layers else SERIES


class WeightsGraph:
    """The step graph of the runtime, computed from the Keras weights."""

    def __init__(self, model: AnomalyGatedGRU, linear: Linear) -> None:
        def outputs(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return cell_step(model.tensors(), model.config, inputs, linear)

        self._outputs = tf.function(outputs, autograph=False)
        self.kernel_id, self.gated = "keras", model.config.gate_layers > 0
        self.state_sizes = (model.config.gru_units,) * model.config.gru_layers

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batch = {name: tf.constant(value[np.newaxis]) for name, value in inputs.items()}
        arrays = {name: np.asarray(value)[0] for name, value in self._outputs(batch).items()}
        if self.gated:
            arrays["doubt"] = np.logaddexp(0, -arrays["logit"]).astype(np.float32)
        return arrays


def keras_model(config: CellConfig, seed: int = 0) -> AnomalyGatedGRU:
    """Random weights everywhere, also where training starts from zero; channel 0 is exogenous."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 0.4 / config.order, (config.order, config.channels))
    lagged = config.order * config.channels
    cross = rng.normal(0, 0.3 / lagged, (config.channels, lagged))
    highway = Highway(own.astype(np.float32), cross.astype(np.float32))
    scale = rng.uniform(0.2, 0.6, config.channels)
    gated = np.ones(config.channels)
    if config.channels > 1:
        gated[0] = 0
    constants = (array.astype(np.float32) for array in (scale, gated))
    model = AnomalyGatedGRU(config, highway, *constants, seed=seed)
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
        assert set(outputs) == set(series(model.config))
        return {name: np.asarray(value)[0] for name, value in outputs.items()}

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
    parts, three = np.ones((1, len(PARTS)), np.float32), np.ones((3, count), np.float32)
    rate, square, nothing = np.full((1, 1), 0.1, np.float32), np.eye(count, dtype=np.float32), NONE
    score = ScoreConstants(
        weights=parts[0], attack=rate, decay=rate, ceiling=parts, mean=parts, std=parts,
        error_scale=three, absent=three, heard=np.ones((3, 1), np.float32), channel_mean=three,
        typical=np.ones((3, 1), np.float32), distance_root=square, level_root=square,
        log_table=numerics.log_table(), scored=three[0],
    )  # fmt: skip
    graph = WeightsGraph(model, linear)
    lines = LinearForecasts(model.highway.own, model.highway.cross, nothing, nothing, 0)
    gated = model.gated * np.float32(graph.gated)
    constants = (lines, model.innovation_scale, model.gated, gated, np.float32(1), score)
    return Model(None, (), graph, "", None, None, *constants, None, (), None)  # type: ignore[arg-type]


def as_steps(
    model: AnomalyGatedGRU, values: np.ndarray, mask: np.ndarray, linear: Linear
) -> dict[str, np.ndarray]:
    runtime = runtime_model(model, linear)
    held_open = np.zeros(model.config.channels, np.float32)
    recurrent: Recurrent = start_recurrent(runtime, values[0])
    seen: dict[str, list[np.ndarray]] = {name: [] for name in series(model.config)}
    for value, usable in zip(values, mask, strict=True):
        seen["forecast"].append(forecast(runtime, recurrent))
        traces, recurrent = advance(runtime, value, usable, recurrent, held_open, Phase.GATE)
        seen["gate"].append(traces.gate)
        seen["logit"].append(traces.outputs.get("logit", np.zeros_like(value)))
        seen["trusted"].append(recurrent.history[0])
        if recurrent.hidden:
            seen["state"].append(recurrent.hidden[-1])
            updates = [traces.outputs[f"update_{i}"] for i in range(len(recurrent.hidden))]
            seen["update"].append(np.concatenate(updates))
    return {name: np.array(rows) for name, rows in seen.items()}


@pytest.mark.parametrize("linear", [fused_linear, split_linear])
@pytest.mark.parametrize("config", EVERY, ids=str)
def test_a_whole_sequence_equals_its_steps(config: CellConfig, linear: Linear) -> None:
    model, values, mask, whole = case(config)
    steps = as_steps(model, values, mask, linear)
    assert set(whole) == set(steps) == set(series(config))
    for name in series(config):
        np.testing.assert_allclose(whole[name], steps[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("config", [*GRU_ALONE, *LINEAR], ids=str)
def test_without_a_gate_every_usable_reading_is_trusted(config: CellConfig) -> None:
    _, values, mask, seen = case(config)
    np.testing.assert_array_equal(seen["gate"], mask)
    assert not seen["logit"].any()
    near = (mask > 0) & (np.abs(values - seen["forecast"]) < 4)
    np.testing.assert_allclose(seen["trusted"][near], values[near], rtol=0, atol=1e-5)
    assert near.sum() > values.size / 4


@pytest.mark.parametrize("config", [*GATE_ALONE, *LINEAR], ids=str)
def test_without_a_gru_nothing_corrects_the_highway(config: CellConfig) -> None:
    model, values, _, seen = case(config)
    assert not {"correction_kernel", "gru_0_kernel", "head_0_kernel"} & set(model.arrays())
    expected = highway_over(values[0], seen["trusted"], model.highway)
    np.testing.assert_allclose(seen["forecast"], np.clip(expected, -8, 8), rtol=0, atol=2e-6)


def test_only_a_model_with_neither_is_linear() -> None:
    assert [config.linear for config in EVERY] == [False] * (len(EVERY) - 1) + [True]
    assert weight_shapes(LINEAR[0]) == {}


@pytest.mark.parametrize(
    "config", [replace(CONFIGS[2], gate_layers=2), GATE_ALONE[1], GRU_ALONE[1]], ids=str
)
def test_every_weight_matters_to_the_sequence(config: CellConfig) -> None:
    model = keras_model(config)
    values, mask = machine(config.channels)
    sequence = compiled(model)
    before = sequence(values, mask)
    weights = model.arrays()
    for name, value in weights.items():
        model.assign({**weights, name: value + np.float32(0.05)})
        after = sequence(values, mask)
        largest = max(np.abs(after[key] - before[key]).max() for key in before)
        assert largest > 10 * TOLERANCE, name


def test_a_step_fed_the_wrong_past_is_noticed() -> None:
    config = CONFIGS[1]
    model = keras_model(config)
    values, mask = machine(config.channels)
    whole = as_sequence(model, values, mask)
    own, cross = model.highway.own, model.highway.cross
    other_lags = cross.reshape(3, 4, 3)[:, ::-1].reshape(3, 12)
    other_channels = cross.reshape(3, 4, 3)[:, :, ::-1].reshape(3, 12)
    for wrong in (
        Highway(own[::-1].copy(), cross),
        Highway(own, other_lags),
        Highway(own, other_channels),
        Highway(own, cross[::-1].copy()),
    ):
        model.highway = wrong
        steps = as_steps(model, values, mask, fused_linear)
        assert np.abs(whole["forecast"] - steps["forecast"]).max() > 100 * TOLERANCE


def untrained(config: CellConfig, gated: float) -> AnomalyGatedGRU:
    own = np.full((config.order, config.channels), 0.9 / config.order, np.float32)
    ones = np.ones(config.channels, np.float32)
    highway = Highway(own, np.zeros((0, 0), np.float32))
    return AnomalyGatedGRU(config, highway, ones, gated * ones, seed=3)


def highway_over(first: Arrays, trusted: Arrays, highway: Highway) -> Arrays:
    """What the highway alone says to each of the trusted inputs [rows, channels]."""
    order = len(highway.own)
    past = np.concatenate([np.repeat(first[np.newaxis], order, axis=0), trusted])
    lags = [past[t : t + order][::-1] for t in range(len(trusted))]
    return np.array([lag.ravel() @ highway.matrix() for lag in lags])


@pytest.mark.parametrize("config", CONFIGS[1::2], ids=str)
def test_an_untrained_model_is_the_linear_highway_over_its_trusted_inputs(
    config: CellConfig,
) -> None:
    model = untrained(config, gated=1.0)
    values, mask = machine(config.channels)
    seen = as_sequence(model, values, mask)
    expected = highway_over(values[0], seen["trusted"], model.highway)
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


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_a_masked_reading_leaves_the_trusted_input_at_the_forecast(config: CellConfig) -> None:
    _, _, mask, seen = case(config)
    missing = mask == 0
    np.testing.assert_array_equal(seen["trusted"][missing], seen["forecast"][missing])
    assert not seen["gate"][missing].any()
    assert (seen["trusted"][~missing] != seen["forecast"][~missing]).all()


@pytest.mark.parametrize("config", [*CONFIGS[1:], *GATE_ALONE], ids=str)
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


@pytest.mark.parametrize("config", [*CONFIGS[2:4], GATE_ALONE[0], GRU_ALONE[0]], ids=str)
def test_weights_survive_arrays_and_assign(config: CellConfig) -> None:
    source, values, mask, expected = case(config)
    target = AnomalyGatedGRU(config, source.highway, source.innovation_scale, source.gated, seed=9)
    sequence = compiled(target)
    assert not np.array_equal(sequence(values, mask)["trusted"], expected["trusted"])
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
    first = untrained(config, 1.0)
    constants = (first.highway, first.innovation_scale, first.gated)
    other = AnomalyGatedGRU(config, *constants, seed=4).arrays()
    assert any(not np.array_equal(array, other[name]) for name, array in arrays[0].items())
