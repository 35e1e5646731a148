"""Learn one asset in a process of its own: `python -m fleet.job SCRATCH`.

A worker starts it with a job.json in the folder SCRATCH, and keeps its time limit. The process
limits its own memory, writes the bundle and result.json next to the job, and ends when its stdin
closes, which is when the worker dies.
"""

import os
import re
import resource
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.plain import read_sealed, write_sealed
from fleet.results import (
    ASSURED,
    LEARNED,
    REFUSED,
    RESULT,
    TOO_LARGE,
    TRIAL,
    UNFIT,
    AssetResult,
    asset_folder,
)

JOB = "job.json"
_SEED = 0  # of the injected faults, as `gruard learn` has it


@dataclass(frozen=True)
class Job:
    """What a worker needs to learn one asset; paths are those of all machines of the cluster.

    run: a name of this run of the driver. gruard: its version. seconds, megabytes: the limits.
    """

    asset: str
    data: str
    settings: str
    target: float
    model: str
    fleet: str
    run: str
    gruard: str
    seconds: float
    megabytes: int

    @property
    def folder(self) -> Path:
        """The folder of the asset's results."""
        return asset_folder(Path(self.fleet), self.asset)

    @property
    def options(self) -> tuple[str, ...]:
        """What decides the result besides files and version."""
        return self.asset, repr(self.target), self.model


def learn_asset(job: Job, scratch: Path, version: int) -> AssetResult:
    """Learn the asset of `job` and write its bundle into `scratch`; the command is `gruard learn`.

    Raises GruardError for input that cannot be learned.
    """
    from edge_runtime.learning.learn import learn, linear_run, write_learned
    from edge_runtime.learning.request import Request, read_data

    settings = Path(job.settings) if job.settings else None
    data = read_data(Request((Path(job.data),), settings=settings))
    run = linear_run(data, job.asset, _SEED, _log)
    learned = learn(run, version, job.target, _log)
    if not learned.passed:
        worst = next(check for check in learned.checks if not check.passed)
        return AssetResult(job.asset, UNFIT, f"{worst.name}: {worst.value:g}; check its memory")
    written = write_learned(learned, scratch, force=True)
    from edge_runtime.calibration import trial_of

    threshold, trial = learned.calibration.threshold, trial_of(learned.manifest)
    judged = learned.judgement
    return AssetResult(
        asset=job.asset,
        verdict=TRIAL if trial else ASSURED if threshold.assured else LEARNED,
        reason=trial or threshold.statement,
        version=version,
        bundle=f"assets/{job.asset}/{version}/{written.name}",
        threshold=threshold.value,
        target=threshold.wished_per_day,
        bound=threshold.upper_bound_per_day,
        days_needed=threshold.days_needed,
        rows=data.dataset.rows,
        channels=len(run.config.channels),
        warnings=len(data.dataset.warnings) + len(learned.warnings),
        kinds=-1.0 if judged is None else judged.kind,
    )


def main(scratch: Path, version: int, digest: str) -> None:
    """Learn the job in `scratch` and write result.json there, whatever becomes of it."""
    job = read_sealed(scratch / JOB, Job)
    if job is None:
        raise GruardError(f"{scratch / JOB}: is missing")
    threading.Thread(target=_end_with_worker, daemon=True).start()
    limit = job.megabytes << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    started = time.monotonic()
    try:
        result = learn_asset(job, scratch, version)
    except GruardError as error:
        result = AssetResult(job.asset, REFUSED, str(error))
    except MemoryError:
        reason = f"needs more than {job.megabytes:,} MB; shorten the recording, or raise --memory"
        result = AssetResult(job.asset, TOO_LARGE, reason)
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = replace(
        result,
        digest=digest,
        seconds=time.monotonic() - started,
        cpu_seconds=used.ru_utime + used.ru_stime,
        megabytes=_peak_megabytes(),
        host=socket.gethostname(),
    )
    write_sealed(scratch / RESULT, result)


def _log(sentence: str) -> None:
    print(sentence, flush=True)


def _peak_megabytes() -> float:
    """Return the most memory of this process; ru_maxrss counts its parent before exec, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _end_with_worker() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin, whose lock an ending interpreter takes
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
