"""Finding back: the measure by hand, and a strict gate that only its tiers free."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from benchmarks import escape
from benchmarks.escape import Escape, StrictGate, Way, back_after, distances, table
from convert.twins import shipped_model
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.step import Model

WATCHED = np.array([1, 2])


@pytest.fixture
def model(tiny_bundle: Path) -> Model:
    bundle = read_bundle(tiny_bundle)
    return shipped_model(bundle.manifest, bundle.model)


def moved(model: Model) -> np.ndarray:
    rows = tiny_model.machine_rows(400, seed=3)
    rows[200:, 1:] += 2 * model.scaler.scale[1:]
    return rows


def test_back_is_the_first_calm_mean() -> None:
    assert back_after(np.zeros(20, np.float32)) == 0
    assert back_after(np.array([9.0] * 7 + [0.0] * 20, np.float32)) == 7
    assert back_after(np.ones(50, np.float32)) is None


def test_the_table_by_hand() -> None:
    found = [
        Escape("simulator/0", "held open", (0, 4), (None, 60), 3.0),
        Escape("simulator/1", "held open", (8, 8), (70, None), 5.0),
    ]
    line = table(found, (Way("held open", "open", False),)).splitlines()[2]
    assert line == "| held open | 6 | 8 | never | never | 50% | ×4.00 |"


def test_a_strict_gate_is_freed_by_its_tiers_alone(model: Model) -> None:
    ways = {way.name: way for way in escape.WAYS}
    rows = moved(model)
    freed, alone, open_gate = (
        distances(model, rows, ways[name], WATCHED)[200:]
        for name in ("strict gate, tiers", "strict gate alone", "held open")
    )
    assert back_after(open_gate) == 0
    assert back_after(alone) is None
    back = back_after(freed)
    assert back is not None and 0 < back <= 64


def test_the_strict_gate_shuts_beyond_four_scales_and_where_it_may(model: Model) -> None:
    gate = StrictGate(model.graph)
    inputs = {name: np.zeros(t.shape[1], np.float32) for name, t in model.manifest.inputs.items()}
    inputs |= {"mask": np.ones(3, np.float32), "guarded": np.array([0, 1, 1], np.float32)}
    inputs["magnitude"] = np.array([1, 0.49, 0.51], np.float32)
    assert gate(inputs)["gate_next"].tolist() == [1, 1, 0]
    assert gate.gated and replace(model, graph=gate).graph.kernel_id == model.graph.kernel_id
