"""The bundle of an asset for another target, from the scores that its learning has kept.

The target decides the threshold and what is said of it, and nothing else in a bundle: the scores of
clean and held-out rows come before it, and the self-test has a threshold of its own. So all other
members are copied, and the result is the bundle that learning again would give, byte for byte.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.reader import (
    SIZE_LIMITS,
    UNPACKED_LIMITS,
    read_arrays,
    read_bundle,
    read_member,
)
from edge_runtime.calibration import Calibration, calibrate, margins_of
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular, write_new
from edge_runtime.learning.check import Check
from edge_runtime.learning.diagnosis.section import Judgement
from edge_runtime.learning.learn import Learned
from edge_runtime.learning.run import npz_bytes, tool_versions
from edge_runtime.plain import shown

CLEAN, HELD_OUT, LEFT_OUT, FITTED = "clean/", "held_out/", "left_out", "fitted"
_ALL = -1  # fitted rows
_MEMBER = "calibration.npz"  # whose limits hold: it has the rows of such scores


def keep_scores(calibration: Calibration, file: Path) -> None:
    """Write the scores behind `calibration` to `file`."""
    fitted = _ALL if calibration.fitted is None else calibration.fitted
    arrays = {LEFT_OUT: np.array(calibration.left_out), FITTED: np.array(fitted)}
    for prefix, scores in ((CLEAN, calibration.clean), (HELD_OUT, calibration.held_out)):
        arrays |= {f"{prefix}{i:06d}": np.asarray(each) for i, each in enumerate(scores)}
    write_new(file, npz_bytes(arrays))


def recalibrated(path: Path, scores: Path, version: int, wished_per_day: float) -> Learned:
    """Return the detector of the bundle at `path` for another target, as the next `version`.

    scores: the file that was kept when it was learned. Raises GruardError when one of them cannot
    be used.
    """
    arrays = _read_scores(scores)
    bundle = read_bundle(path)
    manifest = bundle.manifest
    if manifest.provenance.tools != tool_versions(("numpy",)):
        raise GruardError(f"{bundle.path}: was learned with another version of numpy")
    found = calibrate(
        _scores(arrays, CLEAN),
        _scores(arrays, HELD_OUT),
        wished_per_day,
        manifest.period,
        manifest.alarm,
        margins_of(manifest),
        left_out=int(arrays[LEFT_OUT]),
        fitted=None if arrays[FITTED] == _ALL else int(arrays[FITTED]),
    )
    (kernel,) = manifest.thresholds
    facts = json.loads(read_member(bundle.path, "report.json"))
    judged = facts["diagnosis"]
    return Learned(
        manifest=replace(manifest, version=version, thresholds={kernel: found.threshold}),
        golden={**bundle.arrays("golden.npz")},
        clean=bundle.arrays(_MEMBER),
        checks=tuple(map(_check, facts["checks"])),
        warnings=tuple(facts["warnings"]),
        calibration=found,
        judgement=None if judged is None else Judgement(**judged),
    )


def _read_scores(file: Path) -> dict[str, npt.NDArray[np.float32]]:
    try:
        return read_arrays(read_regular(file, SIZE_LIMITS[_MEMBER]), UNPACKED_LIMITS[_MEMBER])
    except Exception as error:
        # numpy, zipfile and zlib have a dozen exceptions for damaged archives.
        raise GruardError(f"{file}: unreadable scores ({shown(str(error), str)})") from None


def _scores(
    arrays: dict[str, npt.NDArray[np.float32]], prefix: str
) -> Sequence[npt.NDArray[np.float32]]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(prefix)]


def _check(facts: dict[str, object]) -> Check:
    """Return a check from its JSON, whose numbers keep their types."""
    return Check(**{name: value for name, value in facts.items() if name != "passed"})  # type: ignore[arg-type]
