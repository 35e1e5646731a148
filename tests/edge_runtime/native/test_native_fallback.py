"""The core's fallback answers as the reference's does, over everything that it looks at."""

from collections.abc import Callable
from pathlib import Path

import native_core  # noqa: F401
import numpy as np
import pytest
import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from native_models import MadeBundle, modal, modal_rows

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.fallback import Fallback
from edge_runtime.native.engine import NativeFallback
from edge_runtime.record import Record, Sample


def broken_rows() -> np.ndarray:
    """A recording in which each view of each channel has something to say, and nothing at last."""
    rows = tiny_model.machine_rows(900, seed=11)
    rows[100:140, 1] = np.nan
    rows[200:260, 2] += 400
    rows[300:360, 1] = rows[300, 1]
    rows[400] = np.inf
    rows[500:560] = np.nan
    rows[600:700, 1] += np.linspace(0, 30, 100)
    return rows


def answers(fallback: Fallback | NativeFallback, rows: np.ndarray) -> list[Record]:
    return [fallback.step(Sample(10 + i, 0.5 * i, row)) for i, row in enumerate(rows)]


def test_records_are_those_of_the_reference(tiny_bundle: Path) -> None:
    bundle, rows = read_bundle(tiny_bundle), broken_rows()
    expected = answers(Fallback(bundle.manifest, bundle.model_hash), rows)
    assert answers(NativeFallback(bundle), rows) == expected
    assert {True, False} == {record.alarm for record in expected}
    assert {name for record in expected for name in record.blamed} >= {"flow", "heat"}
    assert any(len(record.masked) == len(bundle.manifest.channels) for record in expected)


def test_a_linear_bundle_has_one_too(linear_bundle: Path) -> None:
    bundle, rows = read_bundle(linear_bundle), broken_rows()
    expected = answers(Fallback(bundle.manifest, bundle.model_hash), rows)
    assert answers(NativeFallback(bundle), rows) == expected


@pytest.mark.long
@given(
    moves=st.lists(
        st.tuples(st.integers(0, 899), st.tuples(*(st.floats(-100, 100, width=32),) * 3)),
        max_size=6,
    )
)
@settings(max_examples=20, deadline=None)
def test_it_stands_where_the_reference_stands(
    linear_bundle: Path, moves: list[tuple[int, tuple[float, ...]]]
) -> None:
    bundle, rows = read_bundle(linear_bundle), broken_rows()
    pair = Fallback(bundle.manifest, bundle.model_hash), NativeFallback(bundle)
    for index, row in enumerate(rows):
        for _, centre in (each for each in moves if each[0] == index):
            for fallback in pair:
                fallback.stand_at(centre)
        reference, core = (fallback.step(Sample(index, None, row)) for fallback in pair)
        assert reference == core


@pytest.mark.parametrize("make", [lambda made: Fallback(made.manifest, ""), NativeFallback])
def test_with_operating_modes_a_place_to_stand_changes_nothing(
    make: Callable[[MadeBundle], Fallback | NativeFallback],
) -> None:
    """A place is within a mode, and the limits are of all modes together."""
    made = modal(5)
    rows = modal_rows(made, 100, seed=2)
    moved, other = make(made), make(made)
    moved.stand_at((8.0,) * 5)
    assert answers(moved, rows) == answers(other, rows)
