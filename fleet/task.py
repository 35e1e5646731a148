"""The task of a Dask worker: one asset, from its digest to its result on disk.

The worker hashes the input, looks for an equal result, and supervises the process that learns. It
never runs the asset's data through its own memory, so a bad asset ends that process only.
"""

import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from edge_runtime import __version__
from edge_runtime.bundle.reader import CHECKSUM
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular
from edge_runtime.plain import read_sealed, write_sealed
from fleet.forks import LOG, ForkServer
from fleet.job import JOB, Job, one_line
from fleet.results import (
    BLAMED,
    CRASHED,
    REFUSED,
    RESULT,
    TOO_SLOW,
    AssetResult,
    AssetRow,
    input_digest,
    keep,
    newest,
    next_version,
    options_digest,
    scores_file,
    source_of,
)

GROWTH = 1.5  # of the number of assets, until their type is learned again
MOST_DEATHS = 3  # of workers, until the asset that each of them worked on is blamed
ATTEMPTS = "attempts"
_LOG_TAIL = 4000  # bytes
_IDLE: list[ForkServer] = []  # of this worker


def run_job(job: Job) -> AssetRow:
    """Return the result of `job`: an earlier one, a new one, or the reason why there is none.

    Raises GruardError when this worker cannot work for the fleet at all.
    """
    refuse_foreign(job.gruard, job.fleet)
    started = time.monotonic()
    try:
        result = _result_of(job)
    except GruardError as error:
        result = job.kind(job.asset, REFUSED, str(error))
    except OSError as error:
        reason = f"{error.filename or job.folder}: {error.strerror}; check the disk"
        result = job.kind(job.asset, CRASHED, reason)
    if result.good:
        return result
    return replace(
        result,
        reason=one_line(result.reason),
        seconds=time.monotonic() - started,
        host=socket.gethostname(),
    )


def given_up(job: Job, reason: str) -> AssetRow:
    """Return the result of a job that no worker finished."""
    return job.kind(job.asset, CRASHED, one_line(f"no worker finished it: {reason}"))


def refuse_foreign(gruard: str, fleet: str) -> None:
    """Raise GruardError when this worker has another version of gruard, or no view of the fleet."""
    here = socket.gethostname()
    if gruard != __version__:
        raise GruardError(
            f"the worker on {here} has gruard {__version__}, the driver {gruard}; install the "
            "same version on all machines and restart the worker"
        )
    if not Path(fleet).is_dir():
        raise GruardError(
            f"the worker on {here} does not see {fleet}; mount the folder there under the same "
            "path, and restart the worker"
        )


def _result_of(job: Job) -> AssetRow:
    source, digest = ("", "") if job.proof else _digests(job)
    job.folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(job)
    known = newest(job.folder, job.kind)
    if known is not None and known.digest == digest and (known.weighed or not job.network):
        return replace(known, reused=True)
    with _attempt(job) as deaths:
        if deaths >= MOST_DEATHS:
            reason = f"{deaths} workers died while they worked on this asset; try it by itself"
            return job.kind(job.asset, BLAMED, reason)
        version = next_version(job.folder)
        return _made(replace(job, digest=digest, source=source, version=version))


def _digests(job: Job) -> tuple[str, str]:
    """Return a digest of all that decides the result of `job` except the target, and one of all."""
    source = _source(job)
    return source, options_digest((source, repr(job.target)))


def _source(job: Job) -> str:
    """Return a digest of all that decides the result of `job`, except the target.

    A type is not learned again with every new asset, or all its assets would be; but when they have
    become half as many again. Raises GruardError for an asset without data or usable scores.
    """
    if job.members:
        growth = int(math.log(job.known_assets, GROWTH))
        return options_digest((job.asset, f"{growth}"))
    if not job.data:
        return _source_of_scores(job)
    bundles = [Path(each) for each in (job.bundle, job.shared) if each]
    sums = [read_regular(b / CHECKSUM, 1000).decode("ascii", "replace") for b in bundles]
    options = (job.asset, job.model, *sums)
    settings = Path(job.settings) if job.settings else None
    return input_digest(Path(job.data), settings, options, job.megabytes << 20)


def _source_of_scores(job: Job) -> str:
    known, file = newest(job.folder, AssetResult), scores_file(job.folder)
    if known is None or file is None:
        raise GruardError(
            f"{job.folder}: its newest version keeps no scores, as with a network, or with the "
            "model of a type; run fleet train with the new target"
        )
    source = source_of(file)
    if known.digest != options_digest((source, repr(known.target))):
        raise GruardError(
            f"{file}: is of another version of gruard; run fleet train with the new target"
        )
    return source


def _made(job: Job) -> AssetRow:
    """Do the job in a process of its own, and keep its result if it is good."""
    scratch = job.folder / f".{job.version}.{job.run}.{os.getpid()}"
    scratch.mkdir()
    try:
        write_sealed(scratch / JOB, job)
        failure = _run(job, scratch)
        result = failure or read_sealed(scratch / RESULT, job.kind)
        if result is None:
            raise GruardError(f"{scratch / RESULT}: is missing, though the process succeeded")
        if job.proof or not result.good:  # a proof holds for this moment, so it is not kept
            return result
        if result.version != job.version:  # the linear detector stays, and says so
            write_sealed(job.folder / str(result.version) / RESULT, result)
            return result
        (scratch / JOB).unlink()
        return keep(scratch, job.folder, job.version, job.kind)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(job: Job, scratch: Path) -> AssetRow | None:
    """Run `job` within its time; return a result if it failed, None if it wrote one."""
    server = _IDLE.pop() if _IDLE else ForkServer("fleet.job")
    try:
        code = server.run(scratch, job.seconds)
    finally:
        _IDLE.append(server)
    if code is None:
        reason = f"took longer than {job.seconds:g} s; raise --time-limit or shorten the recording"
        return job.kind(job.asset, TOO_SLOW, reason)
    if code == 0:
        return None
    return job.kind(job.asset, CRASHED, why(code, scratch / LOG))


def why(code: int, log: Path) -> str:
    """Describe the end of a process by its exit code and the last line of its output."""
    output = log.read_bytes() if log.is_file() else b""
    lines = output[-_LOG_TAIL:].decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    if code == -signal.SIGKILL:
        return f"was killed, perhaps because the machine has no memory left (last: {last})"
    return f"ended with code {code}: {last}"


@contextmanager
def _attempt(job: Job) -> Iterator[int]:
    """Note the attempt on disk while the block runs; yield how many before it never ended.

    Only a worker that died leaves its note behind. Notes of earlier runs do not count.
    """
    file = job.folder / ATTEMPTS
    before = file.read_text().split("\n") if file.is_file() else []
    died = sum(line.startswith(f"{job.run} ") for line in before)
    with file.open("a") as stream:
        stream.write(f"{job.run} {socket.gethostname()} {os.getpid()}\n")
    try:
        yield died
    finally:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: it has results
            job.folder.rmdir()


def _remove_leftovers(job: Job) -> None:
    """Remove hidden folders and notes that workers of earlier runs left behind when they died."""
    file = job.folder / ATTEMPTS
    if file.is_file() and job.run not in file.read_text():
        file.unlink(missing_ok=True)
    for folder in job.folder.glob(".*.*.*"):
        if folder.name.split(".")[2] != job.run:
            shutil.rmtree(folder, ignore_errors=True)
