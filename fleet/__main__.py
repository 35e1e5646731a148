"""`python -m fleet`: learn detectors for many machines, on this machine or on a Dask cluster."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import false_alarms_option
from fleet.cluster import require_dask
from fleet.release_commands import COMMANDS, json_option
from train.console import run_command

if TYPE_CHECKING:
    from fleet.ingest.inputs import AssetInputs
    from fleet.jobs import Means

PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Learn detectors for many machines, on this machine or on a Dask cluster, and publish them.

    \b
    python -m fleet simulate --out data/fleet                recordings to try it on
    python -m fleet train data/fleet/healthy.csv --out runs/fleet    bundles and a report
    python -m fleet rescore runs/fleet data/fleet/later.csv --out runs/later
    python -m fleet compare runs/before runs/later           what alarms now that did not before
    python -m fleet calibrate runs/fleet --false-alarms-per-day 0.1    for another target
    python -m fleet validate runs/fleet --out runs/proofs    is every bundle still sound?
    python -m fleet ingest uploads/ --out runs/said          what the devices' records say
    python -m fleet keys --out keys                          keys that sign updates
    python -m fleet publish runs/fleet --keys keys --to www  a signed repository for devices
    """


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which Dask workers do the work."""

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
    @functools.wraps(command)
    def with_cluster(scheduler: str | None, workers: int | None, **others: Any) -> None:
        if scheduler and workers:
            raise click.UsageError("--workers is for a cluster on this machine, not --scheduler.")
        require_dask()
        command(scheduler=scheduler, workers=workers, **others)

    return with_cluster


def means_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what a run may use, as one argument `means` of `command`."""

    @cluster_options
    @click.option(
        "--time-limit",
        default=600.0,
        show_default=True,
        type=ranges.FiniteRange(1.0, 86400.0),
        help="Seconds for one asset.",
    )
    @click.option(
        "--memory",
        default=2000,
        show_default=True,
        type=click.IntRange(500, 10**6),
        help="Megabytes of memory for one asset.",
    )
    @functools.wraps(command)
    def with_means(
        scheduler: str | None, workers: int | None, time_limit: float, memory: int, **others: Any
    ) -> None:
        from fleet.jobs import Means

        command(means=Means(scheduler, workers, time_limit, memory), **others)

    return with_means


@cli.command()
@click.argument("assets", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="FLEET", help="Folder of the results.")
@false_alarms_option
@click.option(
    "--network-budget",
    metavar="30m|2h|1d",
    help="Time for networks, after all linear detectors.  [default: none are trained]",
)
@means_options
@json_option
def train(
    assets: Path, out: Path, wish: float, network_budget: str | None, means: Means, as_json: bool
) -> None:
    """Learn a linear detector for each of ASSETS, as gruard learn does.

    ASSETS is a folder with a CSV file or a folder of CSV files for each asset, or a table (CSV or
    Parquet) with the columns asset and data and, where wanted, settings, target (false alarms a
    day), model (auto, or linear, which never gets a network) and type. Paths in a table are
    relative to it.

    Assets of one type share a model, learned from some of them: each takes it if it has too few
    rows for a model of its own, or if it finds more faults injected into rows that are held out.

    With --network-budget networks are trained, too, and kept where they find clearly more injected
    faults. Of all designs (the same channels) the one whose networks gain the most goes first, and
    a design whose first three gain nothing gets no more.

    The same command again learns only what is new, changed or failed. A changed asset gets the next
    version of its bundle; where only the target has changed, from the scores that were kept. An
    asset that cannot be learned is a row with its reason in the report.

    \b
    FLEET/assets/NAME/VERSION/NAME-VERSION.gruard    the bundles
    FLEET/report.html                                what to look at first
    FLEET/fleet.parquet                              one row for each asset
    Exit code 0: each asset has a bundle. 1: some have none. 2: bad input, nothing was learned.
    """
    from edge_runtime.mute import parse_duration
    from fleet.assets import read_assets
    from fleet.driver import run_fleet
    from fleet.results import AssetResult

    if network_budget is not None:
        means = replace(means, network_seconds=parse_duration(network_budget, "the budget"))
    run = run_fleet(read_assets(assets, wish, out), AssetResult, out, means, _say)
    click.echo(json.dumps(run.facts()) if as_json else run.text())
    sys.exit(1 if run.failed else 0)


