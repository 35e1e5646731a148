"""What the int8 ranges are taken from: rolled-out states and faults, so that nothing clips then."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from convert.convert_run import Conversion
from convert.export import export_int8
from convert.exported import REPRESENTATIVE, representative
from convert.tensor_errors import TensorError, tensor_errors
from convert.twins import float_twin
from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.graph_rules import graph_faults
from edge_runtime.learning.rollout import inputs_at, roll
from edge_runtime.learning.run import Run
from train.cell_config import CellConfig

pytestmark = pytest.mark.slow

Samples = Sequence[Mapping[str, np.ndarray]]


@pytest.fixture(scope="module")
def samples(good_run: Run, conversion: Conversion) -> Samples:
    return representative(good_run, conversion.float_model)


@pytest.fixture(scope="module")
def faulty_inputs(good_run: Run, conversion: Conversion) -> list[Mapping[str, np.ndarray]]:
    """Graph inputs of the float model over the rows with faults of the validation: other faults."""
    assert conversion.verdict.evidence is not None
    rollout = conversion.verdict.evidence.faulty.reference
    return inputs_at(rollout, range(0, len(rollout.score), 3))


def clean_only(run: Run, conversion: Conversion) -> Samples:
    """What ranges would be taken from without faults: the same rollout over clean rows alone."""
    twin = float_twin(conversion.manifest, conversion.float_model)
    rollout = roll(twin, run.rows["train"][0][:2000])
    return inputs_at(rollout, range(len(rollout.score)))


def test_representative_inputs_have_faults_and_states_in_them(samples: Samples) -> None:
    assert len(samples) == REPRESENTATIVE
    masks = np.array([sample["mask"] for sample in samples])
    evidence = np.array([sample["evidence"] for sample in samples])
    states = np.array([sample["state_0"] for sample in samples])
    gates = np.array([sample["gate"] for sample in samples])
    assert 0.5 < masks.mean() < 0.999 and np.abs(evidence).max() == 1
    assert states.std(axis=0).min() > 0.001 and len(np.unique(states, axis=0)) > 2000
    assert gates[:, 1:].min() < 0.2 and gates[:, 1:].max() > 0.9
    assert all(np.isfinite(value).all() for sample in samples for value in sample.values())


def saturated(errors: Sequence[TensorError]) -> float:
    return max(error.saturated for error in errors)


def test_ranges_cover_faults_that_the_ranges_have_not_seen(
    conversion: Conversion, faulty_inputs: list[Mapping[str, np.ndarray]]
) -> None:
    errors = tensor_errors(conversion.model, conversion.float_model, faulty_inputs)
    assert saturated(errors) < 0.005


def test_ranges_of_clean_rows_alone_would_clip_in_a_fault(
    good_run: Run,
    conversion: Conversion,
    faulty_inputs: list[Mapping[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from convert import export

    nothing: Callable[[Samples], list[dict[str, np.ndarray]]] = lambda samples: []  # noqa: E731
    monkeypatch.setattr(export, "corners", nothing)
    config = CellConfig(**good_run.config.sizes)
    narrow = export_int8(good_run.weights, config, clean_only(good_run, conversion))
    clipped = saturated(tensor_errors(narrow, conversion.float_model, faulty_inputs))
    shipped = tensor_errors(conversion.model, conversion.float_model, faulty_inputs)
    assert clipped > max(0.01, 5 * saturated(shipped))


@pytest.mark.long
def test_another_seed_gives_other_faults(good_run: Run, conversion: Conversion) -> None:
    other = replace(good_run, config=replace(good_run.config, seed=good_run.config.seed + 1))
    a, b = (representative(run, conversion.float_model) for run in (good_run, other))
    assert any((x["evidence"] != y["evidence"]).any() for x, y in zip(a, b, strict=True))
    same = representative(good_run, conversion.float_model)
    for x, y in zip(a, same, strict=True):
        assert all(np.array_equal(x[name], y[name]) for name in x)


def test_a_reading_trusted_unasked_is_in_the_ranges_though_no_row_has_one(
    good_run: Run, samples: Samples
) -> None:
    """Without it the scale of mask - guarded would be 1e-8, and such a SUB ends the process."""
    guarded = [{**sample, "guarded": sample["mask"]} for sample in samples]
    model = export_int8(good_run.weights, CellConfig(**good_run.config.sizes), guarded)
    assert graph_faults(read_graph(model, "model")) == []
