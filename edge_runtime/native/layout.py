"""How the weights of a FULLY_CONNECTED lie in the blob, for the kernel that reads them.

Kernels of microcontrollers read one stream: groups of rows, each after its biases. They compute
only results that are coarser than the sum, which those of a conversion are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.numerics import Int8

LANES, GROUP = 16, 4
MOST_PAIRED = 512  # inputs; with more the sums of packed rows could overflow 32 bits
_PAIRED_SUM, _QUAD_SUM = 1 << 22, 1 << 30  # what no sum of a stream may reach
_SAFE_SHIFT = 22  # with more, rounding and zero point could overflow 32 bits
Bias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """number: in the core. offset: what the kernel adds to each input code.

    arrange: from int8 weights [outputs, inputs] and biases [outputs] to the bytes that the kernel
    reads. most: what no sum may reach, if the biases are in these bytes; 0: they lie apart.
    """

    number: int
    offset: int
    arrange: Callable[[Int8, Bias], bytes]
    most: int = 0

    def refuses(self, largest: int, shift: int) -> bool:
        """Whether the kernel cannot compute sums of up to `largest` with the factor's `shift`."""
        return self.most > 0 and (largest >= self.most or not -_SAFE_SHIFT <= shift < 0)


def _rows(weights: Int8, bias: Bias) -> bytes:
    return weights.tobytes()


def _lanes(weights: Int8, bias: Bias) -> bytes:
    """Arrange blocks of 16 outputs: for each 4 inputs, 4 bytes of each output."""
    padded = _padded(weights, LANES, GROUP)
    blocks = padded.reshape(-1, LANES, padded.shape[1] // GROUP, GROUP)
    return blocks.transpose(0, 2, 1, 3).tobytes()


def _signed_lanes(weights: Int8, bias: Bias) -> bytes:
    """Arrange them as `_lanes`, for a kernel that may add two products in 16 bits."""
    if weights.min(initial=0) < -127:
        raise GruardError("a product with a weight of -128 does not fit into signed lanes")
    return _lanes(weights, bias)


def _pairs(weights: Int8, bias: Bias) -> bytes:
    """Arrange groups of 6 rows, the last of 4 or 6: biases, then a word of 2 rows for 2 inputs.

    The two 16-bit lanes of a word belong to the first and the third of four inputs, or to the
    second and the fourth; a lane is 256 times the weight of the even row plus that of the odd one.
    The biases are doubled and combined in the same way, each after the odd row's own.
    """
    if weights.shape[1] > MOST_PAIRED or weights.min(initial=0) < -127:
        raise GruardError(
            f"a product of {weights.shape[1]} inputs, or with a weight of -128, does not fit into "
            "packed rows"
        )
    packed = bytearray()
    for first in range(0, len(weights), 6):
        rows = weights[first : first + 6]
        size = 6 if len(rows) > 4 else 4
        group = _padded(rows, size, 8).astype(np.int16)
        start = 2 * np.pad(bias[first : first + 6], (0, size - len(rows)))
        start[0::2] = 256 * start[0::2] + start[1::2]
        packed += start.astype("<i4").tobytes()
        lanes = (256 * group[0::2] + group[1::2]).reshape(size // 2, -1, 2, 2)
        words = lanes.swapaxes(2, 3).reshape(size // 2, -1, 2)  # rows, pair of inputs, lane
        packed += words.transpose(1, 0, 2).astype("<i2").tobytes()
    return bytes(packed)


def _quads(weights: Int8, bias: Bias) -> bytes:
    """Arrange groups of 4 rows: their biases, then for each 16 inputs 16 bytes of each row."""
    packed = bytearray()
    for first in range(0, len(weights), 4):
        rows = weights[first : first + 4]
        group = _padded(rows, 4, LANES)
        packed += np.pad(bias[first : first + 4], (0, 4 - len(rows))).astype("<i4").tobytes()
        packed += group.reshape(4, -1, LANES).swapaxes(0, 1).tobytes()
    return bytes(packed)


def _padded(weights: Int8, rows: int, columns: int) -> Int8:
    """Pad with zeros up to multiples."""
    outputs, inputs = weights.shape
    return np.pad(weights, [(0, -outputs % rows), (0, -inputs % columns)])


ROWS = Layout(0, 0, _rows)
X86 = Layout(1, 128, _lanes)
DSP = Layout(2, 0, _pairs, _PAIRED_SUM)  # Cortex-M4, M7, M33
MVE = Layout(3, 0, _quads, _QUAD_SUM)  # Cortex-M55
NEON = Layout(4, 0, _signed_lanes)
_LAYOUTS = {layout.number: layout for layout in (ROWS, X86, DSP, MVE, NEON)}


def layout_of(number: int) -> Layout:
    """Return the layout with the core's `number`. Raises GruardError when there is none."""
    if number not in _LAYOUTS:
        raise GruardError(
            f"layout {number} of the C core is unknown; build it again, or run on {KERNEL_ID}"
        )
    return _LAYOUTS[number]
