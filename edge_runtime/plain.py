"""From parsed JSON to frozen dataclasses: nothing missing, nothing more, every type right."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from edge_runtime.errors import GruardError

LARGEST = 3.4e38
"""The device computes in float32: beyond this a number is infinite there."""


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` (at `where`) as an instance of the annotation `kind`.

    Raises GruardError naming the field that is missing, unknown, not finite or of another type.
    """
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise GruardError(f"{where}: a list is expected")
        return tuple(build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and _is_subclass(origin, Mapping):
        if not isinstance(value, dict):
            raise GruardError(f"{where}: an object is expected")
        return {str(k): build(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        return build(next(a for a in arguments if a is not type(None)), value, where)
    return _build_scalar(kind, value, where)


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise GruardError(f"{where}: an object is expected")
    hints = typing.get_type_hints(kind)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        raise GruardError(
            f"{where}: fields missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}"
        )
    return kind(
        **{name: build(hint, value[name], f"{where}: {name}") for name, hint in hints.items()}
    )


def _build_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:  # also false for NaN
            raise GruardError(f"{where}: {value} is not a finite float32 number")
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise GruardError(f"{where}: {value!r} is not of type {kind.__name__}")


def _is_subclass(origin: Any, parent: type) -> bool:
    """Whether a typing origin is a class below `parent`."""
    return isinstance(origin, type) and issubclass(origin, parent)
