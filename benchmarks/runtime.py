"""The cost of watching: time of a step, alone and supervised, processor time, memory, start-up.

    python -m benchmarks.runtime BUNDLE [--out docs/device.md] [--long SAMPLES] [--json]

Everything is measured in one run, the engines in turn, and medians are reported. The bare
interpreter step only sets the graph's inputs, invokes it and reads its outputs. A supervised run is
`gruard run` as a user starts it: a file goes in, JSON lines come out. Its speed is that of the
later samples, without start-up.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.pages import fill_page, machine, markdown, page_option
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.inputs import channel_scaler, restored
from edge_runtime.detector.interpreter import load_interpreter
from edge_runtime.detector.kernels import CORE_KERNEL_ID, KERNEL_ID
from edge_runtime.native.engine import open_detector
from edge_runtime.record import Float32, Sample

ENGINES = (KERNEL_ID, CORE_KERNEL_ID)
RATES = (100, 1000)  # Hz
ROUNDS, EACH = 9, 400  # of the in-process steps
FEW, MANY = 1000, 11000  # samples of two supervised runs; their difference is what is timed
TURNS = 3  # of each supervised run
PACED_SECONDS = 10
STARTS = 5
LOOK_EVERY = 1.0  # seconds, while a long run goes on


@dataclass(frozen=True)
class Supervised:
    """Of one engine: samples a second; share of one core, by rate; seconds from the start to the
    first record; peak of both processes' resident sets and their proportional set, MB."""

    samples_per_second: float
    share: dict[int, float]
    start: float
    peak: float
    proportional: float


@dataclass(frozen=True)
class Growth:
    """Resident MB of both processes together, after a tenth of the samples and at the end."""

    samples: int
    early: float
    late: float


def bare_step(bundle: Bundle) -> Callable[[], None]:
    """Return only the interpreter's part of a step."""
    interpreter = load_interpreter(bundle.model)
    graph = bundle.graph
    inputs = [(i, np.zeros(graph.tensors[i].shape, np.int8)) for i in graph.inputs.values()]
    outputs = list(graph.outputs.values())

    def step() -> None:
        for index, value in inputs:
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        for index in outputs:
            interpreter.get_tensor(index)

    return step


def in_process(bundle: Bundle, rows: Float32) -> dict[str, float]:
    """Median microseconds of the bare interpreter step and of a whole step, by engine."""
    samples = [Sample(i, None, row) for i, row in enumerate(rows[:EACH])]
    bare = bare_step(bundle)
    detectors = {kernel: open_detector(bundle, kernel) for kernel in ENGINES}
    times: dict[str, list[float]] = {"interpreter": [], **{kernel: [] for kernel in ENGINES}}
    for _ in range(ROUNDS):
        times["interpreter"].append(_timed(lambda: [bare() for _ in samples]) / EACH)
        for kernel, detector in detectors.items():
            step = detector.step
            taken = _timed(lambda: [step(sample) for sample in samples])  # noqa: B023 - at once
            times[kernel].append(taken / EACH)
    return {name: 1e6 * statistics.median(found) for name, found in times.items()}


def supervised(path: Path, bundle: Bundle, kernel: str, scratch: Path) -> Supervised:
    """One engine behind `gruard run`."""
    few, many = (_recording(bundle, count, scratch) for count in (FEW, MANY))
    runs = [(_wall(path, kernel, few), _wall(path, kernel, many)) for _ in range(TURNS)]
    per_sample = statistics.median((long - short) / (MANY - FEW) for short, long in runs)
    idle = statistics.median(_processor(path, kernel, few, 0) for _ in range(TURNS))
    share = {rate: _share(path, bundle, kernel, rate, scratch, idle) for rate in RATES}
    starts, peaks, proportional = zip(
        *(_one_start(path, kernel, few) for _ in range(STARTS)), strict=True
    )
    return Supervised(
        1 / per_sample,
        share,
        statistics.median(starts),
        statistics.median(peaks),
        statistics.median(proportional),
    )


def growth(path: Path, bundle: Bundle, kernel: str, samples: int, scratch: Path) -> Growth:
    """Measure the memory of a supervised run after a tenth of `samples` and at the end."""
    data = _recording(bundle, samples, scratch)
    out = scratch / "long.jsonl"
    process = subprocess.Popen(_command(path, kernel, data, str(out)), stderr=subprocess.DEVNULL)
    looks: list[tuple[int, float]] = []
    while process.poll() is None:
        time.sleep(LOOK_EVERY)
        done = out.stat().st_size if out.exists() else 0
        family = [process.pid, *children(process.pid)]
        if len(family) > 1:
            looks.append((done, sum(kilobytes(pid, "status", "VmRSS") for pid in family) / 1024))
    total = out.stat().st_size
    out.unlink()
    early = next(memory for done, memory in looks if done >= total / 10)
    return Growth(samples, early, looks[-1][1])


def _command(path: Path, kernel: str, data: Path | str, sink: str, rate: int = 0) -> list[str]:
    command = [sys.executable, "-m", "edge_runtime", "run", str(path), "--kernel", kernel]
    command += ["--source", str(data), "--sink", sink, "--force", "--allow-failed"]
    return [*command, "--rate", str(rate)] if rate else command


