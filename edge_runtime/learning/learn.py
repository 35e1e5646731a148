"""Learn a linear detector from recordings of a healthy machine, judge it, and write its bundle."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.flatbuffer import NO_GRAPH
from edge_runtime.bundle.manifest import Channel, DiagnosisModel, Manifest, Validation
from edge_runtime.calibration import Calibration
from edge_runtime.errors import GruardError
from edge_runtime.learning.bundle_writer import write_members
from edge_runtime.learning.calibrated import Calibrated, calibrated, standout_warning
from edge_runtime.learning.check import Check
from edge_runtime.learning.diagnosis.section import Judgement, diagnosis_of_run
from edge_runtime.learning.draft import draft_manifest
from edge_runtime.learning.formula import formula_checks
from edge_runtime.learning.golden import golden_vectors
from edge_runtime.learning.linear import fit_linear
from edge_runtime.learning.modes import channels_of, modes_sentence
from edge_runtime.learning.prepare import fingerprint, standard_rows, unlike_training
from edge_runtime.learning.report import linear_facts, linear_page
from edge_runtime.learning.request import Data
from edge_runtime.learning.rollout import roll, stepwise
from edge_runtime.learning.run import Config, Run, json_bytes, npz_bytes, tool_versions
from edge_runtime.learning.shipped import shipped_model, unchanging
from edge_runtime.learning.split import PARTS, split_sentence
from edge_runtime.learning.streams import (
    FAULTY_ROWS,
    ROLLOUT_STEPS,
    clean_judged_rows,
    clean_rows,
    clean_samples,
    faulty_twin_of_run,
    fitted_and_rest,
    repeated,
)
from edge_runtime.learning.thinning import fitted_rows, fitted_sentence
from edge_runtime.native.engine import core_module
from edge_runtime.record import Float32

Say = Callable[[str], None]
ORDER = 5  # lags of the forecast
PASSES = 2  # of the fitted rows, through a model of their own for each fold
TIMED_STEPS = 100


@dataclass(frozen=True)
class Learned:
    """A judged linear detector, ready to be written.

    golden: arrays of golden.npz, the self-test. clean: arrays of calibration.npz. judgement: of
    the diagnosis.
    """

    manifest: Manifest
    golden: dict[str, npt.NDArray[np.generic]]
    clean: dict[str, Float32]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    calibration: Calibration
    judgement: Judgement | None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def facts(self) -> dict[str, Any]:
        """Return the result as JSON, as in report.json."""
        return linear_facts(*self._told)

    def page(self) -> str:
        """Return the result as a page of HTML."""
        return linear_page(*self._told)

    @property
    def _told(self) -> tuple[Any, ...]:
        (kernel,) = self.manifest.thresholds
        calibrations = {kernel: self.calibration}
        return self.manifest, self.checks, self.warnings, calibrations, self.judgement


def linear_run(data: Data, name: str, seed: int, say: Say, every: bool = False) -> Run:
    """Fit the linear detector `name` to clean rows of `data`, and once without each fold.

    every: to all of them, however many.
    """
    split, period = data.split, data.period
    clean = (*split.train, *split.validate, *split.calibrate)
    channels = channels_of(clean, data.settings, period)
    for warning in data.dataset.warnings:
        say(f"warning: {warning}")
    say(split_sentence(split, len(channels), period))
    if modes := modes_sentence(channels):
        say(modes)
    for sentence in unlike_training(split, channels):
        say(f"warning: {sentence}")
    whole = [r.values for r in clean]
    rows = whole if every else fitted_rows(whole)
    told = fitted_sentence(sum(map(len, rows)), sum(map(len, whole)))
    say(f"fitting the linear forecast to {told}; once without each fifth of them")
    weights = fit_linear(standard_rows(rows, channels, period), ORDER)
    digest = hashlib.sha256(npz_bytes(dict(weights))).hexdigest()
    return replace(run_of(data, name, seed, channels, weights, digest), every=every)


def run_of(
    data: Data,
    name: str,
    seed: int,
    channels: tuple[Channel, ...],
    weights: dict[str, Float32],
    weights_sha256: str,
) -> Run:
    """Return the run of a linear detector with `weights`, over the rows of `data`."""
    parts = {part: getattr(data.split, part) for part in PARTS}
    return Run(
        path=Path(data.dataset.recordings[0].name),
        config=Config(
            name=name,
            period=data.period,
            channels=channels,
            sizes={},
            seed=seed,
            data_sha256=fingerprint(data.dataset.recordings),
            strange=data.strange,
            columns=data.columns,
        ),
        weights=weights,
        weights_sha256=weights_sha256,
        # By rows, as a run folder stores them: sums over another layout round otherwise.
        rows={p: [np.ascontiguousarray(r.values) for r in pieces] for p, pieces in parts.items()},
        labels={
            part: [r.labels.astype(np.int8) for r in pieces if r.labels is not None]
            for part, pieces in parts.items()
        },
    )


def learn(run: Run, version: int, wished_per_day: float, say: Say) -> Learned:
    """Calibrate and judge the linear detector of `run`; `passed` says whether it may ship."""
    return proven(run, measure(run, version, wished_per_day, say), say)


def measure(run: Run, version: int, wished_per_day: float, say: Say) -> Calibrated:
    """Calibrate the linear detector of `run`: all that decides its alarms."""
    if estimate := slow_steps(run, version, time.perf_counter):
        say(estimate)
    say("measuring clean rows as the device will see them")
    return calibrated(run, b"", version, wished_per_day, say)


def proven(
    run: Run, measured: Calibrated, say: Say, known: DiagnosisModel | None = None
) -> Learned:
    """Compare the steps of the calibrated detector with the formula, and add what else ships.

    known: a diagnosis of the same channels, from more rows; without one it is learned.
    """
    say("comparing the steps with the formula")
    checks = tuple(_proof(run, measured.manifest))
    diagnosis, judgement = (known, None) if known else diagnosis_of_run(run, say)
    passed = all(check.passed for check in checks)
    manifest = replace(
        measured.manifest,
        diagnosis=diagnosis,
        validation=Validation(passed=passed, forced=not passed),
        provenance=replace(measured.manifest.provenance, tools=tool_versions(("numpy",))),
    )
    say("recording the self-test")
    found = measured.calibration
    return Learned(
        manifest=manifest,
        golden=golden_vectors(shipped_model(manifest, b""), run.rows["calibrate"], run.config.seed),
        clean=clean_samples(run),
        checks=checks,
        warnings=(*run.config.strange, *([standout_warning(found)] if found.dirty else [])),
        calibration=found,
        judgement=judgement,
    )


def slow_steps(run: Run, version: int, now: Callable[[], float]) -> str:
    """Say how long all steps take without the C core; empty with it. now: seconds."""
    with contextlib.suppress(GruardError):
        core_module()
        return ""
    clean, model = clean_rows(run), shipped_model(draft_manifest(run, NO_GRAPH, version), b"")
    started = now()
    stepwise(model, clean[0][:TIMED_STEPS])
    seconds = (now() - started) / len(clean[0][:TIMED_STEPS])
    fitted = sum(stop - start for _, start, stop in fitted_and_rest(run)[0])
    steps = sum(map(len, clean)) + (PASSES - 1) * fitted + FAULTY_ROWS + ROLLOUT_STEPS
    return (
        f"the C core is not built on this machine: {steps:,} steps in Python, about "
        f"{steps * seconds:.0f} s"
    )


def _proof(run: Run, manifest: Manifest) -> list[Check]:
    model, clean = unchanging(shipped_model(manifest, b"")), clean_judged_rows(run)
    streams = faulty_twin_of_run(run, clean).rows, repeated(clean, ROLLOUT_STEPS)
    return formula_checks(model, [roll(model, rows) for rows in streams])


def write_learned(learned: Learned, folder: Path, force: bool) -> Path:
    """Write the bundle below `folder` and return its path; errors as for `write_members`."""
    members = {
        "golden.npz": npz_bytes(learned.golden),
        "calibration.npz": npz_bytes(dict(learned.clean)),
        "report.json": json_bytes(learned.facts()),
        "report.html": learned.page().encode(),
    }
    return write_members(learned.manifest, members, folder, force)
