"""Options that several commands share."""

import click

from edge_runtime.detector.kernels import INT8_KERNELS

kernel_option = click.option(
    "--kernel",
    type=click.Choice(INT8_KERNELS),
    help="Arithmetic to run the model on.  [default: tflite-builtin, the reference]",
)
