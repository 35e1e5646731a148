"""How the weights of a FULLY_CONNECTED lie in the blob, for the kernel that reads them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.numerics import Int8

LANES, GROUP = 16, 4
MOST_PAIRED = 512  # inputs; with more the sums of packed rows could leave 32 bits


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


def _pairs(weights: Int8) -> bytes:
    """Groups of 6 rows, the last of 4 or 6; in a group, for each 2 inputs, a word of each 2 rows.

    The two 16-bit lanes of a word belong to the two inputs; a lane is 256 times the weight of the
    even row plus that of the odd one.
    """
    outputs, inputs = weights.shape
    if inputs > MOST_PAIRED or weights.min(initial=0) < -127:
        raise GruardError(
            f"a product of {inputs} inputs, or with a weight of -128, does not fit into packed rows"
        )
    packed = bytearray()
    for first in range(0, outputs, 6):
        rows = weights[first : first + 6]
        group = np.zeros((6 if len(rows) > 4 else 4, _up(inputs, 8)), np.int16)
        group[: len(rows), :inputs] = rows
        lanes = 256 * group[0::2] + group[1::2]
        words = lanes.reshape(len(lanes), -1, 2)  # pair of rows, pair of inputs, lane
        packed += words.transpose(1, 0, 2).astype("<i2").tobytes()
    return bytes(packed)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


ROWS = Layout(0, 0, _rows)
X86 = Layout(1, 128, _lanes)
DSP = Layout(2, 0, _pairs)  # Cortex-M4, M7, M33
_LAYOUTS = {layout.number: layout for layout in (ROWS, X86, DSP)}


def layout_of(number: int) -> Layout:
    """The layout with the core's `number`. Raises GruardError when there is none."""
    if number not in _LAYOUTS:
        raise GruardError(
            f"layout {number} of the C core is unknown; build it again, or run on {KERNEL_ID}"
        )
    return _LAYOUTS[number]
