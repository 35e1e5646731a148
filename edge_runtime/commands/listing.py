"""`gruard list`: what is in the store, what runs, and why something was gone back from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands.options import store_option, warn

if TYPE_CHECKING:
    from edge_runtime.updates.pointers import Pointers
    from edge_runtime.updates.slots import Slot


ROLES = ("current", "trial", "previous", "stored")


@click.command("list")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def list_bundles(store: Path, as_json: bool) -> None:
    """Show the bundles of the store and what each of them is: current, previous or on trial.

    The digest names a bundle for certain; the first digits are enough for gruard use.

    Example: gruard list
    """
    from edge_runtime.updates.store import Store

    opened = Store(store, log=warn)
    pointers = opened.pointers()
    slots = sorted(opened.slots, key=lambda slot: ROLES.index(_role(slot, pointers)))
    if as_json:
        click.echo(json.dumps(_facts(store, pointers, slots)))
        return
    for slot in slots:
        click.echo(_line(slot, pointers))
    if pointers.rejected:
        click.echo(f"gone back from {_name(pointers.rejected.slot, slots)}: {_reason(pointers)}")
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


def _name(digest: str, slots: list[Slot]) -> str:
    from edge_runtime.updates.slots import SHORT

    names = {slot.digest: slot.label for slot in slots if slot.label}
    return f"{names[digest]} ({digest[:SHORT]})" if digest in names else digest[:SHORT]


def _reason(pointers: Pointers) -> str:
    return pointers.rejected.reason if pointers.rejected else ""


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
