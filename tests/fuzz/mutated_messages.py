"""Messages that were right once: changed, cut, doubled, spiked with what parsers stumble on."""

from collections.abc import Sequence
from random import Random

STUMBLING = (
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r", b"\t", b" ", b'"', b"'",
    b"\\", b"\\u0000", b"\\ud800", b",", b";", b":", b"/", b"//", b"@", b"=", b"&", b"?", b"%",
    b"%zz",
    b"%00", b"#", b"+", b"-", b"_", b".", b"0x", b">>", b"X9", b"{", b"}", b"[", b"]", b"[" * 3000,
    b'{"a":' * 3000, b"null", b"true", b"nan", b"NaN", b"-Infinity", b"1e999", b"-1e-999",
    b"1e308", b"5e-324", b":60", b"0001-", b"9999-", b"+14:00", b"T24:00",
    b"9" * 400, b"9" * 5000, b"1_0", "٣".encode(), "½".encode(), "🙂".encode(), b"\x1b[2J",
)  # fmt: skip


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to four places; now and then noise alone."""
    if random.random() < 0.05:
        return random.randbytes(random.randrange(40))
    message = random.choice(seeds)
    for _ in range(random.randint(1, 4)):
        message = random.choice(_CHANGES)(random, message, seeds)
    return message


def _flip(random: Random, message: bytes, _: Sequence[bytes]) -> bytes:
    if not message:
        return message
    changed = bytearray(message)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(random: Random, message: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randint(0, len(message)) for _ in range(2))
    return message[:start] + message[end:]


def _double(random: Random, message: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randint(0, len(message)) for _ in range(2))
    return message[:end] + message[start:]


def _stumble(random: Random, message: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randint(0, len(message))
    end = min(start + random.randrange(4), len(message))
    return message[:start] + random.choice(STUMBLING) + message[end:]


def _splice(random: Random, message: bytes, seeds: Sequence[bytes]) -> bytes:
    other = random.choice(seeds)
    return message[: random.randint(0, len(message))] + other[random.randint(0, len(other)) :]


_CHANGES = (_flip, _flip, _cut, _double, _stumble, _stumble, _splice)
