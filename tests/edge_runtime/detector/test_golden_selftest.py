"""The self-test: a replay that covers every tier and fault, and notices a single bit."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from edge_runtime.bundle.manifest_rules import BRIDGE, OLDER
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.golden import (
    FEWEST_BEFORE,
    FEWEST_STEPS,
    MOST_STEPS,
    PART,
    WATCH_EVERY,
    SelfTest,
    replay,
)
from edge_runtime.detector.kernels import XNNPACK_KERNEL_ID, available_kernels
from edge_runtime.detector.thresholds import store_threshold, threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Sample
from tests.apparatus.harm import edit_manifest, replace_member

Arrays = dict[str, np.ndarray]


@pytest.fixture(params=["tiny", "linear"])
def copy(request: pytest.FixtureRequest) -> Path:
    """A bundle to harm: with a graph, and without one."""
    name = {"tiny": "bundle_copy", "linear": "linear_copy"}[request.param]
    found: Path = request.getfixturevalue(name)
    return found


def golden_of(bundle: Path) -> Arrays:
    return dict(read_bundle(bundle).arrays("golden.npz"))


def rewrite_golden(bundle: Path, arrays: Arrays) -> None:
    file = bundle / "scratch.npz"
    np.savez(file, **arrays)
    replace_member(bundle, "golden.npz", file.read_bytes())
    file.unlink()


def refused(bundle: Path) -> str:
    with pytest.raises(GruardError) as caught:
        Detector(read_bundle(bundle)).self_test()
    return str(caught.value)


def with_last_bit_flipped(array: np.ndarray, step: int) -> np.ndarray:
    """A copy of which the lowest bit of the last number of `step` is another."""
    changed = array.copy()
    row = np.atleast_1d(changed[step])
    row.view(np.dtype(f"u{row.itemsize}")).reshape(-1)[-1] ^= 1
    changed[step] = row.reshape(changed[step].shape)
    return changed


def test_the_self_test_passes_on_what_was_converted(copy: Path) -> None:
    Detector(read_bundle(copy)).self_test()


def test_the_replay_visits_every_tier_with_faults_in_it(copy: Path) -> None:
    golden = golden_of(copy)
    assert len(golden["rows"]) >= FEWEST_STEPS
    assert set(golden["tier"]) == {1, 2, 3}
    seen = np.bitwise_or.reduce(golden["flags"])
    for flag in (Flag.IMPUTED, Flag.FREE_RUN, Flag.RESYNC, Flag.WARMUP, Flag.FALLBACK):
        assert seen & flag, flag
    assert np.isnan(golden["rows"]).any() and 0 < golden["alarm"].mean() < 1
    assert {-1, 1} <= set(np.diff(golden["alarm"].astype(int)))  # it comes and it goes


def test_one_flipped_bit_of_any_answer_is_noticed_and_named(copy: Path) -> None:
    golden = golden_of(copy)
    for name in golden.keys() - {"rows", "threshold"}:
        if not golden[name].size:
            continue  # a linear model has no state
        changed = with_last_bit_flipped(golden[name], 200)
        if name == "alarm" or golden[name].dtype == bool:
            changed = golden[name].copy()
            changed[200] = ~changed[200]
        rewrite_golden(copy, {**golden, name: changed})
        assert f"self-test failed at step 200 in {name};" in refused(copy)


def test_other_rows_or_another_threshold_give_other_answers(copy: Path) -> None:
    golden = golden_of(copy)
    rows = golden["rows"].copy()
    rows[100, 1] += np.float32(0.5)
    rewrite_golden(copy, {**golden, "rows": rows})
    assert "self-test failed at step 100 in" in refused(copy)
    rewrite_golden(copy, {**golden, "threshold": golden["threshold"] * 3})
    assert "alarm" in refused(copy)


@pytest.mark.parametrize("name", ["highway", "cross", "innovation_scale"])
def test_the_next_float_of_a_constant_fails_the_self_test(copy: Path, name: str) -> None:
    def change(manifest: dict) -> None:
        row = manifest["forecast"][name]
        row = row if name == "innovation_scale" else row[0]
        place = int(np.abs(np.array(row)).argmax())
        row[place] = float(np.nextafter(np.float32(row[place]), np.float32(np.inf)))

    edit_manifest(copy, change)
    if name == "innovation_scale":  # it scales, and may round to the same clipped values
        edit_manifest(copy, lambda m: m["forecast"].update(
            innovation_scale=[1.01 * v for v in m["forecast"]["innovation_scale"]]))  # fmt: skip
    found = read_bundle(copy)
    if found.manifest.linear and name == "innovation_scale":
        return  # nothing that a linear model answers depends on it
    assert "self-test failed at step" in refused(copy)


@pytest.fixture(params=["tiny-1.gruard", "straight-1.gruard"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """As a gruard before the bridge made it: other answers from the first missing reading on."""
    formats = Path(__file__).parents[2] / "data/formats/1"
    return Path(shutil.copytree(formats / request.param, tmp_path / request.param))


def first_missing(golden: Arrays) -> int:
    return int(np.flatnonzero(np.isnan(golden["rows"]).any(axis=1))[0])


def test_an_older_bundle_is_read_and_tested_as_far_as_its_answers_hold(older: Path) -> None:
    found = read_bundle(older)
    assert (found.manifest.schema, found.manifest.tiers.bridge) == (OLDER, BRIDGE)
    Detector(found).self_test()
    golden = golden_of(older)
    step = first_missing(golden) - 1
    gate = with_last_bit_flipped(golden["gate"], step)
    rewrite_golden(older, {**golden, "gate": gate})
    assert f"self-test failed at step {step} in gate" in refused(older)


def test_an_older_bundle_of_which_too_little_holds_is_refused(older: Path) -> None:
    golden = golden_of(older)
    rows = golden["rows"].copy()
    rows[FEWEST_BEFORE - 1, 0] = np.nan
    rewrite_golden(older, {**golden, "rows": rows})
    assert "63 steps of an older gruard" in refused(older) and "convert its run again" in refused(
        older
    )


def test_a_threshold_set_on_the_device_changes_nothing(copy: Path) -> None:
    bundle = read_bundle(copy)
    (kernel,) = bundle.manifest.thresholds
    own = threshold_of(bundle, kernel)
    store_threshold(bundle, kernel, replace(own, value=own.value + 9, clear=own.clear + 9))
    detector = Detector(bundle)
    assert detector.model.manifest.thresholds[kernel].value == own.value + 9
    detector.self_test()


def test_another_kernel_may_be_apart_a_little_and_no_more(bundle_copy: Path) -> None:
    if XNNPACK_KERNEL_ID not in available_kernels():
        pytest.skip("no interpreter with XNNPACK is installed (ai-edge-litert or TensorFlow)")
    bundle = read_bundle(bundle_copy)
    (own,) = bundle.manifest.thresholds.values()
    store_threshold(bundle, XNNPACK_KERNEL_ID, own)
    Detector(bundle, XNNPACK_KERNEL_ID).self_test()
    golden = golden_of(bundle_copy)
    for name in ("forecast", "gate", "state"):
        rewrite_golden(bundle_copy, {**golden, name: golden[name] + np.float32(0.06)})
        found = read_bundle(bundle_copy)
        store_threshold(found, XNNPACK_KERNEL_ID, own)
        with pytest.raises(GruardError, match=f"in {name}, RMS over 0.05;"):
            Detector(found, XNNPACK_KERNEL_ID).self_test()


def missing(golden: Arrays) -> None:
    del golden["forecast"]


def no_parts(golden: Arrays) -> None:
    del golden["parts"]


def no_rows(golden: Arrays) -> None:
    del golden["rows"]


def foreign(golden: Arrays) -> None:
    golden["colour"] = golden["score"]


def empty(golden: Arrays) -> None:
    golden.update({name: array[:0] for name, array in golden.items() if name != "threshold"})


def few(golden: Arrays) -> None:
    steps = FEWEST_STEPS - 1
    golden.update({n: array[:steps] for n, array in golden.items() if n != "threshold"})


def many(golden: Arrays) -> None:
    times = -(-(MOST_STEPS + 1) // len(golden["rows"]))
    for name in golden.keys() - {"threshold"}:
        golden[name] = np.concatenate([golden[name]] * times)


def shorter(golden: Arrays) -> None:
    golden["score"] = golden["score"][:-1]


def wider(golden: Arrays) -> None:
    golden["rows"] = np.concatenate([golden["rows"], golden["rows"]], axis=1)


def other_type(golden: Arrays) -> None:
    golden["forecast"] = golden["forecast"].astype(np.float64)


def scalar(golden: Arrays) -> None:
    golden["rows"] = np.float32(3)


HARMS = [missing, no_parts, no_rows, foreign, empty, few, many, shorter, wider, other_type, scalar]


@pytest.mark.parametrize("harm", HARMS)
def test_golden_vectors_that_do_not_fit_are_refused(
    copy: Path, harm: Callable[[Arrays], None]
) -> None:
    golden = golden_of(copy)
    harm(golden)
    rewrite_golden(copy, golden)
    assert "golden vectors do not fit the model: " in refused(copy)


def test_a_distrusted_model_is_tested_in_parts_before_it_is_trusted_again(
    bundle_copy: Path,
) -> None:
    """A golden answer that is wrong at its end shows once as many samples have gone by."""
    golden = golden_of(bundle_copy)
    last = len(golden["rows"]) - 1
    score = with_last_bit_flipped(golden["score"], last)
    rewrite_golden(bundle_copy, {**golden, "score": score})
    detector = Detector(read_bundle(bundle_copy))
    rows = tiny_model.machine_rows(400, seed=9)
    for index in range(60):
        detector.step(Sample(index, None, rows[index]))
    tiers = replace(detector.state.tiers, distrusted=True, agreed=0)
    detector.state = replace(detector.state, tiers=tiers)
    with pytest.raises(GruardError, match=f"self-test failed at step {last} in score"):
        for index in range(60, 400):
            detector.step(Sample(index, None, rows[index]))
    assert index - 60 >= last // PART - 1 and detector.state.tiers.distrusted


def test_a_model_that_stays_distrusted_is_tested_whole_once_each_time(copy: Path) -> None:
    """All of it over and over would cost four steps beside each, for as long as it lasts."""
    bundle = read_bundle(copy)
    detector, steps = Detector(bundle), len(golden_of(copy)["rows"])
    played = []

    def play(rows: np.ndarray, threshold: np.ndarray) -> Iterator[Arrays]:
        for found in replay(detector.model, rows, threshold):
            played.append(found)
            yield found

    test = SelfTest(bundle, play, bundle.model, exact=True)
    for _ in range(2):
        played.clear()
        test.advance(distrusted=False, still=True)
        for _ in range(steps // PART + 1):
            test.advance(distrusted=True, still=True)
        assert 0 <= len(played) - steps <= 1, "and the watch has come by"
        for _ in range(steps):
            test.advance(distrusted=True, still=True)
        assert len(played) - steps <= 2 * steps // WATCH_EVERY
        test.advance(distrusted=True, still=False)
