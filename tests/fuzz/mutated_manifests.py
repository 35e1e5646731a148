"""Manifests that are still JSON, mostly, but no longer what gruard wrote."""

import json
import random
from collections.abc import Callable
from typing import Any

from mutated_bytes import mutated_bytes

# Written as they stand, because json.dumps would not.
ODD_TEXTS = (
    "NaN", "-Infinity", "1e999", "-1e-999", "9" * 5000, "1" + "0" * 400, "0.1e-45", "-0.0",
    '"\\ud800"', '"\\u0000"', '"\\u001b[2J"', "[" * 3000 + "]" * 3000,
    '{"a":' * 500 + "1" + "}" * 500, "[" + "[]," * 100_000 + "0]", "[" + "[0]," * 200_000 + "0]",
    "true", "null", "[]", "{}", '""', "-1", "0", "1", "256", "257", "9223372036854775808",
    "3.4e38", "3.5e38", "1e-30", "1e-31", "[" + "0," * 3000 + "0]", '"' + "x" * 100_000 + '"',
)  # fmt: skip
_MARK = "\x00odd\x00"
_DEPTH = 0.15  # chance of stopping on the way down

Container = Any  # a list or an object, neither of them empty


def mutated_manifest(rng: random.Random, text: bytes) -> bytes:
    """The text of another manifest; three in four changed as JSON, one as bytes."""
    if rng.random() < 0.25:
        return mutated_bytes(rng, text)
    data, odd = json.loads(text), ""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        container, key = _place(rng, data)
        change = rng.choice(CHANGES)
        if change is _put_odd:
            odd = rng.choice(ODD_TEXTS)
        change(rng, container, key)
    return json.dumps(data).replace(json.dumps(_MARK), odd or "7").encode()


def _place(rng: random.Random, data: Any) -> tuple[Container, Any]:
    """A container somewhere in `data`, and a key or an index that is in it."""
    container = data
    while True:
        key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        below = container[key]
        if not isinstance(below, (dict, list)) or not below or rng.random() < _DEPTH:
            return container, key
        container = below


def _put_odd(rng: random.Random, container: Container, key: Any) -> None:
    container[key] = _MARK


def _remove(rng: random.Random, container: Container, key: Any) -> None:
    if len(container) > 1:  # nothing is chosen from an empty one
        del container[key]


def _nudge(rng: random.Random, container: Container, key: Any) -> None:
    value = container[key]
    if isinstance(value, (int, float)):
        container[key] = rng.choice((-value, value + 1, value * (1 + 1e-6), value * 1e6, value / 2))
    else:
        _retype(rng, container, key)


def _retype(rng: random.Random, container: Container, key: Any) -> None:
    value = container[key]
    container[key] = rng.choice((str(value), [value], {"a": value}, None, bool(value), 3, 0.5))


def _rename(rng: random.Random, container: Container, key: Any) -> None:
    if isinstance(container, dict):
        container[rng.choice((key + "x", key[1:], "", "a\nb", "x" * 1000))] = container.pop(key)


def _double(rng: random.Random, container: Container, key: Any) -> None:
    if isinstance(container, dict):
        container[key + "_2"] = container[key]
    else:
        container.extend([container[key]] * rng.choice((1, 2, 300)))


def _take_other(rng: random.Random, container: Container, key: Any) -> None:
    container[key] = container[
        rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
    ]


CHANGES: tuple[Callable[[random.Random, Container, Any], None], ...] = (
    _put_odd, _put_odd, _remove, _nudge, _nudge, _retype, _rename, _double, _take_other,
)  # fmt: skip
