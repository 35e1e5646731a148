"""Learn, score or prove one asset in a process of its own, which `python -m fleet.job` forks.

The folder of the job has a job.json. The worker keeps the time limit. The process limits its own
memory, writes result.json and a bundle next to the job, and ends when its stdin closes, which is
when the worker dies.
"""

import hashlib
import importlib
import os
import re
import resource
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.errors import GruardError
from edge_runtime.plain import UNPRINTABLE, read_sealed, write_sealed
from fleet.forks import serve
from fleet.results import (
    ALARMS,
    CALM,
    LEARNED,
    NETWORK,
    REFUSED,
    RESULT,
    SCORES,
    TOO_LARGE,
    UNFIT,
    AssetProof,
    AssetResult,
    AssetScore,
    TypeResult,
    asset_folder,
    newest,
    promised,
    scores_file,
    source_of,
    type_folder,
)

if TYPE_CHECKING:
    from edge_runtime.learning.learn import Learned
    from edge_runtime.learning.request import Request

JOB = "job.json"
SECONDS_PER_DAY = 86400.0
NEEDED = ("edge_runtime.learning.learn", "edge_runtime.commands.first_load")
"""Modules that jobs import, and whose imports are most of the time of a start."""
Kind = type[AssetResult] | type[AssetScore] | type[AssetProof]
Result = TypeVar("Result", bound=AssetResult)
_SEED = 0  # of the injected faults, as `gruard learn` has it


@dataclass(frozen=True, slots=True)
class TypeMember:
    """An asset that the model of a type is learned from. settings: empty to look for them."""

    data: str
    settings: str


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to learn, score or prove one asset, or to learn the model of a type.

    Paths are those of all machines of the cluster. bundle: to score with, empty to learn. proof:
    whether to prove the bundle. data: empty to prove without a recording, or to learn from the kept
    scores only. run: a name of this run of the driver. gruard: its version. seconds, megabytes: the
    limits. members: to learn a type from, which then is the `asset`; known_assets: how many it has.
    type: of the asset. shared: bundle of that type, empty if there is none; choice: why there is
    none. network: to train one for an asset that has its linear detector. digest, version: of the
    result; source: digest of its input without the target; the worker fills them in.
    """

    asset: str
    data: str
    settings: str
    target: float
    model: str
    bundle: str
    fleet: str
    run: str
    gruard: str
    seconds: float
    megabytes: int
    members: tuple[TypeMember, ...] = ()
    known_assets: int = 0
    type: str = ""
    shared: str = ""
    choice: str = ""
    network: bool = False
    proof: bool = False
    digest: str = ""
    source: str = ""
    version: int = 0

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        of = type_folder if self.members else asset_folder
        return of(Path(self.fleet), self.asset)

    @property
    def kind(self) -> Kind:
        """What becomes of it."""
        if self.bundle:
            return AssetProof if self.proof else AssetScore
        return TypeResult if self.members else AssetResult


def learn_asset(job: Job, scratch: Path) -> AssetResult:
    """Learn the asset of `job` as `gruard learn` does, and write its bundle into `scratch`.

    The bundle has the model of the asset's type if that is better. Where there is no such model and
    only the target has changed, the bundle comes from the scores that the last learning has kept.
    Raises GruardError for input that cannot be learned.
    """
    if not job.shared and (known := _recalibrated(job, scratch)):
        return known
    from edge_runtime.learning.learn import learn, linear_run
    from edge_runtime.learning.request import read_data
    from fleet.recalibration import keep_scores
    from fleet.shared import FEWEST_SHARED_ROWS, Chosen, choose, read_shared

    request = _request(job.data, job.settings)
    if job.shared:
        model = read_shared(Path(job.shared))
        names = model.manifest.channel_names
        data = read_data(replace(request, chosen=names, fewest=FEWEST_SHARED_ROWS))
        chosen = choose(model, data, job.asset, job.version, job.target, _log)
    else:
        data = read_data(request)
        run = linear_run(data, job.asset, _SEED, _log)
        chosen = Chosen(learn(run, job.version, job.target, _log), False, job.choice)
        keep_scores(chosen.learned.calibration, scratch / SCORES.format(job.source))
    warnings = len(data.dataset.warnings)
    result = _written(job, chosen.learned, scratch, AssetResult, data.dataset.rows, warnings)
    return replace(
        result,
        type=job.type,
        shared=chosen.shared,
        choice=chosen.reason or _without_network(job),
        design=design_of(chosen.learned.manifest),
    )


def _without_network(job: Job) -> str:
    """Return why an asset that had a network has none, empty if it had none."""
    known = newest(job.folder, AssetResult)
    if known is None or known.model != NETWORK:
        return ""
    return (
        f"the network of version {known.version} was for other data or another target; "
        "--network-budget tries one again"
    )


def _recalibrated(job: Job, scratch: Path) -> AssetResult | None:
    """Write the bundle for another target, and return its row; None where that must be learned."""
    file, known = scores_file(job.folder), newest(job.folder, AssetResult)
    if known is None or file is None or source_of(file) != job.source:
        return None
    from fleet.recalibration import keep_scores, recalibrated

    try:
        learned = recalibrated(Path(job.fleet) / known.bundle, file, job.version, job.target)
    except GruardError as error:
        if not job.data:
            raise
        _log(f"learned again: {error}")
        return None
    keep_scores(learned.calibration, scratch / file.name)
    row = _written(job, learned, scratch, AssetResult, known.rows, 0)
    return replace(
        row,
        warnings=known.warnings,
        design=known.design,
        weighed=known.weighed,
        gain=known.gain,
        type=job.type if job.data else known.type,
        choice=job.choice if job.data else known.choice,
    )


def design_of(manifest: Manifest) -> str:
    """Return the first digits of a digest of the channels' names and rules, and of the period."""
    rules = [(channel.name, channel.exogenous) for channel in manifest.channels]
    return hashlib.sha256(repr((rules, manifest.period)).encode()).hexdigest()[:12]


