"""Flipped weights: where they are, and that the count is right."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.golden import Noticed, main, measure, notices, table, weight_bytes
from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.reader import read_bundle


def test_the_bytes_are_those_of_all_constants(tiny_bundle: Path) -> None:
    model = (tiny_bundle / "model.tflite").read_bytes()
    places = weight_bytes(model)
    tensors = read_graph(model, "model").tensors
    assert len(places) == len(np.unique(places)) == sum(t.constant_bytes for t in tensors)


def test_a_flip_is_noticed_and_none_is_not(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    place = int(weight_bytes(bundle.model)[0])
    assert notices(bundle, place, 6)
    found = measure(bundle, 20, seed=1)
    assert found[0].kind == "all" and found[0].flips == 20 and 15 <= found[0].noticed <= 20
    assert len(table(found).splitlines()) == 2 + len(found)


def test_an_interval_by_hand() -> None:
    # 8 of 10: Wilson's 95 % interval is 0.490 to 0.943.
    assert Noticed("all", 10, 8).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Noticed("all", 10, 10).interval[1] == 1.0


def test_a_linear_bundle_is_refused_in_words(linear_bundle: Path) -> None:
    told = CliRunner().invoke(main, [str(linear_bundle)])
    assert told.exit_code == 2 and "a linear model has no weights" in told.output
