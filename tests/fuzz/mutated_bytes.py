"""Harm that knows nothing of a format: flipped bits, cuts, blocks moved about."""

import random

LONGEST_BLOCK = 256


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """`data` with one kind of harm done to it."""
    harm = rng.choice((_flip_bits, _set_bytes, _cut, _move_block, _remove_block, _repeat_block))
    return harm(rng, data)


def _flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_bytes(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    end = rng.choice((rng.randrange(len(data)), len(data) - rng.randrange(1, 64)))
    return data[: max(end, 0)]


def _block(rng: random.Random, data: bytes) -> tuple[int, bytes]:
    start = rng.randrange(len(data))
    return start, data[start : start + rng.randrange(1, LONGEST_BLOCK)]


def _move_block(rng: random.Random, data: bytes) -> bytes:
    place, (_, block) = rng.randrange(len(data)), _block(rng, data)
    return data[:place] + block + data[place + len(block) :]


def _remove_block(rng: random.Random, data: bytes) -> bytes:
    start, block = _block(rng, data)
    return data[:start] + data[start + len(block) :]


def _repeat_block(rng: random.Random, data: bytes) -> bytes:
    start, block = _block(rng, data)
    return data[:start] + block * rng.choice((1, 2, 100)) + data[start:]
