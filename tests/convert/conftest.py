"""The bundle of the real conversion, and the short streams that it is judged on."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from convert.convert_run import Conversion
    from convert.rollout import Rollout
    from convert.streams import FaultyRecording
    from edge_runtime.detector.cell import Model
    from train.run_folder import Run


@pytest.fixture(scope="session", autouse=True)
def judged_briefly(short_proofs: None) -> None:
    """Every conversion and judgement in the processes of these tests."""


@pytest.fixture(scope="session")
def good_bundle(conversion: "Conversion", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `conversion`. Treat it as read-only."""
    from convert.bundle_writer import write_bundle

    return write_bundle(conversion, tmp_path_factory.mktemp("good-bundle"), force=False)


@pytest.fixture
def run_copy(tiny_run: "Run", tmp_path: Path) -> Path:
    """A copy of the small run folder, to be converted or harmed."""
    return Path(shutil.copytree(tiny_run.path, tmp_path / "run"))


@dataclass(frozen=True, repr=False)
class Trial:
    """A short version of the validation: the good int8 model, its float twin, and their streams.

    float_clean, float_faulty: rollouts of the twin. float_long, int8_long: states over `long`.
    """

    run: "Run"
    quantised: "Model"
    reference: "Model"
    clean: np.ndarray
    stream: "FaultyRecording"
    long: np.ndarray
    float_clean: "Rollout"
    float_faulty: "Rollout"
    float_long: np.ndarray
    int8_long: np.ndarray


@pytest.fixture(scope="session")
def trial(tiny_run: "Run", conversion: "Conversion") -> Trial:
    """Rollouts of the float twin over clean rows, faulty rows, and clean rows repeated."""
    from convert.checks.rollout import states_along
    from convert.rollout import roll
    from convert.streams import faulty_twin
    from convert.twins import float_twin, shipped_model

    quantised = shipped_model(conversion.manifest, conversion.model)
    reference = float_twin(conversion.manifest, conversion.float_model)
    clean = tiny_run.rows["calibrate"][0]
    config, scale = tiny_run.config, tiny_run.weights["innovation_scale"]
    stream = faulty_twin([clean], config.channels, config.period, scale, seed=5, length=1600)
    long = np.concatenate([clean, clean])
    return Trial(
        run=tiny_run,
        quantised=quantised,
        reference=reference,
        clean=clean,
        stream=stream,
        long=long,
        float_clean=roll(reference, clean),
        float_faulty=roll(reference, stream.rows),
        float_long=states_along(reference, long),
        int8_long=states_along(quantised, long),
    )
