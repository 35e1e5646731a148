"""A gate without a GRU, and a GRU without a gate: whole bundles that quantise, prove and run."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from spoiling import coarse_ranges

from convert.checks.arithmetic import one_step_checks, rollout_checks, state_errors
from convert.checks.behaviour import clean_checks
from convert.export import export_float
from convert.exported import exported
from convert.twins import Pair, float_twin
from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.graph_rules import signature
from edge_runtime.bundle.manifest import PARTS
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.cell import Model, build_model
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.interpreter import Int8Graph
from edge_runtime.learning.check import Check
from edge_runtime.learning.rollout import Rollout, inputs_at, records_of, roll
from edge_runtime.learning.run import Run
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.record import Sample
from train.cell_config import CellConfig
from train.run_folder import read_run

pytestmark = pytest.mark.long

FLOW = 1
SIZES = {"gate": {"gru_layers": 0}, "gru": {"gate_layers": 0}}


class Half:
    """One half model: its run, its bundle and both arithmetics over clean rows, each made once."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder

    @functools.cached_property
    def run(self) -> Run:
        path = self.folder / "run"
        tiny_model.write_run(path, name=self.kind, **SIZES[self.kind])
        return read_run(path)

    @functools.cached_property
    def config(self) -> CellConfig:
        return CellConfig(**self.run.config.sizes)

    @functools.cached_property
    def bundle(self) -> Bundle:
        return read_bundle(tiny_model.write_bundle(self.run.path, self.folder))

    @functools.cached_property
    def models(self) -> tuple[Model, Model]:
        """The int8 model of the bundle and its float twin."""
        float_model = export_float(self.run.weights, self.config)
        manifest = self.bundle.manifest
        return shipped_model(manifest, self.bundle.model), float_twin(manifest, float_model)

    @functools.cached_property
    def rollouts(self) -> tuple[Rollout, Rollout]:
        """Clean rows with one hole and one fault through both."""
        quantised, reference = (roll(model, self.rows) for model in self.models)
        return quantised, reference

    @functools.cached_property
    def rows(self) -> np.ndarray:
        rows = tiny_model.machine_rows(400, seed=8)
        rows[200:206, FLOW] += 20
        rows[300:306, FLOW] = np.nan
        return rows


@pytest.fixture(scope="module", params=list(SIZES))
def half(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Half:
    return Half(request.param, tmp_path_factory.mktemp(request.param))


def test_the_bundle_holds_the_tensors_of_its_half_alone(half: Half) -> None:
    named = signature(half.config.gru_layers, half.kind == "gate")
    manifest = half.bundle.manifest
    assert (set(manifest.inputs), set(manifest.outputs)) == named
    assert not manifest.linear and list(manifest.thresholds) == ["tflite-builtin"]
    golden = {name for name in half.bundle.arrays("golden.npz") if name.startswith("codes/")}
    assert golden == {f"codes/{name}" for name in manifest.outputs}


def test_the_self_test_passes(half: Half) -> None:
    Detector(half.bundle).self_test()


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.passed}


def checks_of(half: Half, quantised: Model, seen: Rollout, reference: Rollout) -> list[Check]:
    """As `validate` puts them together: without a state there is none to compare."""
    errors = state_errors(seen.hidden, reference.hidden)
    return [
        *one_step_checks(quantised, half.models[1], seen),
        *(rollout_checks(errors, 200) if quantised.graph.state_sizes else []),
        *clean_checks(quantised, [Pair(seen, reference)]),
    ]


def test_int8_and_float_agree_step_by_step_and_left_alone(half: Half) -> None:
    quantised, reference = half.rollouts
    checks = checks_of(half, half.models[0], quantised, reference)
    names = {check.name for check in checks}
    assert ("one step: gate, max" in names) == (half.kind == "gate")
    assert ("one step: state, RMS" in names) == (half.kind == "gru")
    assert ("rollout: state, RMS" in names) == (half.kind == "gru")
    assert failed(checks) == set()
    assert len(checks) == {"gate": 1 + 3, "gru": 3 + 2 + 3}[half.kind]
    assert not np.array_equal(quantised.score, reference.score)  # it is another arithmetic


