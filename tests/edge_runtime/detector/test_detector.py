"""The detector: the pure step with a memory, and a self-test that trusts no interpreter."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector import step as stepping
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.golden import WATCH_EVERY
from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Record, Sample
from tests.apparatus.harm import edit_manifest, flip_in_memory


def run(detector: Detector, rows: np.ndarray, start: int = 0) -> list[Record]:
    return [detector.step(Sample(start + i, None, row)) for i, row in enumerate(rows)]


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


def test_a_weight_that_changes_in_memory_is_noticed(tiny_bundle: Path) -> None:
    bundle, rows = read_bundle(tiny_bundle), tiny_model.machine_rows(200, seed=7)
    detector = Detector(bundle)
    run(detector, rows[:150])
    flip_in_memory(bundle.model, len(bundle.model) // 2)
    with pytest.raises(GruardError, match="its weights changed in memory"):
        run(detector, rows[150:], start=150)


def test_a_constant_that_changes_in_memory_is_noticed(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    detector, steps = Detector(bundle), len(bundle.arrays("golden.npz")["rows"])
    rows = tiny_model.machine_rows(110 + (steps + 1) * WATCH_EVERY, seed=7)
    run(detector, rows[:110])
    detector.model.innovation_scale[1] *= np.float32(1.001)
    with pytest.raises(GruardError, match="self-test failed at step"):
        run(detector, rows[110:], start=110)


BOUNDED = ("hidden", "gate", "history", "value")
NO_NUMBER = (np.nan, np.inf, -np.inf)


@pytest.mark.parametrize(
    ("part", "number"),
    [*product((*BOUNDED, "correction", "parts", "terms"), NO_NUMBER), *product(BOUNDED, (1e30,))],
)
def test_a_state_that_changes_in_memory_is_noticed_before_it_is_used(
    tiny_bundle: Path, part: str, number: float
) -> None:
    detector, rows = Detector(read_bundle(tiny_bundle)), tiny_model.machine_rows(150, seed=7)
    run(detector, rows[:-1])
    state = detector.state
    assert state.recurrent
    of_part = {**vars(state.score), **vars(state.recurrent), "hidden": state.recurrent.hidden[0]}
    of_part[part].flat[-1] = number
    with pytest.raises(GruardError, match="its state changed in memory"):
        run(detector, rows[-1:])


@pytest.mark.long
def test_a_sound_model_is_watched_for_ever(tiny_bundle: Path) -> None:
    """The self-test starts anew when it is through, and changes no record."""
    bundle = read_bundle(tiny_bundle)
    detector, steps = Detector(bundle), len(bundle.arrays("golden.npz")["rows"])
    records = run(detector, tiny_model.machine_rows((steps + 2) * WATCH_EVERY, seed=7))
    assert records[-1].tier == 1
