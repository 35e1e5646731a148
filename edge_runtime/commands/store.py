"""Commands on the store: `gruard install`, `gruard use`, `gruard rollback` and `gruard list`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import store_option, trusted_key_option, warn
from edge_runtime.updates.pointers import ATTEMPTS

if TYPE_CHECKING:
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.updates.pointers import Pointers
    from edge_runtime.updates.slots import Slot

attempts_option = click.option(
    "--attempts",
    type=ranges.ATTEMPTS,
    default=ATTEMPTS,
    metavar="N",
    help=f"Loads that the trial may take until it is kept.  [default: {ATTEMPTS}]",
)
downgrade_option = click.option(
    "--allow-downgrade",
    "downgrade",
    is_flag=True,
    help="Accept a version below the highest that was ever current, from now on.",
)
ROLES = ("current", "trial", "previous", "stored")
"""Roles of a bundle in the store, in the order of the list."""


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@store_option
@attempts_option
@downgrade_option
@click.option("--allow-failed", is_flag=True, help="Install a bundle whose validation failed.")
@trusted_key_option
def install(
    bundle: Path,
    store: Path,
    attempts: int,
    downgrade: bool,
    allow_failed: bool,
    trusted_keys: tuple[Path, ...],
) -> None:
    """Check BUNDLE, copy it into the store, and put it on trial.

    A gruard run from the store loads it within seconds, without missing a sample, and keeps it
    after ten healthy minutes; if it fails, gruard rolls back to the current one. The first bundle
    of a store is current at once. Bundles that are no longer in use are removed.

    A version below the highest that was ever current is refused. --allow-downgrade accepts it, now
    and later.

    A power cut at any moment leaves the old state or the new one; then run the command again.

    \b
    Exit code 0: installed; 2: a problem you can fix, and nothing has changed.
    Example: gruard install pump-2.gruard --trusted-key plant.pub
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.updates.store import Store

    loaded = read_bundle(bundle, allow_failed, trusted_keys)
    pointers = Store(store, log=warn).install(loaded, attempts, downgrade)
    click.echo(outcome(loaded, pointers, store))


def outcome(bundle: Bundle, pointers: Pointers, store: Path) -> str:
    """Return the result of choosing `bundle`, in one line."""
    from edge_runtime.updates.slots import SHORT, label

    name = f"{label(bundle)} ({bundle.digest[:SHORT]}) in {store}"
    if pointers.trial and pointers.on_trial(bundle.digest):
        return f"{name}: on trial, attempts left: {pointers.trial.attempts}"
    return f"{name}: current"


@click.command()
@click.argument("name", metavar="NAME-VERSION|DIGEST")
@store_option
@attempts_option
@downgrade_option
@click.option("--allow-failed", is_flag=True, help="Use a bundle whose validation failed.")
@trusted_key_option
def use(
    name: str,
    store: Path,
    attempts: int,
    downgrade: bool,
    allow_failed: bool,
    trusted_keys: tuple[Path, ...],
) -> None:
    """Put a bundle that is in the store on trial, as gruard install does.

    Name it by NAME-VERSION or by the first digits of its digest; gruard list shows both. Choosing
    the current bundle ends a trial.

    \b
    Exit code 0: chosen; 2: a problem you can fix, and nothing has changed.
    Example: gruard use pump-2
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.updates.store import Store

    opened = Store(store, log=warn)
    bundle = read_bundle(opened.slots.find(name).path, allow_failed, trusted_keys, whole=False)
    click.echo(outcome(bundle, opened.use(bundle, attempts, downgrade), store))


@click.command()
@store_option
@click.option("--allow-failed", is_flag=True, help="Use a bundle whose validation failed.")
@trusted_key_option
def rollback(store: Path, allow_failed: bool, trusted_keys: tuple[Path, ...]) -> None:
    """End the trial or, without one, return to the previous bundle.

    The previous bundle needs no trial: it was current before. A second rollback undoes the first.

    \b
    Exit code 0: rolled back; 2: a problem you can fix, and nothing has changed.
    Example: gruard rollback
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.updates.store import Store

    opened = Store(store, log=warn)

    def rolled_back(pointers: Pointers) -> Pointers:
        after = pointers.rolled_back()
        if after.current and after.current != pointers.current:  # it must be able to run
            slot = opened.slots.path(after.current)
            read_bundle(slot, allow_failed, trusted_keys, whole=False)
        return after

    after = opened.change(rolled_back)
    assert after.current is not None and after.rejected is not None
    label = opened.slots.read(after.current).label or after.current
    left = opened.slots.read(after.rejected.slot).label or after.rejected.slot
    click.echo(f"rolled back {left}; current: {label}")


@click.command("list")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def list_bundles(store: Path, as_json: bool) -> None:
    """List the bundles of the store and the role of each: current, previous or on trial.

    The digest identifies a bundle; its first digits are enough for gruard use.

    Example: gruard list
    """
    from edge_runtime.updates.slots import SHORT
    from edge_runtime.updates.store import Store

    opened = Store(store, log=warn)
    pointers = opened.pointers()
    slots = sorted(opened.slots, key=lambda slot: ROLES.index(_role(slot, pointers)))
    if as_json:
        click.echo(json.dumps(_facts(store, pointers, slots)))
        return
    for slot in slots:
        click.echo(_line(slot, pointers))
    if rejected := pointers.rejected:
        labels = {slot.digest: f"{slot.label} " for slot in slots if slot.label}
        digest = rejected.slot[:SHORT]
        name = f"{labels[rejected.slot]}({digest})" if rejected.slot in labels else digest
        click.echo(f"rolled back {name}: {rejected.reason}")
    if not slots:
        click.echo(f"{store}: empty; gruard install BUNDLE puts one there")


def _role(slot: Slot, pointers: Pointers) -> str:
    if pointers.on_trial(slot.digest):
        return "trial"
    roles = {pointers.previous: "previous", pointers.current: "current"}
    return roles.get(slot.digest, "stored")


def _line(slot: Slot, pointers: Pointers) -> str:
    from edge_runtime.updates.slots import SHORT

    damaged = "DAMAGED" if slot.bundle is None else "damaged, but runs"
    notes = f"  {damaged}: {slot.fault}" if slot.fault else ""
    if pointers.trial and pointers.on_trial(slot.digest):
        notes = f"  attempts left: {pointers.trial.attempts}{notes}"
    return f"{_role(slot, pointers):<9} {slot.digest[:SHORT]}  {slot.label or '-'}{notes}"


def _facts(store: Path, pointers: Pointers, slots: list[Slot]) -> dict[str, Any]:
    from dataclasses import asdict

    bundles = [
        {
            "digest": slot.digest,
            "role": _role(slot, pointers),
            "name": slot.bundle.manifest.name if slot.bundle else None,
            "version": slot.bundle.manifest.version if slot.bundle else None,
            "model": slot.bundle.model_hash if slot.bundle else None,
            "path": str(slot.path),
            "fault": slot.fault or None,
        }
        for slot in slots
    ]
    return {"store": str(store), **asdict(pointers), "bundles": bundles}