def _request(data: str, settings: str) -> "Request":
    from edge_runtime.learning.request import Request

    return Request((Path(data),), settings=Path(settings) if settings else None)


def learn_members(job: Job, scratch: Path) -> TypeResult:
    """Learn the model of a type from the members of `job`, and write its bundle into `scratch`.

    Members that cannot be read are left out, and those after enough others. Raises GruardError when
    too few are left.
    """
    from edge_runtime.learning.request import Data, read_data
    from fleet.shared import (
        ALIGNMENT,
        ENOUGH_ASSETS,
        FEWEST_SHARED_ROWS,
        MOST_TYPE_ROWS,
        learn_type,
    )

    read: list[Data] = []
    for member in job.members:
        if len(read) >= ENOUGH_ASSETS and sum(d.dataset.rows for d in read) >= MOST_TYPE_ROWS:
            break
        request = _request(member.data, member.settings)
        try:
            read.append(read_data(replace(request, fewest=FEWEST_SHARED_ROWS)))
        except GruardError as error:
            _log(f"left out: {error}")
    found = learn_type(read, job.asset, job.version, job.target, _log)
    write_sealed(scratch / ALIGNMENT, found.alignment)
    rows = sum(data.dataset.rows for data in read)
    result = _written(job, found.learned, scratch, TypeResult, rows, 0)
    return replace(result, assets=found.assets)


def _written(
    job: Job, learned: "Learned", scratch: Path, kind: type[Result], rows: int, warnings: int
) -> Result:
    """Write a bundle into `scratch` and return its row. rows, warnings: of what was read."""
    from edge_runtime.bundle.reader import read_manifest
    from edge_runtime.learning.learn import write_learned

    if not learned.passed:
        worst = next(check for check in learned.checks if not check.passed)
        return kind(job.asset, UNFIT, f"{worst.name}: {worst.value:g}; check its memory")
    written = write_learned(learned, scratch, force=True)
    row = kind(
        asset=job.asset,
        verdict=LEARNED,
        reason="",
        bundle=str((job.folder / str(job.version) / written.name).relative_to(job.fleet)),
        bundle_digest=read_manifest(written)[1],
        rows=rows,
        channels=len(learned.manifest.channels),
        warnings=warnings + len(learned.warnings),
        kinds=-1.0 if learned.judgement is None else learned.judgement.kind,
    )
    return promised(row, learned.manifest)