@cli.command()
@click.argument("fleet", type=PATH)
@click.argument("assets", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="SCORES", help="Folder of the scores.")
@click.option(
    "--previous",
    is_flag=True,
    help="Use the bundle before the newest, which devices may still run.",
)
@means_options
@json_option
def rescore(
    fleet: Path, assets: Path, out: Path, previous: bool, means: Means, as_json: bool
) -> None:
    """Score recordings of ASSETS with the bundles in FLEET: what would have alarmed?

    ASSETS is a list as for train, with the same names and other recordings.

    \b
    SCORES/report.html      the assets that were in alarm the longest
    SCORES/fleet.parquet    one row for each asset
    Exit code 0: all were scored. 1: some were not. 2: bad input.
    Example: python -m fleet rescore runs/fleet june/ --out runs/june
    """
    from fleet.assets import read_assets, with_bundles
    from fleet.driver import run_fleet
    from fleet.results import AssetScore

    listed = with_bundles(read_assets(assets, _NO_TARGET, out), fleet, back=int(previous))
    run = run_fleet(listed, AssetScore, out, means, _say)
    click.echo(json.dumps(run.facts()) if as_json else run.text())
    sys.exit(1 if run.failed else 0)


@cli.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@json_option
def compare(old: Path, new: Path, as_json: bool) -> None:
    """Compare two folders of rescore on the same recordings, before anything is shipped.

    \b
    Exit code 0: no asset has more alarms. 1: some have. 2: bad input.
    Example: python -m fleet rescore runs/fleet june/ --out runs/old --previous
             python -m fleet rescore runs/fleet june/ --out runs/new
             python -m fleet compare runs/old runs/new
    """
    require_dask()
    from fleet.compare import compare_scores

    found = compare_scores(old, new)
    click.echo(json.dumps(found.facts()) if as_json else found.text())
    sys.exit(1 if found.worse else 0)


@cli.command()
@click.argument("fleet", type=PATH)
@click.option(
    "--false-alarms-per-day",
    "wish",
    required=True,
    type=ranges.FALSE_ALARMS_PER_DAY,
    help="Target number of false alarms.",
)
@means_options
@json_option
def calibrate(fleet: Path, wish: float, means: Means, as_json: bool) -> None:
    """Give all linear detectors in FLEET thresholds for a new target, without recordings.

    Each asset gets the next version of its bundle, which is the one that train would give with this
    target, byte for byte: train keeps the scores that a threshold comes from. An asset with a
    network, or with the model of its type, keeps its bundle and is a row with its reason: learn it
    again with train.

    \b
    FLEET/report.html      what each threshold promises
    FLEET/fleet.parquet    one row for each asset
    Exit code 0: all have the new target. 1: some have not. 2: bad input.
    Example: python -m fleet calibrate runs/fleet --false-alarms-per-day 0.1
    """
    from fleet.assets import learned_assets
    from fleet.driver import run_fleet
    from fleet.results import AssetResult

    run = run_fleet(learned_assets(fleet, wish), AssetResult, fleet, means, _say)
    click.echo(json.dumps(run.facts()) if as_json else run.text())
    sys.exit(1 if run.failed else 0)


@cli.command()
@click.argument("fleet", type=PATH)
@click.argument("assets", type=PATH, required=False)
@click.option("--out", required=True, type=PATH, metavar="PROOFS", help="Folder of the results.")
@means_options
@json_option
def validate(fleet: Path, assets: Path | None, out: Path, means: Means, as_json: bool) -> None:
    """Prove the newest bundle of each asset in FLEET again: can it be shipped?

    Each bundle is read as a device reads it (files, checksums, schema), and replays its self-test
    in a process of its own: every bit must be as recorded. The steps of a linear detector are
    compared with its formula, too.

    ASSETS is a list as for train. Its recordings must be of healthy machines that no bundle was
    learned from: more alarms in them than the target allows are a failure.

    \b
    PROOFS/report.html      what failed, and why
    PROOFS/fleet.parquet    one row for each asset
    Exit code 0: all are proven. 1: some are not. 2: bad input.
    Example: python -m fleet validate runs/fleet june/ --out runs/proofs
    """
    from fleet.assets import learned_assets, read_assets, with_bundles
    from fleet.driver import run_fleet
    from fleet.results import AssetProof

    learned = learned_assets(fleet, _NO_TARGET)
    named = () if assets is None else read_assets(assets, _NO_TARGET, out)
    names = {asset.name for asset in named}
    listed = (*named, *(asset for asset in learned if asset.name not in names))
    run = run_fleet(with_bundles(listed, fleet), AssetProof, out, means, _say)
    click.echo(json.dumps(run.facts()) if as_json else run.text())
    sys.exit(1 if run.failed else 0)


