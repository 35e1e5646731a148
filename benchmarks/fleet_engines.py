"""The fleet of 260 engines: learned and scored by `fleet`, with one command.

    python -m benchmarks.fleet_engines DATA RUN [--out docs/fleet-costs.md]  (make fleet-engines)

DATA has NASA's simulated turbofan engines (CMAPSS FD002) as FD002.train.csv.gz: one row a flight,
260 engines that run until they fail. Each engine is an asset of the type turbofan. It is learned
from its first flights, and its whole life is scored. Nothing is learned from later flights.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.engines import EARLY, HEALTHY, SENSORS, SETTINGS, engines
from benchmarks.pages import fill_page, machine, markdown, page_option
from edge_runtime.learning.recording import Recording, write_recording
from edge_runtime.record import Float32
from fleet.results import AssetResult, AssetScore
from fleet.table import read_rows

FILE = "FD002.train.csv.gz"
PART = "engines"
PARTS = ("first", "life")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--early", default=EARLY, show_default=True, type=click.IntRange(30, 100))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64))
@page_option(PART)
def main(data: Path, folder: Path, early: int, workers: int, out: Path | None) -> None:
    """Turn engines into assets, learn and score all of them, and print what was found."""
    if not (data / FILE).is_file():
        raise SystemExit(f"SKIPPED, nothing was measured: no {data / FILE}")
    lives = list(engines(data / FILE, SENSORS))
    started = time.monotonic()
    write_assets(folder / "assets", lives, early)
    trained = fleet("train", folder / "assets" / "first.csv", folder / "fleet", workers)
    scored = fleet(
        "rescore", folder / "fleet", folder / "assets" / "life.csv", folder / "life", workers
    )
    seconds = time.monotonic() - started
    text = "\n\n".join(
        [
            f"{machine()}; {len(lives)} engines, {early} flights each to learn from, {workers} "
            f"workers: {seconds / 60:.1f} minutes.",
            table(folder, lives, (trained, scored)),
        ]
    )
    if out is not None:
        fill_page(out, text, PART)
    click.echo(text)


def write_assets(folder: Path, lives: Sequence[Float32], early: int) -> None:
    """Write first/ and life/ with a recording for each engine, and a table of each."""
    channels = (*SETTINGS, *SENSORS)
    settings = "".join(f"  {name}: {{exogenous: true}}\n" for name in SETTINGS)
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "channels.yaml").write_text(f"channels:\n{settings}")
        lines = ["asset,data,type\n"]
        for number, life in enumerate(lives, 1):
            name = f"engine-{number:03}"
            rows = life[:early] if part == "first" else life
            recording = Recording(name, channels, None, rows, None, None)
            write_recording(folder / part / f"{name}.csv", recording)
            lines.append(f"{name},{part}/{name}.csv,turbofan\n")
        (folder / f"{part}.csv").write_text("".join(lines))


def fleet(command: str, *words: object) -> dict[str, float]:
    """Run a fleet command, whose last words are its folder and workers; return its summary."""
    *paths, folder, workers = map(str, words)
    done = subprocess.run(
        [sys.executable, "-m", "fleet", command, *paths, "--out", folder, "--workers", workers,
         "--json"],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode > 1:
        raise SystemExit(done.returncode)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def table(folder: Path, lives: Sequence[Float32], runs: Sequence[dict[str, float]]) -> str:
    """What became of the engines: how many have a bundle, and when they alarm."""
    made = read_rows(folder / "fleet" / "fleet.parquet", AssetResult)
    scores = {row.asset: row for row in read_rows(folder / "life" / "fleet.parquet", AssetScore)}
    first = [scores[f"engine-{n:03}"].first for n in range(1, len(lives) + 1)]
    share = np.array([at / len(life) for at, life in zip(first, lives, strict=True)])
    early, alarmed = (share >= 0) & (share < HEALTHY), share >= HEALTHY
    warning = [len(life) - at for at, life, ok in zip(first, lives, alarmed, strict=True) if ok]
    trained, scored = runs
    lines = [
        ("bundles", f"{sum(row.good for row in made)}"),
        ("of them with the model of the type", f"{sum(row.shared for row in made)}"),
        ("seconds to learn, CPU seconds", _cost(trained)),
        ("seconds to score, CPU seconds", _cost(scored)),
        (f"first alarm after {HEALTHY:.0%} of the life", f"{alarmed.mean():.1%}"),
        (f"alarm in the first {HEALTHY:.0%}", f"{early.mean():.1%}"),
        ("no alarm", f"{(share < 0).mean():.1%}"),
        ("flights from first alarm to failure, median", f"{np.median(warning or [0]):.0f}"),
    ]
    return markdown(("", "engines"), lines)


def _cost(run: dict[str, float]) -> str:
    return f"{run['seconds']:.0f}, {run['cpu_seconds']:.0f}"


if __name__ == "__main__":
    main()
