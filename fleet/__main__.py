"""`python -m fleet`: learn detectors for many machines, on this machine or on a Dask cluster."""

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import false_alarms_option
from train.console import run_command

PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Learn detectors for many machines, on this machine or on a Dask cluster.

    \b
    python -m fleet simulate --out data/fleet --assets 20    recordings to try it on
    python -m fleet train data/fleet --out runs/fleet        a bundle for each, and a report
    """


@cli.command()
@click.argument("assets", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="FLEET", help="Folder of the results.")
@false_alarms_option
@click.option(
    "--scheduler",
    metavar="tcp://HOST:8786",
    help="Dask scheduler whose workers do the work.  [default: a cluster on this machine]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes of the cluster on this machine.  [default: one for each core]",
)
@click.option(
    "--time-limit",
    "seconds",
    default=600.0,
    show_default=True,
    type=ranges.FiniteRange(1.0, 86400.0),
    help="Seconds for one asset.",
)
@click.option(
    "--memory",
    "megabytes",
    default=2000,
    show_default=True,
    type=click.IntRange(500, 10**6),
    help="Megabytes of memory for one asset.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def train(
    assets: Path,
    out: Path,
    wish: float,
    scheduler: str | None,
    workers: int | None,
    seconds: float,
    megabytes: int,
    as_json: bool,
) -> None:
    """Learn a linear detector for each of ASSETS, as gruard learn does.

    ASSETS is a folder with a CSV file or a folder of CSV files for each asset, or a table (CSV or
    Parquet) with the columns asset and data and, where wanted, settings, target (false alarms a
    day) and model. Paths in a table are relative to it.

    The same command again learns only what is new, changed or failed. A changed asset gets the next
    version of its bundle. An asset that cannot be learned is a row with its reason in the report.

    \b
    FLEET/assets/NAME/VERSION/NAME-VERSION.gruard    the bundles
    FLEET/report.html                                what to look at first
    FLEET/fleet.parquet                              one row for each asset
    Exit code 0: each asset has a bundle. 1: some have none. 2: bad input, nothing was learned.
    """
    from fleet.cluster import require_dask

    require_dask()
    from fleet.assets import read_assets

    listed = read_assets(assets, wish)
    from fleet.train import Limits, train_fleet

    trained = train_fleet(listed, out, scheduler, workers, Limits(seconds, megabytes), _say)
    click.echo(json.dumps(trained.facts()) if as_json else trained.text())
    sys.exit(1 if trained.failed else 0)


def _say(sentence: str) -> None:
    click.echo(f"… {sentence}", err=True)


def main() -> NoReturn:
    """Run the command line."""
    run_command(cli, "fleet", "interrupted; what is finished is kept, the same command goes on")


if __name__ == "__main__":
    main()
