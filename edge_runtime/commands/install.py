"""`gruard install`: a bundle into the store, on trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.commands.options import (
    attempts_option,
    downgrade_option,
    store_option,
    trusted_key_option,
    warn,
)

if TYPE_CHECKING:
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.updates.pointers import Pointers


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

    A gruard run from the store takes it up within seconds, without missing a sample, and keeps it
    after ten healthy minutes; if it fails, gruard goes back to the current one by itself. The first
    bundle of a store is current at once. Bundles that nothing points to any more are removed.

    A version below the highest that was ever current is refused without --allow-downgrade, which
    accepts it from then on.

    A power cut at any moment leaves the old state or the new one; then run the command again.

    \b
    Exit code 0: installed; 2: a problem you can mend, and nothing has changed.
    Example: gruard install pump-2.gruard --trusted-key plant.pub
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.updates.store import Store

    loaded = read_bundle(bundle, allow_failed, trusted_keys)
    pointers = Store(store, log=warn).install(loaded, attempts, downgrade)
    click.echo(outcome(loaded, pointers, store))


def outcome(bundle: Bundle, pointers: Pointers, store: Path) -> str:
    """What choosing `bundle` has come to, in one line."""
    from edge_runtime.updates.slots import SHORT, label

    name = f"{label(bundle)} ({bundle.digest[:SHORT]}) in {store}"
    if pointers.trial and pointers.on_trial(bundle.digest):
        return f"{name}: on trial, attempts left: {pointers.trial.attempts}"
    return f"{name}: current"
