"""`gruard update`: take signed updates from a repository that the fleet's owner publishes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands.options import store_option, trusted_key_option, warn
from edge_runtime.commands.store import attempts_option
from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from edge_runtime.updates.reporter import Reporter
    from edge_runtime.updates.update_check import UpdateResult

_RATE = re.compile(r"([1-9][0-9]{0,5})([kM])")
REPORT = "report.json"
"""In the folder of the state: what was reported last."""
_FACTORS = {"k": 1e3, "M": 1e6}


def _rate(context: click.Context, option: click.Parameter, text: str | None) -> float:
    """Return bytes a second; 0 without a limit."""
    if text is None:
        return 0.0
    if not (match := _RATE.fullmatch(text)):
        raise click.BadParameter("write kilobytes or megabytes a second, such as 200k or 2M")
    return int(match[1]) * _FACTORS[match[2]]


def _interval(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    from edge_runtime.mute import parse_duration

    return None if text is None else parse_duration(text, "an interval")


def _asset(context: click.Context, option: click.Parameter, text: str) -> str:
    from edge_runtime.updates.published import ASSET

    if not ASSET.fullmatch(text):
        raise click.BadParameter("an asset is up to 80 letters, digits, '.', '_' and '-'")
    return text


@click.command()
@click.option("--from", "address", required=True, metavar="https://…", help="The repository.")
@click.option(
    "--asset", required=True, callback=_asset, metavar="NAME", help="Which machine this is."
)
@store_option
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Root metadata to trust, the owner's 1.root.json; needed the first time.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for what the next check needs; one of your own if the store is another user's.  "
    "[default: updates in the store]",
)
@click.option(
    "--every",
    callback=_interval,
    metavar="30m|1h|7d",
    help="Go on checking so often.  [default: check once]",
)
@click.option(
    "--rate", callback=_rate, metavar="200k|2M", help="Download at so many bytes a second at most."
)
@click.option(
    "--report",
    metavar="mqtt://HOST/TOPIC",
    help="Publish what became of updates to TOPIC/NAME, retained, for python -m fleet rollout.",
)
@attempts_option
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Print each result as one JSON line.")
def update(
    address: str,
    asset: str,
    store: Path,
    root: Path | None,
    state: Path | None,
    every: float | None,
    rate: float,
    report: str | None,
    attempts: int,
    trusted_keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Install what is published for this machine, as gruard install would.

    The repository's metadata is signed (TUF): old, expired, mixed or forged metadata is refused,
    and so is a file with another length or hash. The bundle is put on trial; a gruard run from the
    same store loads it. A bundle that was rolled back here is not installed again.

    An interrupted download continues with the next check. With --every the command goes on, also
    while the server is away, and checks a failed check again soon.

    \b
    Exit code 0: checked; installed, or there is nothing new
              1: the server cannot be reached now; try again later
              2: refused, or a problem you can fix; nothing was installed
    Example: gruard update --from https://updates.example/fleet --asset pump-0001 --root 1.root.json
    """
    from edge_runtime.updates.fetcher import Fetcher
    from edge_runtime.updates.published import FOLDER
    from edge_runtime.updates.repository import UpdateSource
    from edge_runtime.updates.store import Store
    from edge_runtime.updates.update_check import check_for_update
    from edge_runtime.updates.update_loop import Outbound, Surroundings, keep_updating

    folder = state or store / FOLDER
    source = UpdateSource(address, folder, root, Fetcher(rate))
    opened, around = Store(store, log=warn), Surroundings()
    outbound = Outbound(opened, asset, folder / REPORT, _reporter(report), warn, around)

    def check() -> UpdateResult:
        return check_for_update(source, opened, asset, attempts, trusted_keys)

    if every is not None:
        keep_updating(check, every, outbound, _printer(as_json), warn, around)
    try:
        result = check()
    except GruardError as error:
        outbound.tell(str(error))
        raise
    outbound.tell(result.problem)
    _printer(as_json)(result)


def _reporter(target: str | None) -> Reporter | None:
    if target is None:
        return None
    from edge_runtime.address import parse_mqtt_address

    address = parse_mqtt_address(target)
    from edge_runtime.updates.reporter import Reporter

    return Reporter(address)


def _printer(as_json: bool) -> Callable[[UpdateResult], None]:
    def say(result: UpdateResult) -> None:
        facts: dict[str, Any] = asdict(result)
        click.echo(json.dumps(facts) if as_json else f"{result.asset}: {result.text}")
        sys.stdout.flush()

    return say
