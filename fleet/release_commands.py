"""Commands that bring bundles to devices: `python -m fleet keys`, `publish` and `refresh`."""

from __future__ import annotations

import functools
import json
import os
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


COMMANDS = (keys, publish, refresh)
