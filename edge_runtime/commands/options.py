"""Options that several commands share."""

import os
from pathlib import Path

import click

from edge_runtime.detector.kernels import INT8_KERNELS
from edge_runtime.updates.pointers import ATTEMPTS


def default_store() -> Path:
    """Where bundles are kept when nobody says: systemd's StateDirectory, else the user's own."""
    service = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if service:
        return Path(service)
    home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(home) / "gruard"


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_store,
    envvar="GRUARD_STORE",
    metavar="DIR",
    help="Folder of the installed bundles.  [default: GRUARD_STORE, else STATE_DIRECTORY, which "
    "systemd sets, else ~/.local/state/gruard]",
)
attempts_option = click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=ATTEMPTS,
    metavar="N",
    help=f"Loads that the trial may take until it has proven itself.  [default: {ATTEMPTS}]",
)
downgrade_option = click.option(
    "--allow-downgrade",
    "downgrade",
    is_flag=True,
    help="Allow a version below that of the current bundle of the same name.",
)
trusted_key_option = click.option(
    "--trusted-key",
    "trusted_keys",
    multiple=True,
    type=click.Path(path_type=Path),
    envvar="GRUARD_TRUSTED_KEYS",
    metavar="FILE.pub",
    help="Take bundles signed by this key alone; may be repeated. GRUARD_TRUSTED_KEYS, a list "
    "separated by colons, asks for the same in every command.",
)
kernel_option = click.option(
    "--kernel",
    type=click.Choice(INT8_KERNELS),
    help="Arithmetic to run the model on.  [default: tflite-builtin, the reference]",
)
