"""Options that several commands share."""

from pathlib import Path

import click

from edge_runtime.detector.kernels import INT8_KERNELS
from edge_runtime.supervision.kernel_watchdog import LONGEST_TIMEOUT

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
state_option = click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep a marker here that tells the next start how this run ended.  [default: the "
    "service's STATE_DIRECTORY, if any]",
)
watchdog_option = click.option(
    "--watchdog",
    type=click.Path(path_type=Path),
    metavar="DEVICE",
    help="Let this device (/dev/watchdog) reset the machine when answers stay away. Not under "
    "systemd, which has its own way.",
)
watchdog_timeout_option = click.option(
    "--watchdog-timeout",
    type=click.IntRange(1, LONGEST_TIMEOUT),
    default=LONGEST_TIMEOUT,
    metavar="S",
    help=f"Seconds without an answered sample until then, at most {LONGEST_TIMEOUT}.  "
    f"[default: {LONGEST_TIMEOUT}]",
)