def _recording(bundle: Bundle, count: int, scratch: Path) -> Path:
    file = scratch / f"rows-{count}.csv"
    if not file.exists():
        header = ",".join(bundle.manifest.channel_names)
        rows = rows_of(bundle, count)
        np.savetxt(file, rows, "%.7g", ",", header=header, comments="")
    return file


def _wall(path: Path, kernel: str, data: Path) -> float:
    out = str(data.with_suffix(".jsonl"))
    command = _command(path, kernel, data, out)
    return _timed(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))


def _processor(path: Path, kernel: str, data: Path, rate: int) -> float:
    """Return the processor time of a run in seconds, supervisor and worker."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = _command(path, kernel, data, str(data.with_suffix(".jsonl")), rate)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _share(path: Path, bundle: Bundle, kernel: str, rate: int, scratch: Path, idle: float) -> float:
    data = _recording(bundle, rate * PACED_SECONDS, scratch)
    return max(_processor(path, kernel, data, rate) - idle, 0.0) / PACED_SECONDS


def _one_start(path: Path, kernel: str, data: Path) -> tuple[float, float, float]:
    """Feed rows over stdin, read the memory while the pipe is open, then end the run."""
    lines = data.read_bytes().splitlines(keepends=True)[:300]
    started = time.perf_counter()
    process = subprocess.Popen(
        _command(path, kernel, "-", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin and process.stdout
    process.stdin.write(b"".join(lines[:2]))
    process.stdin.flush()
    process.stdout.readline()
    first = time.perf_counter() - started
    for line in lines[2:]:
        process.stdin.write(line)
        process.stdin.flush()
        process.stdout.readline()
    family = [process.pid, *children(process.pid)]
    peak = sum(kilobytes(pid, "status", "VmHWM") for pid in family) / 1024
    proportional = sum(kilobytes(pid, "smaps_rollup", "Pss") for pid in family) / 1024
    process.stdin.close()
    process.stdout.read()
    process.wait()
    return first, peak, proportional


def children(pid: int) -> list[int]:
    """Return the process ids of the children of `pid`; none if it has ended."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


def kilobytes(pid: int, file: str, name: str) -> int:
    """Return the field `name` of /proc/PID/`file`, such as VmHWM of status; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def report(steps: dict[str, float], found: dict[str, Supervised], long: Growth | None) -> str:
    """The tables as Markdown."""
    bare = steps["interpreter"]
    rows = [["µs a step in one process", *(f"{steps[kernel]:.1f}" for kernel in ENGINES)]]
    rows += [["times the bare interpreter step", *(f"{steps[k] / bare:.2f}" for k in ENGINES)]]
    lines: dict[str, Callable[[Supervised], float]] = {
        "samples a second, supervised": lambda s: round(s.samples_per_second),
        **{f"share of a core at {rate} Hz, %": _at(rate) for rate in RATES},
        "start to first record, s": lambda s: round(s.start, 2),
        "peak of both processes, MB": lambda s: round(s.peak, 1),
        "the same, shared pages counted once, MB": lambda s: round(s.proportional, 1),
    }
    rows += [
        [name, *(f"{value(found[kernel]):g}" for kernel in ENGINES)]
        for name, value in lines.items()
    ]
    text = f"{machine()}; the bare interpreter step takes {bare:.1f} µs.\n\n"
    text += markdown(["", *ENGINES], rows)
    if long:
        text += (
            f"\n\nOver {long.samples:,} supervised samples ({CORE_KERNEL_ID}) both processes "
            f"together held {long.early:.1f} MB after a tenth of them and {long.late:.1f} MB at "
            "the end."
        )
    return text


def _at(rate: int) -> Callable[[Supervised], float]:
    return lambda found: round(100 * found.share[rate], 1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--long", "samples", default=0, help="Also watch the memory over so many samples.")
@page_option("runtime")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(bundle: Path, samples: int, out: Path | None, as_json: bool) -> None:
    """Speed, processor time, memory and start-up of BUNDLE on this machine."""
    loaded = read_bundle(bundle, allow_failed=True)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        steps = in_process(loaded, rows_of(loaded, EACH))
        found = {kernel: supervised(bundle, loaded, kernel, scratch) for kernel in ENGINES}
        long = growth(bundle, loaded, CORE_KERNEL_ID, samples, scratch) if samples else None
    text = report(steps, found, long)
    if out:
        fill_page(out, text, "runtime")
    facts: dict[str, Any] = {"machine": machine(), "microseconds": steps}
    facts |= {"supervised": {kernel: asdict(value) for kernel, value in found.items()}}
    facts |= {"memory": asdict(long)} if long else {}
    click.echo(json.dumps(facts) if as_json else text)


def rows_of(bundle: Bundle, count: int) -> Float32:
    """Return `count` rows in raw units from the bundle's own clean rows, repeated as needed."""
    clean = bundle.arrays("calibration.npz")["value/000"]
    scaler = channel_scaler(bundle.manifest.channels)
    raw = restored(clean, np.ones(clean.shape, bool), scaler)
    return np.concatenate([raw] * -(-count // len(raw)))[:count]


if __name__ == "__main__":
    main()
