"""How the weights of a FULLY_CONNECTED lie in the blob, for the kernel that reads them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.numerics import Int8

LANES, GROUP = 16, 4


@dataclass(frozen=True)
class Layout:
    """number: as the core knows it. offset: what the kernel adds to each input code.

    arrange: int8 weights [outputs, inputs] to the bytes that the kernel reads.
    """

    number: int
    offset: int
    arrange: Callable[[Int8], bytes]


def _rows(weights: Int8) -> bytes:
    return weights.tobytes()


def _lanes(weights: Int8) -> bytes:
    """Blocks of 16 outputs; in a block, for each 4 inputs, 4 bytes of each output."""
    outputs, inputs = weights.shape
    padded = np.zeros((_up(outputs, LANES), _up(inputs, GROUP)), np.int8)
    padded[:outputs, :inputs] = weights
    blocks = padded.reshape(-1, LANES, padded.shape[1] // GROUP, GROUP)
    return blocks.transpose(0, 2, 1, 3).tobytes()


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


ROWS = Layout(0, 0, _rows)
X86 = Layout(1, 128, _lanes)
_LAYOUTS = {layout.number: layout for layout in (ROWS, X86)}


def layout_of(number: int) -> Layout:
    """The layout with the core's `number`. Raises GruardError when there is none."""
    if number not in _LAYOUTS:
        raise GruardError(
            f"layout {number} of the C core is unknown; build it again, or run on {KERNEL_ID}"
        )
    return _LAYOUTS[number]
