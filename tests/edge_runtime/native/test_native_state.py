"""A state that memory has changed is noticed by the core, in every part and before it is used."""

import subprocess
from pathlib import Path

import native_core  # noqa: F401
import native_models as models
import numpy as np
import pytest

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.errors import GruardError
from edge_runtime.record import Sample
from tests.core_build import SANITISED, blob_of, compiled

PROGRAM = Path(__file__).with_name("harmed_state.c")


@pytest.fixture(params=["a gate up to 1", "a gate whose codes go beyond"])
def bundle(request: pytest.FixtureRequest, tiny_bundle: Path) -> Bundle:
    if request.param == "a gate up to 1":
        return read_bundle(tiny_bundle)
    return models.stored("gate-beyond-1")


def gate_limit(bundle: Bundle) -> np.float32:
    codes = bundle.manifest.outputs["gate_next"]
    ends = (np.array([-128, 127], np.float32) - codes.zero_point) * np.float32(codes.scale)
    return max(np.float32(1), *np.abs(ends))


def test_one_of_the_gates_goes_beyond(request: pytest.FixtureRequest, bundle: Bundle) -> None:
    beyond = request.node.callspec.params["bundle"] != "a gate up to 1"
    assert bool(gate_limit(bundle) > 1) is beyond


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("harmed") / "harmed"
    return compiled("gcc", "gcc libc6-dev", out, SANITISED, main=(PROGRAM,))


@pytest.mark.slow
def test_what_no_step_can_have_left_is_noticed(
    bundle: Bundle, program: Path, tmp_path: Path
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(blob_of(bundle))
    done = subprocess.run(
        [program, blob, repr(float(gate_limit(bundle)))],
        input=models.faulty_rows(bundle, 300, seed=7).tobytes(),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_the_reference_has_the_same_limit(bundle: Bundle) -> None:
    detector, rows = Detector(bundle), models.faulty_rows(bundle, 30, seed=7)
    for index, row in enumerate(rows):
        detector.step(Sample(index, None, row))
    assert detector.state.recurrent
    limit, sample = gate_limit(bundle), Sample(len(rows), None, rows[-1])
    detector.state.recurrent.gate[:] = limit
    detector.step(sample)
    detector.state.recurrent.gate[-1] = np.nextafter(limit, np.float32(2))
    with pytest.raises(GruardError, match="its state changed in memory"):
        detector.step(sample)
