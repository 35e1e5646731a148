"""The proof bites: bundles that are spoiled on purpose, and who finds it out.

Each spoiling leaves files that look whole, with every hash made good again, as a careless script or
a fault in the tools would. What finds it: the reader on the device, the self-test there, or a check
of the validation, by name.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from spoiling import (
    checks_that_fail,
    coarse_ranges,
    edited_manifest,
    replaced_member,
    self_test_fails,
    weight_buffers,
    with_buffer,
    with_quantisation,
)

from convert.convert_run import Conversion, convert_run
from convert.export import export_float
from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.graph_rules import graph_faults
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.kernels import KERNEL_ID, XNNPACK_KERNEL_ID, available_kernels
from edge_runtime.errors import GruardError
from edge_runtime.learning.run import Run
from train.cell_config import CellConfig

pytestmark = pytest.mark.long

SELF_TEST = "golden vectors: differing"
GATE, STATE = "one step: gate, max", "one step: state, RMS"
THRESHOLD = "threshold: off its calibration"
STANDOUT = "calibration: strangest row, over the usual"


@pytest.fixture
def bundle(good_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good_bundle, tmp_path / good_bundle.name))


def model_of(bundle: Path) -> bytes:
    return (bundle / "model.tflite").read_bytes()


def other_weights(run: Run, change: Callable[[dict[str, np.ndarray]], None]) -> bytes:
    """The int8 file of weights that were changed, quantised on rows of its own."""
    from convert.exported import exported

    weights = {name: array.copy() for name, array in run.weights.items()}
    change(weights)
    spoiled = replace(run, weights=weights)
    with pytest.MonkeyPatch.context() as patch:
        coarse_ranges(patch)
        return exported(spoiled, CellConfig(**run.config.sizes), lambda sentence: None).model


# Quantisation that is no longer that of the codes.


# The rules of the graph see most of these; the manifest has the last word.
ODD_SCALE = "one scale and zero point|an output of scale|differs between manifest and model"


@pytest.mark.parametrize("output", ["logit", "gate_next", "correction", "candidate_0", "update_0"])
def test_a_shifted_scale_that_the_manifest_does_not_share_is_refused_by_the_reader(
    bundle: Path, output: str
) -> None:
    graph = read_graph(model_of(bundle), "model")
    tensor = graph.tensors[graph.outputs[output]]
    spoiled = with_quantisation(model_of(bundle), tensor.index, scale=1.5 * tensor.scales[0])
    replaced_member(bundle, "model.tflite", spoiled)
    with pytest.raises(GruardError, match=ODD_SCALE):
        read_bundle(bundle)


def internal_tensors(model: bytes) -> list[int]:
    """Results inside the graph whose quantisation nothing but their own operators uses."""
    graph = read_graph(model, "model")
    named = {*graph.inputs.values(), *graph.outputs.values()}
    made = [o.outputs[0] for o in graph.operators if o.name in ("FULLY_CONNECTED", "ADD", "MUL")]
    return [index for index in made if index not in named]


def test_a_shifted_scale_inside_the_graph_fails_the_self_test(bundle: Path) -> None:
    original = model_of(bundle)
    inside = internal_tensors(original)
    assert len(inside) >= 12
    allowed = 0
    for index in inside:
        scale = read_graph(original, "model").tensors[index].scales[0]
        spoiled = with_quantisation(original, index, scale=1.5 * scale)
        allowed += not graph_faults(read_graph(spoiled, "model"))
        replaced_member(bundle, "model.tflite", spoiled)
        assert self_test_fails(bundle), read_graph(original, "model").tensors[index].name
    assert allowed >= 8  # the others are refused before they are run


def test_swapped_zero_points_are_refused(bundle: Path) -> None:
    """Of two outputs, in the file and in the manifest alike.

    Inside the graph maker and reader of a tensor share its zero-point; there another one changes
    nothing but the ends of the range.
    """
    graph = read_graph(model_of(bundle), "model")
    a, b = (graph.tensors[graph.outputs[name]] for name in ("gate_next", "update_0"))
    assert a.zero_points != b.zero_points
    spoiled = with_quantisation(model_of(bundle), a.index, zero_point=b.zero_points[0])
    spoiled = with_quantisation(spoiled, b.index, zero_point=a.zero_points[0])
    replaced_member(bundle, "model.tflite", spoiled)
    with pytest.raises(GruardError, match=ODD_SCALE):
        read_bundle(bundle)

    def swapped(manifest: dict) -> None:
        outputs = manifest["outputs"]
        first, second = (outputs[name]["zero_point"] for name in ("gate_next", "update_0"))
        outputs["gate_next"]["zero_point"] = second
        outputs["update_0"]["zero_point"] = first

    edited_manifest(bundle, swapped)
    with pytest.raises(GruardError, match=r"one scale and zero point|an output of scale"):
        read_bundle(bundle)


# Weights.


def test_one_flipped_bit_in_each_weight_tensor_fails_the_self_test(bundle: Path) -> None:
    original = model_of(bundle)
    buffers = weight_buffers(original)
    assert len(buffers) >= 10
    for name, index, data in buffers:
        changed = bytearray(data)
        changed[int(np.argmax(np.abs(np.frombuffer(data, np.int8).astype(int))))] ^= 0x40
        replaced_member(bundle, "model.tflite", with_buffer(original, index, bytes(changed)))
        assert self_test_fails(bundle), name


def zeroed_gate(weights: dict[str, np.ndarray]) -> None:
    weights["logit_kernel"][:] = 0


def stuck_state(weights: dict[str, np.ndarray]) -> None:
    half = weights["gru_0_bias"].shape[0] // 2
    weights["gru_0_bias"][:half] = 40.0  # the update gate is 1: the old state stays


@pytest.mark.parametrize(
    ("change", "caught"), [(zeroed_gate, GATE), (stuck_state, STATE)], ids=["gate", "state"]
)
def test_another_model_in_the_bundle_fails_self_test_and_validation(
    bundle: Path, good_run: Run, change: Callable[[dict[str, np.ndarray]], None], caught: str
) -> None:
    """The scales of its tensors are made good in the manifest, so that the reader takes it."""
    model = other_weights(good_run, change)
    graph = read_graph(model, "spoiled")

    def described(manifest: dict) -> None:
        for side, names in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            for name, index in names.items():
                tensor = graph.tensors[index]
                manifest[side][name] |= {
                    "scale": tensor.scales[0],
                    "zero_point": tensor.zero_points[0],
                }

    edited_manifest(bundle, described)
    replaced_member(bundle, "model.tflite", model)
    assert {SELF_TEST, caught} <= checks_that_fail(bundle, good_run)


# Arithmetic.


def test_a_float_model_is_refused_by_the_reader(bundle: Path, good_run: Run) -> None:
    config = CellConfig(**good_run.config.sizes)
    replaced_member(bundle, "model.tflite", export_float(good_run.weights, config))
    with pytest.raises(GruardError, match="tensors are not int8"):
        read_bundle(bundle)


def test_a_float_operator_left_in_is_refused_by_the_reader(bundle: Path, good_run: Run) -> None:
    """int8 arithmetic between float inputs and outputs, as the converter makes it by default."""
    import tensorflow as tf

    from convert import export

    config = CellConfig(**good_run.config.sizes)
    converter = export.step_converter(good_run.weights, config)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    replaced_member(bundle, "model.tflite", export.converted(converter))
    with pytest.raises(GruardError, match=r"not int8|not allowed"):
        read_bundle(bundle)


# Thresholds and what they are made of.


@dataclass(frozen=True)
class FromFloat:
    """The threshold that the float model would have got."""

    value: float
    clear: float


def float_threshold(conversion: Conversion, run: Run) -> FromFloat:
    from convert.twins import float_twin
    from edge_runtime.learning.calibrated import _calibration
    from edge_runtime.learning.rollout import roll_all
    from edge_runtime.learning.streams import clean_test_rows

    twin = float_twin(conversion.manifest, conversion.float_model)
    unseen, test = (roll_all(twin, rows) for rows in (run.rows["calibrate"], clean_test_rows(run)))
    found = _calibration(twin, unseen, test, run, 1.0).threshold
    return FromFloat(found.value, found.clear)


def with_threshold(bundle: Path, value: float, clear: float) -> None:
    edited_manifest(bundle, lambda m: m["thresholds"][KERNEL_ID].update(value=value, clear=clear))


def test_the_threshold_of_the_float_model_fails_the_validation(
    bundle: Path, good_run: Run, conversion: Conversion
) -> None:
    found = float_threshold(conversion, good_run)
    assert found.value != conversion.manifest.thresholds[KERNEL_ID].value
    with_threshold(bundle, found.value, found.clear)
    assert checks_that_fail(bundle, good_run) == {THRESHOLD}


@pytest.mark.long
def test_the_threshold_of_another_kernel_fails_the_validation(
    bundle: Path, good_run: Run, conversion: Conversion
) -> None:
    if XNNPACK_KERNEL_ID not in conversion.manifest.thresholds:
        pytest.skip("no interpreter with XNNPACK is installed (ai-edge-litert or TensorFlow)")
    other = conversion.manifest.thresholds[XNNPACK_KERNEL_ID]
    with_threshold(bundle, other.value, other.clear)
    assert checks_that_fail(bundle, good_run) == {THRESHOLD}


@pytest.mark.long
def test_calibration_rows_with_the_anomaly_in_them_fail_the_conversion(
    good_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing but the verdict on the kernel that decides.
    coarse_ranges(monkeypatch)
    monkeypatch.setattr("convert.convert_run.available_kernels", lambda: available_kernels()[:1])
    monkeypatch.setattr("convert.convert_run.diagnosis_of_run", lambda *_: (None, None))
    rows = [recording.copy() for recording in good_run.rows["calibrate"]]
    rows[0][200:212, 1] += 60
    spoiled = replace(good_run, rows={**good_run.rows, "calibrate": rows})
    found = convert_run(spoiled, 1, 1.0, lambda sentence: None)
    (failed,) = [check for check in found.verdict.checks if not check.passed]
    assert failed.name == STANDOUT and "Label it" in failed.meaning
    row, count = map(int, failed.worst.removeprefix("settled row ").split(" of "))
    assert 200 <= row + found.manifest.tiers.warmup < 230
    assert count + found.manifest.tiers.warmup == len(good_run.rows["calibrate"][0])


# The bundle as a whole.


def test_an_edited_manifest_is_refused_by_the_reader(bundle: Path) -> None:
    file = bundle / "manifest.json"
    data = json.loads(file.read_text())
    data["thresholds"][KERNEL_ID]["value"] *= 2
    file.write_text(json.dumps(data))
    with pytest.raises(GruardError, match=r"does not match manifest\.sha256"):
        read_bundle(bundle)


@pytest.mark.parametrize("member", ["model.tflite", "golden.npz", "report.html", "report.json"])
def test_members_of_another_bundle_are_refused_by_the_reader(
    bundle: Path, tiny_bundle: Path, member: str
) -> None:
    theirs = (tiny_bundle / member).read_bytes()
    assert theirs != (bundle / member).read_bytes()
    (bundle / member).write_bytes(theirs)
    with pytest.raises(GruardError, match=f"{member}: does not match the manifest's SHA-256"):
        read_bundle(bundle)


def test_the_manifest_of_another_bundle_is_refused_by_the_reader(
    bundle: Path, tiny_bundle: Path
) -> None:
    for name in ("manifest.json", "manifest.sha256"):
        shutil.copy(tiny_bundle / name, bundle / name)
    with pytest.raises(GruardError, match="does not match the manifest's SHA-256"):
        read_bundle(bundle)


def test_the_golden_vectors_of_another_bundle_fail_the_self_test(
    bundle: Path, tiny_bundle: Path
) -> None:
    replaced_member(bundle, "golden.npz", (tiny_bundle / "golden.npz").read_bytes())
    assert self_test_fails(bundle)


def test_the_good_bundle_fails_nothing(bundle: Path, good_run: Run) -> None:
    assert not self_test_fails(bundle) and checks_that_fail(bundle, good_run) == set()
