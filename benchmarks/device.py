"""What the device pays: start-up, memory of both processes, time of a step and of its parts.

    python -m benchmarks.device BUNDLE [--rows N] [--json]

Memory is the sum of the peak resident sets (VmHWM) of supervisor and worker, which counts shared
pages twice; the proportional sum (PSS) that counts them once is given beside it.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import machine
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.record import Sample

STARTS = 5


def rows_of(bundle: Bundle, count: int) -> np.ndarray:
    """`count` rows in raw units from the bundle's own clean rows, repeated as needed."""
    clean = bundle.arrays("calibration.npz")["value/000"]
    center = np.array([c.center for c in bundle.manifest.channels], np.float32)
    scale = np.array([c.scale for c in bundle.manifest.channels], np.float32)
    raw = clean * scale + center
    return np.concatenate([raw] * -(-count // len(raw)))[:count]


def step_times(bundle: Bundle, rows: np.ndarray) -> dict[str, float]:
    """Median microseconds of a whole step, of the graph alone and of the fallback alone."""
    detector, fallback = Detector(bundle), Fallback(bundle.manifest, bundle.model_hash)
    samples = [Sample(i, None, row) for i, row in enumerate(rows)]
    whole, shadow, graph = [], [], []
    inputs = {name: np.zeros(t.shape[1], np.float32) for name, t in bundle.manifest.inputs.items()}
    for sample in samples:
        whole.append(_timed(lambda: detector.step(sample)))  # noqa: B023 - called at once
        shadow.append(_timed(lambda: fallback.step(sample)))  # noqa: B023 - called at once
        graph.append(_timed(lambda: detector.model.graph(inputs)))
    parts = {"step": whole, "graph with quantisation": graph, "fallback alone": shadow}
    return {name: round(1e6 * statistics.median(values), 1) for name, values in parts.items()}


def start_and_memory(bundle_path: Path, bundle: Bundle, rows: np.ndarray) -> dict[str, float]:
    """Median seconds from start to the first record, and peak memory of both processes in MB."""
    names = ",".join(bundle.manifest.channel_names)
    text = "\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n"
    measured = [_one_start(bundle_path, text) for _ in range(STARTS)]
    starts, peaks, shares = zip(*measured, strict=True)
    return {
        "start to first record, s": round(statistics.median(starts), 2),
        "peak resident sum, MB": round(statistics.median(peaks), 1),
        "proportional sum, MB": round(statistics.median(shares), 1),
    }


def _one_start(bundle_path: Path, text: str) -> tuple[float, float, float]:
    """Feed the rows over stdin, keep the pipe open while memory is read, then let it end."""
    command = [sys.executable, "-m", "edge_runtime", "run", str(bundle_path), "--source", "-"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--allow-failed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin and process.stdout
    lines = text.encode().splitlines(keepends=True)
    process.stdin.write(b"".join(lines[:2]))
    process.stdin.flush()
    process.stdout.readline()
    first = time.perf_counter() - started
    for line in lines[2:]:
        process.stdin.write(line)
        process.stdin.flush()
        process.stdout.readline()
    family = [process.pid, *_children(process.pid)]
    peak, share = sum(map(_peak, family)), sum(map(_share, family))
    process.stdin.close()
    process.stdout.read()
    process.wait()
    return first, peak, share


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _peak(pid: int) -> float:
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM") / 1024


def _share(pid: int) -> float:
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss") / 1024


def _kilobytes(file: Path, name: str) -> int:
    return next(
        int(line.split()[1])
        for line in file.read_text().splitlines()
        if line.startswith(f"{name}:")
    )


def _timed(call) -> float:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rows", default=2000, show_default=True, help="Samples to time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(bundle: Path, rows: int, as_json: bool) -> None:
    """Start-up, memory and step time of BUNDLE on this machine."""
    loaded = read_bundle(bundle, allow_failed=True)
    data = rows_of(loaded, rows)
    result = {
        "machine": machine(),
        "bundle": f"{loaded.manifest.name}-{loaded.manifest.version}, {len(loaded.model)} bytes",
        "median_us": step_times(loaded, data),
        **start_and_memory(bundle, loaded, data[:300]),
    }
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, value in result.items():
        click.echo(f"{name}: {value}")


if __name__ == "__main__":
    main()
