"""What is written by hand for speed equals what dataclasses, enum and numpy do by themselves."""

import dataclasses
import enum
import inspect
import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.record import Flag, Record
from edge_runtime.sources.source import Reading

LARGEST = 2 * max(Flag)


def test_a_record_is_made_as_its_fields_say() -> None:
    fields = dataclasses.fields(Record)
    parameters = list(inspect.signature(Record.__init__).parameters.values())[1:]
    assert [field.name for field in fields] == [each.name for each in parameters]
    for field, parameter in zip(fields, parameters, strict=True):
        missing = field.default is dataclasses.MISSING
        assert parameter.default == (inspect.Parameter.empty if missing else field.default)
    record = Record(*range(len(fields)))  # type: ignore[arg-type]
    assert list(dataclasses.astuple(record)) == list(range(len(fields)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.index = 5  # type: ignore[misc]


@given(st.integers(0, LARGEST - 1), st.integers(0, LARGEST - 1))
def test_flags_combine_as_those_of_enum_do(left: int, right: int) -> None:
    one, other = Flag(left), Flag(right)
    for found, expected in (
        (one | other, enum.IntFlag.__or__(one, other)),
        (one & other, enum.IntFlag.__and__(one, other)),
        (one & ~other, enum.IntFlag.__and__(one, ~other)),
    ):
        assert type(found) is Flag and found == expected


NUMBERS = [0.0, -1.5, np.nan, np.inf, -np.inf, 1e37, -9.9e37, 1e38, 3.4e38, 3.5e38, -1e39, 1e308]


@pytest.mark.parametrize("pair", list(product(NUMBERS, NUMBERS)), ids=str)
def test_readings_become_float32_without_a_warning(pair: tuple[float, float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(pair).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(Reading.of(None, pair).row, expected)
