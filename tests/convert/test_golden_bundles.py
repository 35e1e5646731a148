"""The stored bundles are those that a conversion makes today, so no device test reads stale ones.

Where a test here fails after a change that was meant: python -m tests.golden_bundles
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_steps import network

from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.manifest import SCHEMA
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from tests.golden_bundles import (
    DIAGNOSIS,
    FOLDER,
    LINEAR,
    NETWORKS,
    SIZES,
    TINY,
    diagnosis_text,
    network_file,
)
from train.cell_config import CellConfig

NEARLY = 1e-3  # relative; another TensorFlow or BLAS may round otherwise
STORED = {"tiny_bundle": TINY, "linear_bundle": LINEAR}
HASHES = ("members", "proof", "provenance")
MOST_BYTES = 100_000


@pytest.fixture(params=STORED)
def pair(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A stored bundle, and the same made afresh."""
    return STORED[request.param], request.getfixturevalue(request.param)


def leaves(value: Any, place: str = "") -> dict[str, Any]:
    """All that is in a JSON value, by its place."""
    if not isinstance(value, (dict, list)):
        return {place: value}
    named = value.items() if isinstance(value, dict) else enumerate(value)
    found = {place: type(value)}
    for name, part in named:
        found |= leaves(part, f"{place}/{name}")
    return found


def manifest(bundle: Path) -> dict[str, Any]:
    """The values of the manifest by their places, without hashes."""
    data = json.loads((bundle / "manifest.json").read_text())
    kept = {name: value for name, value in data.items() if name not in HASHES}
    return leaves(kept | {name: sorted(data[name]) for name in HASHES})


def assert_near(stored: dict[str, Any], fresh: dict[str, Any]) -> None:
    assert stored.keys() == fresh.keys()
    for place, value in fresh.items():
        near = isinstance(value, float)
        wanted = pytest.approx(value, rel=NEARLY, abs=NEARLY) if near else value
        assert stored[place] == wanted, place


def test_the_members_are_the_same(pair: tuple[Path, Path]) -> None:
    stored, fresh = ({file.name for file in bundle.iterdir()} for bundle in pair)
    assert stored == fresh


def test_the_manifest_says_the_same(pair: tuple[Path, Path]) -> None:
    stored, fresh = map(manifest, pair)
    assert stored["/schema"] == SCHEMA
    assert_near(stored, fresh)


@pytest.mark.parametrize("member", ["golden.npz", "calibration.npz"])
def test_the_arrays_are_of_the_same_shapes(pair: tuple[Path, Path], member: str) -> None:
    stored, fresh = (
        {name: (array.dtype, array.shape) for name, array in np.load(bundle / member).items()}
        for bundle in pair
    )
    assert stored == fresh


def test_the_detector_of_today_gives_the_stored_answers(pair: tuple[Path, Path]) -> None:
    Detector(read_bundle(pair[0])).self_test()


@pytest.mark.long
def test_the_stored_networks_are_those_of_the_exporter() -> None:
    assert {network_file(name) for name in SIZES} == {*NETWORKS.iterdir()}
    for name, sizes in SIZES.items():
        stored = read_graph(network_file(name).read_bytes(), name)
        fresh = read_graph(network(CellConfig(**sizes)), name)
        assert [o.name for o in stored.operators] == [o.name for o in fresh.operators], name
        assert (stored.inputs.keys(), stored.outputs.keys()) == (
            fresh.inputs.keys(), fresh.outputs.keys()
        )  # fmt: skip
        assert [(t.shape, t.dtype) for t in stored.tensors] == [
            (t.shape, t.dtype) for t in fresh.tensors
        ], name


def test_the_stored_diagnosis_is_that_of_the_fit() -> None:
    stored, fresh = (leaves(json.loads(text)) for text in (DIAGNOSIS.read_text(), diagnosis_text()))
    assert_near(stored, fresh)


def test_what_is_stored_is_small() -> None:
    for folder in (TINY, LINEAR, NETWORKS):
        assert sum(file.stat().st_size for file in folder.iterdir()) < MOST_BYTES
    assert {*FOLDER.iterdir()} == {TINY, LINEAR, NETWORKS, DIAGNOSIS}
