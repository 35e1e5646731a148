"""Which threshold holds: this machine's own before the bundle's, and never another bundle's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from supervised_run import PATIENT

from edge_runtime.bundle.manifest import Threshold
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.commands.assembly import RunOptions
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.kernels import KERNEL_ID, XNNPACK_KERNEL_ID
from edge_runtime.detector.thresholds import (
    SCHEMA,
    local_file,
    local_thresholds,
    store_threshold,
    threshold_of,
)
from edge_runtime.errors import GruardError
from edge_runtime.plain import seal
from edge_runtime.record import Sample
from edge_runtime.supervision.worker_process import WorkerGoneError, WorkerProcess


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    return read_bundle(bundle_copy)


@pytest.fixture
def higher(bundle: Bundle) -> Threshold:
    own = bundle.manifest.thresholds[KERNEL_ID]
    # Of few digits: the last of seventeen may be another one of the same double.
    value, clear = round(own.value + 5, 3), round(own.clear + 5, 3)
    return replace(own, value=value, clear=clear, statement="set here")


def test_the_bundle_s_own_threshold_holds_until_there_is_another(
    bundle: Bundle, higher: Threshold
) -> None:
    own = bundle.manifest.thresholds[KERNEL_ID]
    assert threshold_of(bundle, KERNEL_ID) == own and local_thresholds(bundle) == {}
    before = {file.name: file.read_bytes() for file in bundle.path.iterdir()}
    file = store_threshold(bundle, KERNEL_ID, higher)
    assert file == local_file(bundle.path) == bundle.path.parent / "tiny-1.thresholds.json"
    assert threshold_of(bundle, KERNEL_ID) == higher
    assert Detector(bundle).model.manifest.thresholds == {KERNEL_ID: higher}
    assert {file.name: file.read_bytes() for file in bundle.path.iterdir()} == before
    file.unlink()
    assert Detector(bundle).model.manifest.thresholds == {KERNEL_ID: own}


def test_each_kernel_keeps_its_own(bundle: Bundle, higher: Threshold) -> None:
    other = replace(higher, value=99.0)
    store_threshold(bundle, KERNEL_ID, higher)
    store_threshold(bundle, XNNPACK_KERNEL_ID, other)
    assert local_thresholds(bundle) == {KERNEL_ID: higher, XNNPACK_KERNEL_ID: other}


def test_a_kernel_without_a_threshold_is_told_how_to_get_one(bundle: Bundle) -> None:
    with pytest.raises(GruardError, match=r"no threshold for kernel core-x; .*gruard calibrate"):
        threshold_of(bundle, "core-x")


def test_thresholds_of_another_bundle_of_the_same_name_are_refused_and_replaced(
    bundle: Bundle, higher: Threshold
) -> None:
    other = replace(bundle, digest="0" * 64)
    store_threshold(other, KERNEL_ID, higher)
    for use in (lambda: Detector(bundle), lambda: local_thresholds(bundle)):
        with pytest.raises(GruardError, match="made for another bundle; delete it, or run gruard"):
            use()
    store_threshold(bundle, KERNEL_ID, higher)
    assert threshold_of(bundle, KERNEL_ID) == higher


@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_an_error_or_the_same_thresholds(
    bundle: Bundle, higher: Threshold, data: st.DataObject
) -> None:
    file = store_threshold(bundle, KERNEL_ID, higher)
    text = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(text[: data.draw(st.integers(0, len(text)))]))
    try:
        found = local_thresholds(bundle)
    except GruardError as error:
        assert str(file) in str(error)
    else:
        assert found == {KERNEL_ID: higher}


def test_every_flipped_bit_of_a_value_is_an_error(bundle: Bundle, higher: Threshold) -> None:
    """One that made a 1 of 18.6 a 9 gave another threshold, tier 1, and nothing in the log."""
    file = store_threshold(bundle, KERNEL_ID, higher)
    text = file.read_bytes()
    start = text.index(b'"value": ') + len('"value": ')
    for bit in range(8 * start, 8 * text.index(b",", start)):
        harmed = bytearray(text)
        harmed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(harmed)
        with pytest.raises(GruardError, match=r"its checksum is|not thresholds"):
            local_thresholds(bundle)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{}", "[" * 100_000, '{"schema": 3}', '{"a": 1}' * 200_000,
        seal({"schema": SCHEMA, "thresholds": {}}),
        seal({"schema": SCHEMA, "manifest": "", "thresholds": []}),
    ],
)  # fmt: skip
def test_what_is_no_such_file_names_itself_and_the_fix(bundle: Bundle, text: str) -> None:
    file = local_file(bundle.path)
    file.write_text(text)
    with pytest.raises(
        GruardError,
        match=r"(thresholds of this version; delete|larger than .*; remove) it",
    ) as caught:
        local_thresholds(bundle)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("value", ["3", None, True, float("nan"), float("inf"), 1e60, [1]])
def test_a_threshold_that_is_no_number_is_refused(
    bundle: Bundle, higher: Threshold, value: object
) -> None:
    file = store_threshold(bundle, KERNEL_ID, higher)
    data = json.loads(file.read_text())
    data["thresholds"][KERNEL_ID]["value"] = value
    del data["checksum"]
    file.write_text(json.dumps(data | {"schema": 1}))
    with pytest.raises(GruardError, match="tflite-builtin: value"):
        threshold_of(bundle, KERNEL_ID)


def test_a_full_disk_keeps_the_old_file_whole(bundle: Bundle, higher: Threshold) -> None:
    import resource
    import signal

    file = store_threshold(bundle, KERNEL_ID, higher)
    before, ignored = file.read_bytes(), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(GruardError, match=r"cannot be written \(File too large\)"):
            store_threshold(bundle, KERNEL_ID, replace(higher, value=1.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {bundle.path.name, file.name}


def options(bundle: Bundle) -> RunOptions:
    """Those of `gruard run BUNDLE --source -`."""
    return RunOptions(
        bundle=bundle.path, store=bundle.path, source="-", sinks=("-",), journal=None,
        journal_size=1, rate=None, deadline=None, inject="", healthy_minutes=10.0,
        status_file=None, metrics=None, force=False, append=False, state=None, watchdog=None,
        watchdog_timeout=10, allow_failed=False, kernel=None, trusted_keys=(), debug=False,
        keep_readings=None, keep_megabytes=1, learn=None, relearn=None, period=None, channels=(),
        language="en", on_alarm=None,
    )  # fmt: skip


def threshold_of_answer(process: WorkerProcess) -> float | None:
    """What a worker that is started now answers with."""
    process.start()
    try:
        assert process.poll_ready(PATIENT) is not None
        for index, row in enumerate(tiny_model.machine_rows(400, seed=7)):
            process.tell(sample := Sample(index, None, row))
            answer = process.answer(sample, PATIENT)
            assert answer is not None
            if answer.tier == 1:
                return answer.threshold
        raise AssertionError("the model never answered")
    finally:
        process.kill()


@pytest.fixture
def linear(linear_copy: Path) -> Bundle:
    return read_bundle(linear_copy)


@pytest.mark.long
@pytest.mark.parametrize("text", ["", "rot"])
def test_every_worker_of_a_run_has_the_thresholds_of_its_start(linear: Bundle, text: str) -> None:
    """A restarted worker took up what was calibrated, or had rotted, since the run began."""
    ((kernel, own),) = linear.manifest.thresholds.items()
    lines: list[str] = []
    process = options(linear).process(linear, linear.manifest.channel_names, lines.append)
    assert threshold_of_answer(process) == pytest.approx(own.value) and lines == []
    file = store_threshold(linear, kernel, replace(own, value=1000 * own.value))
    if text:
        file.write_text(text)
    assert threshold_of_answer(process) == pytest.approx(own.value)


def test_thresholds_of_this_machine_hold_from_the_next_start_and_the_log_says_so(
    linear: Bundle,
) -> None:
    ((kernel, own),) = linear.manifest.thresholds.items()
    file = store_threshold(linear, kernel, replace(own, value=4.5, clear=4.0))
    lines: list[str] = []
    process = options(linear).process(linear, linear.manifest.channel_names, lines.append)
    assert lines == [f"{file}: threshold 4.500 on {kernel}; holds until this run ends"]
    file.unlink()
    assert threshold_of_answer(process) == 4.5


def test_damaged_thresholds_leave_the_fallback_until_they_are_mended(linear: Bundle) -> None:
    ((kernel, own),) = linear.manifest.thresholds.items()
    local_file(linear.path).write_text("rot")
    process = options(linear).process(linear, linear.manifest.channel_names, print)
    process.start()
    with pytest.raises(
        WorkerGoneError,
        match="not thresholds of this version; delete it",
    ):
        process.poll_ready(PATIENT)
    process.kill()
    store_threshold(linear, kernel, replace(own, value=4.5, clear=4.0))
    assert threshold_of_answer(process) == 4.5
