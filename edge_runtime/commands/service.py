"""`gruard service`: `gruard run` as a systemd service that is locked in and watched over."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from edge_runtime.address import MQTT
from edge_runtime.commands import ranges

if TYPE_CHECKING:
    from edge_runtime.service.order import Order
    from edge_runtime.service.unit import Service

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    default="/",
    metavar="FOLDER",
    help="The device's / as a folder here, to prepare an image.  [default: this machine]",
)
name_argument = click.argument("name")


@click.group()
def service() -> None:
    """Run gruard as a systemd service that is locked in and watched over."""


@service.command()
@click.option("--name", help="The unit is gruard-NAME.service.  [default: the bundle's name]")
@click.option("--reader", metavar="COMMAND", help="What prints the samples for --source -.")
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
    default="256M",
    metavar="SIZE",
    help="What it may use at most, as systemd writes it.  [default: 256M]",
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
    "--python", metavar="PATH", help="The device's Python that has gruard.  [default: this one]"
)
@root_option
@click.option("--dry-run", is_flag=True, help="Print the unit and change nothing.")
@click.option("--no-start", is_flag=True, help="Write the unit and leave systemd alone.")
@click.option("--force", is_flag=True, help="Replace a unit of this name that gruard wrote.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def install(
    name: str | None,
    reader: str | None,
    devices: tuple[str, ...],
    groups: tuple[str, ...],
    network: bool,
    memory: str,
    watchdog_sec: int | None,
    on_start_limit: str,
    python: str | None,
    root: Path,
    dry_run: bool,
    no_start: bool,
    force: bool,
    words: tuple[str, ...],
) -> None:
    """Write a hardened unit that runs gruard run WORDS, and start it where systemd runs.

    Put -- before WORDS, and whole paths into them. The records go to the journal; the service may
    write nothing but its own folder, /var/lib/gruard/NAME, where a sink's file and a store may be.

    \b
    Exit code 0: written; 2: a problem you can mend.
    Example:
      gruard service install --reader "/usr/bin/python3 -u /opt/reader.py" \\
          -- /var/lib/gruard/pump-1.gruard --source -
    """
    from edge_runtime.service.planning import planned
    from edge_runtime.service.unit import Service, unit_text

    asked = Service(
        name=name or "",
        python=python or sys.executable,
        words=words,
        reader=_split(reader),
        devices=devices,
        groups=groups,
        network=network,
        memory=memory,
        watchdog=watchdog_sec,
        reboot=on_start_limit == "reboot",
    )
    made = planned(asked, _order(words, root))
    if dry_run:
        click.echo(unit_text(made), nl=False)
    else:
        _install(made, root, force, start=not no_start)


@service.command()
@name_argument
@root_option
def uninstall(name: str, root: Path) -> None:
    """Stop the service NAME and remove its unit. What it wrote stays.

    Only a unit that gruard service install wrote is removed.
    """
    from edge_runtime.service.installation import read_unit, remove_unit, systemctl, systemd_runs
    from edge_runtime.service.order import STATE, checked_name
    from edge_runtime.service.unit import unit_name

    unit = unit_name(checked_name(name))
    read_unit(root, name)
    if systemd_runs(root):
        systemctl(["disable", "--now", unit])
    click.echo(f"removed: {remove_unit(root, name)}")
    if systemd_runs(root):
        systemctl(["daemon-reload"])
    click.echo(f"what it kept is in {STATE}/{name}")


@service.command()
@name_argument
@root_option
def show(name: str, root: Path) -> None:
    """Print the unit of the service NAME. Before it is there: gruard service install --dry-run."""
    from edge_runtime.service.installation import read_unit
    from edge_runtime.service.order import checked_name

    click.echo(read_unit(root, checked_name(name)), nl=False)


def _split(command: str | None) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command or ""))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--reader") from None


def _order(words: tuple[str, ...], root: Path) -> Order:
    """What `gruard run` itself makes of the words; its usage errors are ours."""
    from edge_runtime.commands.run import run
    from edge_runtime.service.order import Order

    context = run.make_context("gruard run", list(words))
    told = context.params
    # A store that is not among the words is the installer's own, not the service's.
    named = context.get_parameter_source("store") is ParameterSource.COMMANDLINE
    if told["bundle"] and named:
        raise click.UsageError("name a BUNDLE or a --store, not both")
    if context.get_parameter_source("trusted_keys") is ParameterSource.ENVIRONMENT:
        # A service does not inherit this environment, and must insist on the keys all the same.
        keys = (("--trusted-key", str(key)) for key in told["trusted_keys"])
        words = (*(word for pair in keys for word in pair), *words)
    return Order(
        words=words,
        bundle=told["bundle"],
        store=told["store"] if named else None,
        source=told["source"],
        sinks=told["sinks"],
        keys=told["trusted_keys"],
        overwrite=told["force"],
        append=told["append"],
        allow_failed=told["allow_failed"],
        kernel=told["kernel"],
        delegate=told["delegate"],
        compiled=told["delegate_model"],
        journal=told["journal"],
        networked=told["metrics"] is not None or _networked((told["source"], *told["sinks"])),
        keeps_itself=any(told[name] is not None for name in ("watchdog", "state", "status_file")),
        root=root,
    )


def _networked(targets: tuple[str, ...]) -> bool:

    return any(target.partition("://")[0] in MQTT for target in targets)


def _install(made: Service, root: Path, force: bool, start: bool) -> None:
    from edge_runtime.service.installation import systemctl, systemd_runs, write_unit
    from edge_runtime.service.unit import unit_text

    click.echo(f"written: {write_unit(root, made.name, unit_text(made), force)}")
    enable = ["systemctl", "enable", "--now", made.unit]
    if not systemd_runs(root):
        click.echo(f"systemd does not run here; on the device: {' '.join(enable)}")
    elif not start:
        click.echo(f"to start it: systemctl daemon-reload && {' '.join(enable)}")
    else:
        systemctl(["daemon-reload"])
        systemctl(["enable", made.unit])
        systemctl(["restart", made.unit])
        click.echo(
            f"started: systemctl status {made.unit}; records: journalctl -o cat -u {made.unit}"
        )
