"""The detector: the pure step with a memory, and a self-test that trusts no interpreter."""

from pathlib import Path

import numpy as np
import pytest
import tiny_model
from harm import edit_manifest, replace_member

from edge_runtime import step as stepping
from edge_runtime.bundle import read_bundle
from edge_runtime.detector import Detector
from edge_runtime.errors import GruardError
from edge_runtime.fallback import Fallback
from edge_runtime.record import Flag, Record, Sample


def run(detector: Detector, rows: np.ndarray, start: int = 0) -> list[Record]:
    return [detector.step(Sample(start + i, None, row)) for i, row in enumerate(rows)]


def rewrite_golden(bundle: Path, arrays: dict[str, np.ndarray]) -> None:
    file = bundle / "scratch.npz"
    np.savez(file, **arrays)
    replace_member(bundle, "golden.npz", file.read_bytes())
    file.unlink()


def test_the_self_test_passes_on_what_was_converted(tiny_bundle: Path) -> None:
    Detector(read_bundle(tiny_bundle)).self_test()


def test_one_changed_bit_in_any_golden_output_fails_the_self_test(bundle_copy: Path) -> None:
    golden = read_bundle(bundle_copy).arrays("golden.npz")
    for name in [name for name in golden if name.startswith("outputs/")]:
        spoiled = {key: array.copy() for key, array in golden.items()}
        spoiled[name][-1, -1] ^= 1
        rewrite_golden(bundle_copy, spoiled)
        with pytest.raises(GruardError, match=f"{name} of golden vector 62 differs"):
            Detector(read_bundle(bundle_copy)).self_test()


def lowest_bit_flipped(array: np.ndarray) -> np.ndarray:
    """A copy of float32 `array` with the lowest bit of its very last number flipped."""
    bits = array.copy().view(np.uint32)
    bits.reshape(-1)[-1] ^= 1
    return bits.view(np.float32)


def test_the_hosts_own_forecast_is_tested_to_the_bit(bundle_copy: Path) -> None:
    golden = read_bundle(bundle_copy).arrays("golden.npz")
    rewrite_golden(bundle_copy, {**golden, "forecast": lowest_bit_flipped(golden["forecast"])})
    with pytest.raises(GruardError, match="forecast of golden vector 62 differs"):
        Detector(read_bundle(bundle_copy)).self_test()
    for name in ("history", "correction"):
        changed = golden[name] + np.float32(0.01)
        rewrite_golden(bundle_copy, {**golden, name: changed})
        with pytest.raises(GruardError, match="self-test failed: forecast of golden vector 0"):
            Detector(read_bundle(bundle_copy)).self_test()


@pytest.mark.parametrize("name", ["highway", "cross", "innovation_scale"])
def test_another_highway_than_the_validated_one_fails_the_self_test(
    bundle_copy: Path, name: str
) -> None:
    def change(manifest: dict) -> None:
        row = manifest["forecast"][name]
        row = row if name == "innovation_scale" else row[0]
        row[0] = row[0] * 1.001 + 1e-4

    edit_manifest(bundle_copy, change)
    with pytest.raises(GruardError, match="self-test failed: forecast of golden vector"):
        Detector(read_bundle(bundle_copy)).self_test()


def test_changed_golden_inputs_fail_the_self_test(bundle_copy: Path) -> None:
    golden = read_bundle(bundle_copy).arrays("golden.npz")
    golden["inputs/state_0"] = -golden["inputs/state_0"]
    rewrite_golden(bundle_copy, golden)
    with pytest.raises(GruardError, match="self-test failed"):
        Detector(read_bundle(bundle_copy)).self_test()


@pytest.mark.parametrize(
    "harm", ["one missing", "no forecast", "one too many", "none left", "one shorter"]
)
def test_golden_vectors_that_prove_nothing_fail_the_self_test(bundle_copy: Path, harm: str) -> None:
    golden = read_bundle(bundle_copy).arrays("golden.npz")
    if harm == "one missing":
        del golden["outputs/logit"]
    elif harm == "no forecast":
        del golden["forecast"]
    elif harm == "one too many":
        golden["outputs/colour"] = golden["outputs/logit"]
    elif harm == "none left":
        golden = {name: array[:0] for name, array in golden.items()}
    else:
        golden["outputs/logit"] = golden["outputs/logit"][:-1]
    rewrite_golden(bundle_copy, golden)
    with pytest.raises(GruardError, match="golden vectors do not fit the model"):
        Detector(read_bundle(bundle_copy)).self_test()


def test_without_a_threshold_for_this_kernel_nothing_starts(bundle_copy: Path) -> None:
    def rename(manifest: dict) -> None:
        manifest["thresholds"] = {"edgetpu": manifest["thresholds"]["tflite-builtin"]}

    edit_manifest(bundle_copy, rename)
    with pytest.raises(GruardError, match="no threshold for kernel tflite-builtin"):
        Detector(read_bundle(bundle_copy))


def test_records_are_those_of_the_pure_step(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    detector, fallback = Detector(bundle), Fallback(bundle.manifest, bundle.model_hash)
    rows = tiny_model.machine_rows(200, seed=7)
    rows[80:130, 1] += 30
    rows[150:170] = np.nan
    state = stepping.initial_state(detector.model)
    expected = []
    for i, row in enumerate(rows):
        sample = Sample(i, None, row)
        record, state, _ = stepping.step(detector.model, sample, state, fallback.step(sample))
        expected.append(record)
    assert run(detector, rows) == expected
    assert {record.tier for record in expected} == {1, 2, 3}  # or nothing would be compared


def test_a_second_detector_answers_the_same(tiny_bundle: Path) -> None:
    bundle, rows = read_bundle(tiny_bundle), tiny_model.machine_rows(60, seed=7)
    assert run(Detector(bundle), rows) == run(Detector(bundle), rows)


def test_reset_flags_the_warm_up_and_then_recovers(tiny_bundle: Path) -> None:
    bundle, rows = read_bundle(tiny_bundle), tiny_model.machine_rows(200, seed=7)
    warmup = bundle.manifest.tiers.warmup
    detector = Detector(bundle)
    before = run(detector, rows[:100])
    assert before[-1].tier == 1 and before[-1].valid
    detector.reset()
    after = run(detector, rows[100:], start=100)
    flagged = [Flag.WARMUP in record.flags for record in after]
    assert flagged == [True] * warmup + [False] * (100 - warmup)
    assert all(record.tier == 3 and not record.valid for record in after[:warmup])
    assert all(record.tier == 1 and record.valid for record in after[warmup:])


def test_reset_forgets_no_alarm(tiny_bundle: Path) -> None:
    detector, rows = Detector(read_bundle(tiny_bundle)), tiny_model.machine_rows(120, seed=7)
    rows[100:, 1] += 30
    assert run(detector, rows)[-1].alarm
    detector.reset()
    assert detector.state.alarm.active
