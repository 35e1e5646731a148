"""`python -m train`: train a model from a recording, or write recordings to try it on."""

import os
from pathlib import Path
from typing import NoReturn

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import (
    column_options,
    exclude_option,
)
from train.console import run_command

FILE = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train a detector from a recording of a machine behaving normally.

    \b
    python -m train fit pump.csv --out runs/pump        a run folder for python -m convert
    python -m train simulate --out data/machine         a simulated machine, healthy and faulty
    python -m train watch --out data/watch              the default data: a real smartwatch
    """


@cli.command()
@click.argument("data", nargs=-1, required=True, type=FILE)
@click.option("--out", required=True, type=FILE, help="Run folder to write.")
@click.option("--name", help="Name of the detector.  [default: name of the run folder]")
@click.option(
    "--calibrate",
    multiple=True,
    type=FILE,
    help="Clean file or folder used only for the threshold; repeatable.",
)
@click.option(
    "--test", multiple=True, type=FILE, help="File or folder used only for the report; repeatable."
)
@exclude_option
@click.option(
    "--settings",
    type=FILE,
    help="Channel settings.  [default: channels.yaml or .toml next to the data]",
)
@column_options
@click.option(
    "--model",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "linear", "gru", "gated"]),
    help="auto: the smallest model that is not clearly worse at finding injected faults.",
)
@click.option("--gru-layers", default=1, show_default=True, type=click.IntRange(1, 3))
@click.option("--gru-units", default=32, show_default=True, type=click.IntRange(4, 128))
@click.option("--gate-layers", default=1, show_default=True, type=click.IntRange(1, 3))
@click.option("--gate-units", default=32, show_default=True, type=click.IntRange(4, 128))
@click.option("--head-layers", default=0, show_default=True, type=click.IntRange(0, 2))
@click.option(
    "--order",
    default=5,
    show_default=True,
    type=click.IntRange(1, 32),
    help="Lags of the linear forecast that the GRU corrects.",
)
@click.option(
    "--highway",
    default="full",
    show_default=True,
    type=click.Choice(["full", "channel", "none"]),
    help="The linear forecast: of all channels, of each channel's own past, or none.",
)
@click.option(
    "--steps",
    default=1000,
    show_default=True,
    type=ranges.STEPS,
    help="Maximum number of training steps; training stops early without improvement.",
)
@click.option("--seed", default=0, show_default=True, type=ranges.SEED)
@click.option("--force", is_flag=True, help="Replace an existing training.")
def fit(data: tuple[Path, ...], out: Path, name: str | None, **options) -> None:  # type: ignore[no-untyped-def]
    """Train on DATA: CSV or Parquet files or folders of them; each file is one recording.

    A header row is needed. Delimiter, decimal comma, encoding and the time column are detected; a
    column named label is recognised; every other column of numbers that change is a channel.
    Empty cells and nan are missing values. Without --calibrate and --test the recording is split
    in time: 60 % train, 10 % early stopping, 20 % calibrate, 10 % test. After Ctrl-C the same
    command resumes.

    Example: python -m train fit pump.csv --out runs/pump
    """
    from train.console import Progress
    from train.training_request import Budget, TrainingRequest, read_training_data

    sizes = {k: options.pop(k) for k in list(options) if k.startswith(("gru_", "gate_", "head_"))}
    linear = {k: options.pop(k) for k in ("order", "highway")}
    steps, seed = options.pop("steps"), options.pop("seed")
    request = TrainingRequest(data=data, out=out, name=name or out.resolve().name, **options)
    checked = read_training_data(request)
    progress = Progress(steps)
    from train.cell_config import CellConfig
    from train.train_run import train_run

    config = CellConfig(channels=0, **linear, **sizes)
    train_run(
        request, checked, config, Budget(steps=steps, seed=seed), progress.say, progress.report
    )
    click.echo(f"{out}: next, python -m convert {out}", err=True)


@cli.command()
@click.option("--out", required=True, type=FILE, help="Folder to write.")
@click.option(
    "--rows",
    default=12000,
    show_default=True,
    type=click.IntRange(1000, ranges.ROWS),
    help="Samples of the healthy recording, ten a second.",
)
@click.option(
    "--fault-rows",
    default=40000,
    show_default=True,
    type=click.IntRange(4000, ranges.ROWS),
    help="Samples of the recording with faults.",
)
@click.option("--seed", default=0, show_default=True, type=ranges.SEED)
def simulate(out: Path, rows: int, fault_rows: int, seed: int) -> None:
    """Simulate a machine: healthy.csv to train on, faults.csv with labelled faults, channels.yaml.

    Eight channels: set-point, speed, current, temperature, vibration, flow, pressure and oil
    temperature. Faults of the sensors (spike, noise, stuck, level, drift, lost correlation,
    drop-out) and of the machine (bearing, leak, filter, cooling) take turns.

    Example: python -m train simulate --out data/machine
    """
    from train.simulate import simulate as healthy
    from train.simulate import simulate_faults, write_folder

    faults = simulate_faults(fault_rows, seed + 1)
    write_folder(out, healthy(rows, seed), faults)
    click.echo(
        f"{out}: healthy.csv, faults.csv ({len(faults.events)} faults), channels.yaml", err=True
    )


@cli.command()
@click.option("--out", required=True, type=FILE, help="Folder to write; it must not exist yet.")
@click.option(
    "--wheel", type=FILE, help="The seglearn 1.2.5 wheel.  [default: downloaded with pip]"
)
def watch(out: Path, wheel: Path | None) -> None:
    """Download the default data: a smartwatch on ten people doing seven shoulder exercises.

    Writes a folder per exercise with a CSV per person and arm, and demo.csv: the pendulum exercise
    of a person who is used only for the demonstration, interrupted by other exercises (label 1).

    Example: python -m train watch --out data/watch
    """
    from train.smartwatch import extract_watch, fetch_wheel

    out.parent.mkdir(parents=True, exist_ok=True)
    extract_watch(wheel or fetch_wheel(out.parent), out)
    click.echo(f"{out}: 140 recordings and demo.csv", err=True)


def main() -> NoReturn:
    """Run the command line."""
    # TensorFlow reads this when it is imported, which only the training of a network does.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run_command(cli, "train", "interrupted; the same command, without --force, resumes it")


if __name__ == "__main__":
    main()
