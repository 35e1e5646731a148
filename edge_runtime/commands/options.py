"""Options that several commands share."""

from pathlib import Path

import click

from edge_runtime.detector.kernels import INT8_KERNELS

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