@cli.command()
@click.argument("records", nargs=-1, required=True)
@click.option("--out", required=True, type=PATH, metavar="SAID", help="Folder of the results.")
@click.option(
    "--bundles",
    type=PATH,
    metavar="FLEET",
    help="Folder of fleet train, or of NAME-VERSION.gruard: compare scores with the calibration.",
)
@click.option(
    "--assets",
    "table",
    type=PATH,
    metavar="TABLE",
    help="CSV or Parquet with the columns asset and, where known, site and type: whose alarms may "
    "have one cause.",
)
@click.option(
    "--for",
    "duration",
    metavar="10m",
    help="How long to listen to an MQTT address, such as 10m, 8h or 2d; then the records are read.",
)
@cluster_options
@json_option
def ingest(
    records: tuple[str, ...],
    out: Path,
    bundles: Path | None,
    table: Path | None,
    duration: str | None,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Read RECORDS of many devices: who drifts, who alarms, who should learn again?

    RECORDS are JSON lines as gruard run writes them (*.jsonl, *.jsonl.gz), journals, or folders
    with a file or a folder for each asset, to which devices upload. mqtt://HOST/TOPIC/# listens to
    a broker for some time (--for); the rest of the topic is the name of the asset.

    The same command again reads only what is new. The same record counts once, however often and
    by whatever way it comes. A line that is no record is counted and named.

    \b
    SAID/report.html       who should learn again, and why; alarms of many assets at once
    SAID/*.parquet         assets, alarms, histograms, counts
    SAID/metrics.prom      for the textfile collector of Prometheus' node exporter
    Exit code 0: all was read. 1: an input could not be read. 2: bad arguments.
    Example: python -m fleet ingest uploads/ --bundles runs/fleet --out runs/said
    """
    from fleet.ingest.inputs import find_inputs, with_bundle_folder, with_groups
    from fleet.ingest.listening import SCHEMES
    from fleet.ingest.run import ingest

    addresses = [each for each in records if each.startswith(SCHEMES)]
    places = [Path(each) for each in records if each not in addresses]

    def listed() -> Sequence[AssetInputs]:
        found = find_inputs(places, out, may_be_empty=bool(addresses))
        return with_bundle_folder(with_groups(found, table), bundles)

    listed()  # what is wrong with the arguments is said before hours of listening
    _listen(addresses, duration, out)
    run = ingest(listed(), out, scheduler, workers, _say, time.monotonic)
    click.echo(json.dumps(run.facts()) if as_json else run.text())
    sys.exit(1 if run.failed else 0)


@cli.command()
@click.option("--out", required=True, type=PATH, help="Folder to write; it must not exist yet.")
@click.option("--assets", default=20, show_default=True, type=click.IntRange(1, 100_000))
@click.option(
    "--rows",
    default=1500,
    show_default=True,
    type=click.IntRange(200, ranges.ROWS),
    help="Samples of each recording, ten a second.",
)
@click.option("--seed", default=0, show_default=True, type=ranges.SEED)
def simulate(out: Path, assets: int, rows: int, seed: int) -> None:
    """Simulate pumps: a healthy recording each to train on, and a later one to score.

    \b
    OUT/healthy/       pump-0001.csv … and channels.yaml
    OUT/later/         the same pumps; every tenth has faults, labelled
    OUT/healthy.csv    tables of both, with the type pump; also later.csv
    """
    from fleet.simulate import write_pumps

    write_pumps(out, assets, rows, seed)
    click.echo(f"{out}: {assets:,} pumps, healthy/ and later/", err=True)


for command in COMMANDS:
    cli.add_command(command)

_NO_TARGET = 1.0  # the bundle has one


def _listen(addresses: list[str], duration: str | None, out: Path) -> None:
    """Receive records from a broker into the inbox of `out`, if one is named."""
    from edge_runtime.mute import parse_duration
    from fleet.ingest.listening import listen, parse_listening

    if not addresses:
        if duration is not None:
            raise click.UsageError("--for is for an address such as mqtt://HOST/TOPIC/#.")
        return
    if len(addresses) > 1 or duration is None:
        raise click.UsageError("Give one MQTT address, and with --for how long to listen to it.")
    seconds = parse_duration(duration, "listening")
    _say(str(listen(parse_listening(addresses[0]), seconds, out, _say)))


def _say(sentence: str) -> None:
    click.echo(f"… {sentence}", err=True)


def main() -> NoReturn:
    """Run the command line."""
    run_command(cli, "fleet", "interrupted; what is finished is kept, the same command goes on")


if __name__ == "__main__":
    main()
