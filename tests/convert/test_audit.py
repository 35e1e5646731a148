"""The audit: facts counted by hand, and verdicts that say no more than was found out."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from made_steps import inputs_of, weights_of

from convert.__main__ import cli
from convert.audit import micro as micro_target
from convert.audit.micro import MicroRun, NoTrial, micro_trial
from convert.audit.operators import ALIGNMENT, arena_bytes, audit
from convert.audit.targets import CORAL_CACHE, audit_text, verdicts
from convert.export import export_float
from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor, read_graph
from edge_runtime.detector.interpreter import quiet_stderr
from train.cell_config import CellConfig

needs_micro = pytest.mark.skipif(
    micro_target.find_spec("tflite_micro") is None,
    reason="tflite-micro is not installed: pip install -c constraints.txt '.[micro]'",
)


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> bytes:
    return (tiny_bundle / "model.tflite").read_bytes()


def tensor(index: int, size: int, constant: int = 0) -> GraphTensor:
    return GraphTensor(index, f"t{index}", "int8", (1, size), (0.1,), (0,), constant)


def test_totals_are_those_of_the_operators(model: bytes) -> None:
    graph = read_graph(model, "model")
    facts = audit(model, graph)
    products = [o for o in graph.operators if o.name == "FULLY_CONNECTED"]
    weights = [graph.tensors[operator.inputs[1]] for operator in products]
    assert facts.totals.macs == sum(int(np.prod(t.shape)) for t in weights)
    assert facts.totals.file_bytes == len(model) > facts.totals.parameter_bytes
    constants = [t for t in graph.tensors if t.constant_bytes]
    sizes = {"int8": 1, "int32": 4}
    expected = sum(sizes[t.dtype] * int(np.prod(t.shape)) for t in constants)
    assert facts.totals.parameter_bytes == expected
    assert {operator.activation for operator in facts.operators} == {"NONE", "RELU"}
    for operator in facts.operators:
        # Where a SLICE begins and ends is no quantity.
        inputs = operator.inputs[:1] if operator.name == "SLICE" else operator.inputs
        for each in (*inputs, *operator.outputs):
            assert each.scaling == "per tensor" and each.scale and each.zero_point is not None


def test_an_arena_by_hand() -> None:
    """100 -> 40 -> 20: input and middle live together, middle and output too."""
    tensors = (tensor(0, 100), tensor(1, 40), tensor(2, 20), tensor(3, 7, constant=7))
    operators = (
        GraphOperator("FULLY_CONNECTED", 1, (0, 3, -1), (1,)),
        GraphOperator("TANH", 1, (1,), (2,)),
    )
    graph = GraphSummary(1, tensors, operators, {"x": 0}, {"y": 2})
    # 112 for the input; 48 beside it; the output takes the input's place.
    assert arena_bytes(graph) == 112 + 48
    assert arena_bytes(graph) % ALIGNMENT == 0


def test_a_float_model_is_described_and_told_what_blocks_it() -> None:
    config = CellConfig(channels=2, gru_units=8)
    model = export_float(weights_of(config), config)
    graph = read_graph(model, "float")
    facts = audit(model, graph)
    assert {t.scaling for operator in facts.operators for t in operator.inputs} == {"none"}
    lite, micro, coral = verdicts(model, graph, facts)
    assert (lite.passed, micro.passed, coral.passed) == (False, None, False)
    assert any("full-integer quantisation" in reason for reason in lite.reasons)
    assert any("tensors of type float32" in reason for reason in coral.reasons)
    text = audit_text(facts, (lite, micro, coral))
    assert "NO   TFLite int8" in text and "?    TFLite Micro: not checked" in text
    assert inputs_of(config)  # the same step could be quantised


def test_a_loop_is_described_and_refused(tmp_path: Path) -> None:
    signature = tf.TensorSpec([1, 5, 3], tf.float32, "x")
    layer = tf.keras.layers.GRU(4)
    function = tf.function(lambda x: {"y": layer(x)})
    concrete = function.get_concrete_function(x=signature)
    with quiet_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], layer)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        model = converter.convert()
    graph = read_graph(model, "loop")
    found = verdicts(model, graph, audit(model, graph))
    assert "WHILE" in {operator.name for operator in graph.operators} and graph.subgraphs > 1
    assert any("export one step" in reason for reason in found[0].reasons)
    assert any("control flow is not mapped" in reason for reason in found[2].reasons)


def test_a_good_step_has_no_known_blocker_and_no_promise(model: bytes) -> None:
    graph = read_graph(model, "model")
    facts = audit(model, graph)
    lite, _, coral = verdicts(model, graph, facts)
    assert lite.passed and not lite.reasons
    assert coral.passed is None and not coral.reasons
    assert "no known blocker" in coral.summary and "no speed-up is to be expected" in coral.summary
    assert f"{facts.totals.parameter_bytes} bytes of {CORAL_CACHE}" in coral.summary


@needs_micro
def test_the_micro_interpreter_runs_the_step_for_real(model: bytes) -> None:
    trial = micro_trial(model)
    assert isinstance(trial, MicroRun)
    assert trial.codes > 1000 and trial.differing < 0.05 * trial.codes
    # Ties are placed in another order there, a tensor or two.
    assert trial.arena == pytest.approx(arena_bytes(read_graph(model, "model")), abs=64)


@needs_micro
def test_what_the_micro_interpreter_refuses_is_told(model: bytes) -> None:
    found = micro_trial(model[: len(model) // 2])
    assert isinstance(found, NoTrial) and found.passed is False
    assert found.summary.startswith("does not run: ")


def test_without_the_micro_interpreter_nothing_is_claimed(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_target, "find_spec", lambda name: None)
    graph = read_graph(model, "model")
    micro = verdicts(model, graph, audit(model, graph))[1]
    assert micro.passed is None and "not checked" in micro.summary and "[micro]" in micro.summary


@pytest.mark.skipif(micro_target.find_spec("tflite_micro") is None, reason="needs a child to hang")
def test_a_child_that_hangs_is_given_up(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_target, "TIME_LIMIT", 0.01)
    found = micro_trial(model)
    assert found == NoTrial(False, "does not answer within 0.01 s")


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    os.mkfifo(path)
    done = CliRunner().invoke(cli, ["audit", str(path)])
    assert str(done.exception) == (
        f"{path}: is a named pipe, not a file; name a bundle or a .tflite file"
    )
