"""`gruard use` and `gruard rollback`: another bundle of the store, or the one before."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.commands.install import outcome
from edge_runtime.commands.options import (
    attempts_option,
    downgrade_option,
    store_option,
    trusted_key_option,
    warn,
)


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
    Exit code 0: chosen; 2: a problem you can mend, and nothing has changed.
    Example: gruard use pump-2
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.updates.store import Store

    opened = Store(store, log=warn)
    bundle = read_bundle(opened.slots.find(name).path, allow_failed, trusted_keys, whole=False)
    click.echo(outcome(bundle, opened.use(bundle, attempts, downgrade), store))


@click.command()
@store_option
@click.option("--allow-failed", is_flag=True, help="Take a bundle whose validation failed.")
@trusted_key_option
def rollback(store: Path, allow_failed: bool, trusted_keys: tuple[Path, ...]) -> None:
    """End the trial or, without one, go back to the previous bundle.

    The previous bundle needs no trial: it was current before. A second rollback undoes the first.

    \b
    Exit code 0: gone back; 2: a problem you can mend, and nothing has changed.
    Example: gruard rollback
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.updates.pointers import Pointers
    from edge_runtime.updates.store import Store

    opened = Store(store, log=warn)

    def gone_back(pointers: Pointers) -> Pointers:
        after = pointers.gone_back()
        if after.current and after.current != pointers.current:  # it must be fit to run
            slot = opened.slots.path(after.current)
            read_bundle(slot, allow_failed, trusted_keys, whole=False)
        return after

    after = opened.change(gone_back)
    assert after.current is not None and after.rejected is not None
    label = opened.slots.read(after.current).label or after.current
    left = opened.slots.read(after.rejected.slot).label or after.rejected.slot
    click.echo(f"gone back from {left}; current: {label}")
