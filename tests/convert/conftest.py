"""Run folders, the real conversion, bundles made afresh, and the short streams to judge them on.

Tests of the device read stored bundles instead (see `golden_bundles`).
"""

import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny_model

if TYPE_CHECKING:
    from convert.convert_run import Conversion
    from edge_runtime.detector.cell import Model
    from edge_runtime.learning.rollout import Rollout
    from edge_runtime.learning.run import Run
    from edge_runtime.learning.streams import FaultyRecording

Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def tiny_run(once: Once) -> "Run":
    """A finished run folder on disk (see `tiny_model`), read back. Treat it as read-only."""
    from train.run_folder import read_run

    return read_run(once("tiny", lambda folder: tiny_model.write_run(folder / "run")) / "run")


@pytest.fixture(scope="session")
def good_run(tiny_run: "Run", once: Once) -> "Run":
    """The small run with a seed whose faults stay clear of its threshold. Treat it as read-only."""
    from train.run_folder import read_run, save_config

    def make(folder: Path) -> None:
        path = Path(shutil.copytree(tiny_run.path, folder / "run"))
        save_config(path, replace(tiny_run.config, seed=2))

    return read_run(once("good", make) / "run")


@pytest.fixture(scope="session")
def linear_run(once: Once) -> "Run":
    """A finished run folder of the same machine that is the highway alone. Read-only."""
    from train.run_folder import read_run

    made = once("linear", lambda folder: tiny_model.write_linear_run(folder / "run"))
    return read_run(made / "run")


@pytest.fixture(scope="session")
def short_proofs() -> Iterator[None]:
    """Judge on streams long enough for every check; `make test-long` judges on the full ones."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_model.judge_briefly(patch.setattr)
        yield


@pytest.fixture(scope="session")
def conversion(good_run: "Run", once: Once, short_proofs: None) -> "Conversion":
    """The small run, converted and judged. Treat it as read-only."""
    from convert.convert_run import convert_run

    def make(folder: Path) -> None:
        made = convert_run(good_run, 1, 1.0, lambda sentence: None)
        (folder / "conversion.pickle").write_bytes(pickle.dumps(made))

    found: Conversion = pickle.loads((once("conversion", make) / "conversion.pickle").read_bytes())
    return found


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: "Run", once: Once) -> Path:
    """The finished bundle of `tiny_run`. Treat it as read-only; to harm one take `bundle_copy`."""
    made = once("tiny-bundle", lambda folder: tiny_model.write_bundle(tiny_run.path, folder))
    return next(made.iterdir())


@pytest.fixture(scope="session")
def linear_bundle(linear_run: "Run", once: Once, short_proofs: None) -> Path:
    """The finished bundle of `linear_run`. Read-only; to harm one take `linear_copy`."""
    made = once("linear-bundle", lambda to: tiny_model.write_linear_bundle(linear_run.path, to))
    return next(made.iterdir())


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
    from convert.checks.arithmetic import states_along
    from convert.twins import float_twin
    from edge_runtime.learning.rollout import roll
    from edge_runtime.learning.shipped import shipped_model
    from edge_runtime.learning.streams import faulty_twin

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
