"""Commands that bring bundles to devices: keys, publish, refresh and rollout of the fleet."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fleet.publish import Publication, UpdateRepository

PATH = click.Path(path_type=Path)
PASSPHRASE = "GRUARD_KEYS_PASSPHRASE"
"""Environment variable with the passphrase of the private keys."""
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as one JSON object."
)
keys_option = click.option(
    "--keys", required=True, type=PATH, metavar="KEYS", help="Folder of the keys."
)
to_option = click.option(
    "--to", required=True, type=PATH, metavar="DIR", help="Folder that a web server serves."
)


@click.command()
@click.option("--out", required=True, type=PATH, metavar="KEYS", help="Folder of the keys.")
@click.option(
    "--rotate",
    type=click.Choice(("root", "targets", "snapshot", "timestamp")),
    help="Replace the key of this role in KEYS; publish afterwards.",
)
@click.option(
    "--passphrase",
    "encrypted",
    is_flag=True,
    help=f"Encrypt the new private keys. {PASSPHRASE} has the passphrase, or it is asked for.",
)
@click.option(
    "--root-keys",
    default=1,
    show_default=True,
    type=click.IntRange(1, 16),
    help="How many root keys there are.",
)
@click.option(
    "--threshold",
    default=1,
    show_default=True,
    type=click.IntRange(1, 16),
    help="How many root keys must sign a change of keys.",
)
def keys(out: Path, rotate: str | None, encrypted: bool, root_keys: int, threshold: int) -> None:
    """Make the keys that sign updates, or replace one.

    \b
    KEYS/offline/root-….key       signs changes of keys. Keep it, and a copy, off every network
    KEYS/offline/targets-….key    signs what devices install. Plug it in to publish
    KEYS/online/snapshot-….key    } sign that this is the newest state. May stay on the machine
    KEYS/online/timestamp-….key   } that runs python -m fleet refresh
    KEYS/1.root.json              public; each device needs it once (gruard update --root)

    Who has the online keys can hold updates back, but cannot make devices install anything. Who has
    the targets key can. A lost root key cannot be made again: then each device needs a new --root
    file by hand.

    --rotate makes a new key and a new N.root.json, signed by the old and new root keys. Devices
    follow the chain. It also renews root metadata that is about to expire.

    \b
    Exit code 0: done. 2: a problem you can fix, and nothing has changed.
    Example: python -m fleet keys --out keys --passphrase
    """
    from fleet.keys import make_keys, read_keys, rotate_keys

    secret = _new_passphrase() if encrypted else ""
    if rotate is None:
        made = make_keys(out, _now(), secret, root_keys, threshold)
        click.echo(f"{out}: keys made; give {out / '1.root.json'} to each device")
        click.echo(f"move {out / 'offline'} off this machine when you have published")
        return
    made = read_keys(out, _ask_passphrase)
    old = rotate_keys(made, rotate, _now(), secret)
    click.echo(f"{out}: the {rotate} key is replaced; publish, so that devices learn of it")
    for file in old:
        click.echo(f"{file}: delete it after that")


@click.command()
@click.argument("fleet", type=PATH)
@keys_option
@to_option
@json_option
def publish(fleet: Path, keys: Path, to: Path, as_json: bool) -> None:
    """Publish the newest bundle of each asset in FLEET as a signed repository (TUF).

    DIR holds plain files for any web server or object store; copy it there with its timestamp.json
    last. Devices take their bundles with gruard update. The same command again writes only what is
    new, and renews the signatures. Archives of earlier versions stay.

    The metadata is valid for 14 days: run python -m fleet refresh once a day or week.

    \b
    Exit code 0: each asset is published. 1: some have no usable bundle, and keep the one before.
              2: a problem you can fix, and devices see what was there before.
    Example: python -m fleet publish runs/fleet --keys keys --to www
    """
    _print(_repository(to, keys).publish(fleet), as_json)


@click.command()
@keys_option
@to_option
@json_option
def refresh(keys: Path, to: Path, as_json: bool) -> None:
    """Sign the newest state again, so that devices know that nothing newer is held back.

    Needs KEYS/online and the root metadata only. The signature of timestamp.json is valid for 14
    days; afterwards devices install nothing, and go on with what they have.

    \b
    Exit code 0: done. 2: a problem you can fix.
    Example: python -m fleet refresh --keys keys --to www
    """
    _print(_repository(to, keys).refresh(), as_json)


def _shares(context: click.Context, option: click.Parameter, text: str) -> tuple[float, ...]:
    """Return ascending shares of the assets; the last is 1."""
    found = [
        re.fullmatch(r"\s*([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%\s*", part) for part in text.split(",")
    ]
    shares = [float(match[1]) / 100 for match in found if match]
    if len(shares) < len(found) or shares != sorted({*shares}) or shares[-1] != 1 or not shares[0]:
        raise click.BadParameter("write rising shares that end in 100%, such as 1%,10%,100%")
    return tuple(shares)


def _limit(context: click.Context, option: click.Parameter, text: str) -> float:
    """Return the share of a stage that may be rolled back."""
    match = re.fullmatch(r"\s*rolled back\s*>\s*([0-9]{1,2}(?:\.[0-9]{1,3})?)\s*%\s*", text)
    if not match:
        raise click.BadParameter("write 'rolled back > 2 %', with a share below 100 %")
    return float(match[1]) / 100


def _wait(context: click.Context, option: click.Parameter, text: str) -> float:
    from edge_runtime.mute import parse_duration

    return parse_duration(text, "a stage")


@click.command()
@click.argument("fleet", type=PATH)
@keys_option
@to_option
@click.option(
    "--reports",
    required=True,
    metavar="mqtt://HOST/TOPIC",
    help="Where devices report (gruard update --report).",
)
@click.option(
    "--stages",
    default="1%,10%,50%,100%",
    show_default=True,
    callback=_shares,
    help="Shares of the assets that get the new bundles, one after the other.",
)
@click.option(
    "--stop-when",
    "limit",
    default="rolled back > 2 %",
    show_default=True,
    callback=_limit,
    help="Stop when a larger share of a stage has rolled its bundle back.",
)
@click.option(
    "--wait",
    "patience",
    default="1d",
    show_default=True,
    callback=_wait,
    metavar="30m|8h|2d",
    help="Time for the devices of a stage to answer.",
)
@json_option
def rollout(
    fleet: Path,
    keys: Path,
    to: Path,
    reports: str,
    stages: tuple[float, ...],
    limit: float,
    patience: float,
    as_json: bool,
) -> None:
    """Publish the new bundles of FLEET in stages, and stop by itself if devices roll them back.

    Each stage contains the one before. The assets are chosen by a hash of their names, so a stage
    is a mixture. A stage is over when each of its devices has committed its bundle or rolled it
    back. Devices that do not answer within --wait do not hold it up if half have committed; if
    not, the rollout pauses.

    When it stops, what was published before is published again. Interrupt it as you like: the same
    command goes on. It has to run while the rollout lasts.

    \b
    FLEET/rollout.html    what became of it, asset by asset
    Exit code 0: finished. 1: stopped, paused, or some bundles cannot be published. 2: bad input.
    Example: python -m fleet rollout runs/fleet --keys keys --to www --reports mqtt://broker/fleet
    """
    import time

    from fleet.device_reports import ReportReader
    from fleet.keys import read_keys
    from fleet.publish import UpdateRepository
    from fleet.rollout import FINISHED, plan, run_rollout

    reader = ReportReader(reports, _say)
    folder = read_keys(keys, _ask_passphrase)

    def repository() -> UpdateRepository:
        return UpdateRepository(to, folder, _now())

    try:
        begun = plan(fleet, repository(), stages, limit)
        end = run_rollout(fleet, begun, repository, reader, patience, _say, time.monotonic)
    finally:
        reader.close()
    click.echo(json.dumps(end.facts()) if as_json else end.text())
    sys.exit(0 if end.rollout.state == FINISHED and not end.problems else 1)


def _say(sentence: str) -> None:
    click.echo(f"… {sentence}", err=True)


def _repository(to: Path, keys: Path) -> UpdateRepository:
    from fleet.keys import read_keys
    from fleet.publish import UpdateRepository

    return UpdateRepository(to, read_keys(keys, _ask_passphrase), _now())


def _print(done: Publication, as_json: bool) -> None:
    click.echo(json.dumps(done.facts()) if as_json else "\n".join(done.lines(_now())))
    sys.exit(1 if done.problems else 0)


def _now() -> datetime:
    return datetime.now(timezone.utc)


@functools.cache
def _ask_passphrase() -> str:
    """Return the passphrase of the private keys; ask once, on a terminal."""
    given = os.environ.get(PASSPHRASE)
    return given or str(click.prompt("Passphrase of the keys", hide_input=True, err=True))


def _new_passphrase() -> str:
    given = os.environ.get(PASSPHRASE)
    return given or str(
        click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    )


COMMANDS = (keys, publish, refresh, rollout)
