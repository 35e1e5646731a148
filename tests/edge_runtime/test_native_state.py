"""A state that memory has changed is noticed by the core, in every part and before it is used."""

import subprocess
from pathlib import Path

import native_core  # noqa: F401
import tiny_model

from edge_runtime.bundle.reader import read_bundle
from tests.core_build import SANITISED, blob_of, compiled

PROGRAM = Path(__file__).with_name("harmed_state.c")


def test_what_no_step_can_have_left_is_noticed(tiny_bundle: Path, tmp_path: Path) -> None:
    program = compiled("gcc", "gcc libc6-dev", tmp_path / "harmed", SANITISED, main=(PROGRAM,))
    blob = tmp_path / "blob"
    blob.write_bytes(blob_of(read_bundle(tiny_bundle)))
    rows = tiny_model.machine_rows(300, seed=7)
    done = subprocess.run(
        [program, blob], input=rows.tobytes(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