def test_an_int8_file_of_other_weights_is_found_out(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse_ranges(monkeypatch)
    name = {"gate": "logit_kernel", "gru": "correction_kernel"}[half.kind]
    weights = {**half.run.weights, name: -half.run.weights[name]}
    run = replace(half.run, weights=weights)
    model = exported(run, half.config, lambda sentence: None).model
    spoiled = shipped_model_of(half, model)
    found = checks_of(half, spoiled, half.rollouts[0], half.rollouts[1])
    expected = {"gate": "one step: gate, max", "gru": "one step: forecast, RMS"}[half.kind]
    assert expected in failed(found)


def shipped_model_of(half: Half, model: bytes) -> Model:
    """Another int8 file of the same signature in the step of this half."""
    graph = read_graph(model, "other")
    softplus = np.array(half.bundle.manifest.tables.softplus, np.float32)
    return build_model(half.bundle.manifest, Int8Graph(model, graph, softplus), "")


@pytest.mark.parametrize("half", ["gate"], indirect=True)
def test_a_gate_alone_keeps_a_fault_out_and_corrects_nothing(half: Half) -> None:
    rollout = half.rollouts[0]
    assert rollout.hidden.shape == (400, 0)
    during, calm = slice(200, 206), slice(100, 200)
    assert (rollout.gate[during, FLOW] < 0.5).all()
    assert (rollout.gate[calm, FLOW] > 0.5).mean() > 0.9
    records = records_of(half.models[0], half.rows)
    assert all("flow" in records[i].imputed for i in range(200, 206))
    # The forecast goes on from what is trusted, not from the faulty reading.
    assert (np.abs(rollout.trusted[during, FLOW] - rollout.value[during, FLOW]) > 1).all()
    model = half.models[0]
    lags = [rollout.trusted[50 - 1 - k].astype(float) for k in range(len(model.lines.highway))]
    expected = model.lines.cross.astype(float) @ np.concatenate(lags)
    expected += sum(a * x for a, x in zip(model.lines.highway.astype(float), lags, strict=True))
    np.testing.assert_allclose(rollout.forecast[50], expected, rtol=1e-5, atol=1e-5)
    assert rollout.doubt[during, FLOW].min() > rollout.doubt[calm, FLOW].mean()


@pytest.mark.parametrize("half", ["gru"], indirect=True)
def test_a_gru_alone_trusts_every_reading_and_corrects_the_forecast(half: Half) -> None:
    rollout = half.rollouts[0]
    np.testing.assert_array_equal(rollout.gate, rollout.mask)
    assert not rollout.doubt.any() and not rollout.parts[..., PARTS.index("gate")].any()
    assert rollout.hidden.any()
    records = records_of(half.models[0], half.rows)
    for record in records:  # only what was not read is replaced
        assert record.imputed == tuple(n for n in record.masked if n != "set_point")
    assert records[303].imputed == ("flow",) and rollout.mask[203, FLOW] == 1
    inputs = inputs_at(rollout, range(len(rollout.score)))
    corrections = np.array([half.models[0].graph(each)["correction"] for each in inputs])
    model = half.models[0]
    lags = [rollout.trusted[50 - 1 - k].astype(float) for k in range(len(model.lines.highway))]
    expected = model.lines.cross.astype(float) @ np.concatenate(lags)
    expected += sum(a * x for a, x in zip(model.lines.highway.astype(float), lags, strict=True))
    expected += model.innovation_scale * corrections[49]
    np.testing.assert_allclose(rollout.forecast[50], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(corrections).max() > 0.05


def test_the_device_settles_answers_and_finds_a_fault(half: Half) -> None:
    rows = tiny_model.machine_rows(300, seed=9)
    rows[150:165, FLOW] += 20
    detector = Detector(half.bundle)
    records = [detector.step(Sample(i, None, row)) for i, row in enumerate(rows)]
    warmup = half.bundle.manifest.tiers.warmup
    assert {record.tier for record in records[:warmup]} == {3}
    assert {record.tier for record in records[warmup:150]} == {1}
    assert not any(record.alarm for record in records[warmup:150])
    assert any(record.alarm and record.blamed[0] == "flow" for record in records[150:165])
    assert [r.score for r in records[warmup:]] == [
        pytest.approx(float(score)) for score in roll(detector.model, rows).score[warmup:]
    ]