def score_asset(job: Job) -> AssetScore:
    """Score the recording of `job` with its bundle, each stretch from a fresh state.

    One event is one alarm, as everywhere. Raises GruardError for data that does not fit the bundle.
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.commands.first_load import load_safely
    from edge_runtime.detector.alarm import PAUSE, alarm_stretches
    from edge_runtime.learning.prepare import fingerprint
    from edge_runtime.learning.recording import read_recordings
    from edge_runtime.learning.rollout import roll_all

    bundle = read_bundle(Path(job.bundle), allow_failed=True)
    manifest = bundle.manifest
    found = read_recordings([Path(job.data)], manifest.period, channels=manifest.channel_names)
    # The diagnosis changes neither score nor alarm.
    model = replace(load_safely(bundle).model, diagnosis=None)
    rollouts = roll_all(model, [recording.values for recording in found.recordings])
    alarms = [stretch for r in rollouts for stretch in alarm_stretches(r.alarm, PAUSE)]
    on = np.concatenate([rollout.alarm for rollout in rollouts])
    scores = np.concatenate([rollout.score[rollout.settled] for rollout in rollouts])
    threshold = manifest.thresholds[model.graph.kernel_id].value
    return AssetScore(
        asset=job.asset,
        verdict=ALARMS if alarms else CALM,
        reason=f"{len(alarms)} alarm{'' if len(alarms) == 1 else 's'} in {found.rows:,} rows",
        bundle=job.bundle,
        rows=found.rows,
        threshold=threshold,
        data=fingerprint(found.recordings),
        days=found.rows * (manifest.period or 1.0) / SECONDS_PER_DAY,
        alarms=len(alarms),
        share=float(np.mean(on)),
        first=int(np.argmax(on)) if on.any() else -1,
        worst=float(scores.max(initial=0.0)) / threshold,
    )


def main(scratch: Path) -> None:
    """Do the job in `scratch` and write result.json there, whatever becomes of it."""
    job = read_sealed(scratch / JOB, Job)
    if job is None:
        raise GruardError(f"{scratch / JOB}: is missing")
    threading.Thread(target=_end_with_worker, daemon=True).start()
    _take_blas_buffer()
    limit = job.megabytes << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    started = time.monotonic()
    try:
        result = _done(job, scratch)
    except GruardError as error:
        result = job.kind(job.asset, REFUSED, str(error))
    except MemoryError:
        reason = f"needs more than {job.megabytes:,} MB; shorten the recording, or raise --memory"
        result = job.kind(job.asset, TOO_LARGE, reason)
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = replace(
        result,
        reason=one_line(result.reason),
        digest=job.digest,
        version=(result.version or job.version) if result.good else 0,
        seconds=result.seconds + time.monotonic() - started,
        cpu_seconds=result.cpu_seconds + used.ru_utime + used.ru_stime,
        megabytes=_peak_megabytes(),
        host=socket.gethostname(),
    )
    write_sealed(scratch / RESULT, result)


def _done(job: Job, scratch: Path) -> AssetResult | AssetScore | AssetProof:
    if job.proof:
        return _proven(job)
    if job.bundle:
        return score_asset(job)
    if job.network:
        from fleet.network import weigh_network

        request = _request(job.data, job.settings)
        return weigh_network(job.folder, request, job.version, scratch, _log)
    return learn_members(job, scratch) if job.members else learn_asset(job, scratch)


def _proven(job: Job) -> AssetProof:
    from fleet.proof import prove_bundle, with_alarms

    proof = prove_bundle(job.asset, Path(job.bundle))
    return with_alarms(proof, score_asset(job)) if proof.good and job.data else proof


def one_line(text: str) -> str:
    """Return `text` without control characters, as a sealed file wants it."""
    return UNPRINTABLE.sub(" ", text)


def _log(sentence: str) -> None:
    print(sentence, flush=True)


def _peak_megabytes() -> float:
    """Return the most memory of this process; ru_maxrss counts its parent before exec, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _take_blas_buffer() -> None:
    """Let OpenBLAS allocate its buffer, for which it would wait for ever under a memory limit."""
    square = np.ones((64, 64))
    np.matmul(square, square.T)


def _end_with_worker() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin, whose lock an ending interpreter takes
    os._exit(1)


if __name__ == "__main__":
    for name in NEEDED:
        importlib.import_module(name)
    serve(main)
