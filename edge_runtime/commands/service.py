"""`gruard service`: `gruard run` as a systemd service that is locked in and watched over."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edge_runtime.commands import ranges

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    default="/",
    metavar="FOLDER",
    help="The device's / as a folder here, to prepare an image.  [default: this machine]",
)
name_argument = click.argument("name")


def _split(context: click.Context, option: click.Parameter, command: str | None) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command or ""))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.group()
def service() -> None:
    """Run gruard as a systemd service that is locked in and watched over."""


@service.command()
@click.option("--name", help="The unit is gruard@NAME.service.  [default: the bundle's name]")
@click.option(
    "--reader", metavar="COMMAND", callback=_split, help="What prints the samples for --source -."
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="/dev/…",
    help="A device that the service may use, beside those among WORDS; may be repeated.",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="A group whose devices and files the service may read; may be repeated.  [default: the "
    "groups of its devices]",
)
@click.option("--network", is_flag=True, help="Let the service use the network.")
@click.option(
    "--memory",
    metavar="SIZE",
    help="What it may use at most, as systemd writes it.  [default: 256M; with --learn or "
    "--relearn 800M]",
)
@click.option(
    "--watchdog-sec",
    type=ranges.WATCHDOG_SECONDS,
    metavar="S",
    help="Seconds without an answered sample until a restart.  [default: 30, or 3 periods]",
)
@click.option(
    "--on-start-limit",
    type=click.Choice(["none", "reboot"]),
    default="none",
    help="After three restarts within ten minutes: go on restarting, or reboot the machine.  "
    "[default: none]",
)
@click.option(
    "--python",
    metavar="PATH",
    default=sys.executable,
    help="The device's Python that has gruard.  [default: this one]",
)
@root_option
@click.option("--dry-run", is_flag=True, help="Print the files and change nothing.")
@click.option("--no-start", is_flag=True, help="Write the files and leave systemd alone.")
@click.option("--force", is_flag=True, help="Replace files of this name that gruard wrote.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def install(
    words: tuple[str, ...], root: Path, dry_run: bool, no_start: bool, force: bool, **options: Any
) -> None:
    """Write a hardened unit that runs gruard run WORDS, and start it where systemd runs.

    With record as the first of the WORDS it runs gruard record.

    Two files in /etc/systemd/system: gruard@.service, the same for all machines, and what this
    machine needs beyond it, gruard@NAME.service.d/gruard.conf.

    Put -- before WORDS, and whole paths into them. The records go to the journal; the service may
    write nothing but its own folder, /var/lib/gruard/NAME, where a sink's file and a store may be.

    \b
    Exit code 0: written; 2: a problem you can mend.
    Example:
      gruard service install --reader "/usr/bin/python3 -u /opt/reader.py" \\
          -- /var/lib/gruard/pump-1.gruard --source -
    """
    from edge_runtime.service import units
    from edge_runtime.service.request import ServiceRequest, instance

    words, run = _parsed(words)
    name, settings = instance(ServiceRequest(words=words, run=run, root=root, **options))
    if dry_run:
        click.echo(units.as_text(units.unit_files(root, name, settings)), nl=False)
        return
    for file in units.write_units(root, name, settings, force):
        click.echo(f"written: {file}")
    unit = units.unit_name(name)
    if not units.systemd_runs(root):
        click.echo(f"systemd does not run here; on the device: systemctl enable --now {unit}")
    elif no_start:
        click.echo(f"to start it: systemctl daemon-reload && systemctl enable --now {unit}")
    else:
        units.systemctl("daemon-reload")
        units.systemctl("enable", unit)
        units.systemctl("restart", unit)
        click.echo(f"started: systemctl status {unit}; records: journalctl -o cat -u {unit}")


@service.command()
@name_argument
@root_option
def uninstall(name: str, root: Path) -> None:
    """Stop the service NAME and remove its unit. What it wrote stays.

    Only files that gruard service install wrote are removed, and gruard@.service with the last
    service only.
    """
    from edge_runtime.service import units
    from edge_runtime.service.request import STATE, checked

    units.read_units(root, checked("--name", name))
    if units.systemd_runs(root):
        units.systemctl("disable", "--now", units.unit_name(name))
    for file in units.remove_units(root, name):
        click.echo(f"removed: {file}")
    if units.systemd_runs(root):
        units.systemctl("daemon-reload")
    click.echo(f"what it kept is in {STATE}/{name}")


@service.command()
@name_argument
@root_option
def show(name: str, root: Path) -> None:
    """Print the files of the service NAME. Before there are any: install --dry-run."""
    from edge_runtime.service import units
    from edge_runtime.service.request import checked

    click.echo(units.as_text(units.read_units(root, checked("--name", name))), nl=False)


def _parsed(words: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The words of the service, and what `gruard run` makes of them; its usage errors are ours."""
    from edge_runtime.commands.run import check_learning, run

    if words[0] == "record":
        return words, _parsed_recording(words[1:])
    context = run.make_context("gruard run", list(words))
    # A store that is not among the words is the installer's own, not the service's.
    if context.get_parameter_source("store") is not ParameterSource.COMMANDLINE:
        context.params["store"] = None
    if context.params["bundle"] and context.params["store"]:
        raise click.UsageError("name a BUNDLE or a --store, not both")
    check_learning(**context.params)
    if context.get_parameter_source("trusted_keys") is ParameterSource.ENVIRONMENT:
        # A service does not inherit this environment, and must insist on the keys all the same.
        keys = (("--trusted-key", str(key)) for key in context.params["trusted_keys"])
        words = (*(word for pair in keys for word in pair), *words)
    return words, context.params


def _parsed_recording(words: tuple[str, ...]) -> dict[str, Any]:
    """The options of a `gruard run` that reads and writes what `gruard record` with these does."""
    from edge_runtime.commands.readings import record
    from edge_runtime.commands.run import run

    own = record.make_context("gruard record", list(words)).params
    options = run.make_context("gruard run", ["--source", own["source"]]).params
    none = {"bundle": None, "store": None, "sinks": (), "trusted_keys": ()}
    return {**options, **none, "keep_readings": own["out"]}
