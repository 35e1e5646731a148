"""Models with harm done to the numbers that a reader follows: offsets, lengths, indices, scales."""

import functools
import random
import struct
from unittest import mock

from mutated_bytes import mutated_bytes

from edge_runtime.bundle import flatbuffer
from edge_runtime.bundle.flatbuffer import BoundedBytes

Number = tuple[int, str]  # where it lies, and its struct format
_HIGH_BITS = {"B": 8, "b": 7, "H": 16, "h": 15, "I": 32, "i": 31, "Q": 64, "q": 63}
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e-45, 1e-38, 1e-9, 1e-3, 1.0, 1e9, 3e38)


def mutated_graph(rng: random.Random, model: bytes) -> bytes:
    """Another .tflite file; three in four changed in the numbers of its structure."""
    if rng.random() < 0.25:
        return mutated_bytes(rng, model)
    changed = bytearray(model)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        position, form = rng.choice(_numbers(model))
        struct.pack_into("<" + form, changed, position, _value(rng, model, position, form))
    return bytes(changed)


def _value(rng: random.Random, model: bytes, position: int, form: str) -> float:
    """An odd number, a neighbour of the old one, or one of the same format from elsewhere."""
    others = _places(model, form)
    old = struct.unpack_from("<" + form, model, position)[0]
    if form == "f":
        factor = rng.choice((0.5, 1.001, 2.0, -1.0, 1e6, 1e-6))
        borrowed = struct.unpack_from("<f", model, rng.choice(others))[0]
        return float(rng.choice((rng.choice(_FLOATS), old * factor, borrowed)))
    high = 2 ** _HIGH_BITS[form]
    low = -high if form in "bhiq" else 0
    near = rng.choice((-8, -4, -2, -1, 1, 2, 4, 8))
    odd = rng.choice((0, 1, -1, 2, 3, 4, 127, 128, 255, len(model), low, high - 1))
    borrowed = struct.unpack_from("<" + form, model, rng.choice(others))[0]
    value = rng.choice((odd, old + near, borrowed, borrowed, old ^ (1 << rng.randrange(16))))
    return min(max(int(value), low), high - 1)


@functools.lru_cache(maxsize=64)
def _places(model: bytes, form: str) -> tuple[int, ...]:
    return tuple(position for position, same in _numbers(model) if same == form)


@functools.lru_cache(maxsize=8)
def _numbers(model: bytes) -> tuple[Number, ...]:
    """Every number that the reader reads on its way through `model`."""
    found: dict[Number, None] = {}

    class Recorder(BoundedBytes):
        def numbers(self, position: int, form: str, count: int = 1) -> tuple[int, ...]:
            width = struct.calcsize("<" + form)
            found.update(dict.fromkeys((position + i * width, form) for i in range(count)))
            return super().numbers(position, form, count)

    with mock.patch.object(flatbuffer, "BoundedBytes", Recorder):
        flatbuffer.read_graph(model, "model")
    return tuple(found)
