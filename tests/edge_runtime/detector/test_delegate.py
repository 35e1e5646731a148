"""Accelerators with a real delegate library: its bits, its kernel, and every way it can fail."""

import argparse
import ctypes.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import compiled_model
import numpy as np
import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.commands.first_load import load_safely
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.interpreter import Int8Graph
from edge_runtime.detector.kernels import (
    CAUSES,
    HOST_KERNEL_ID,
    INT8_KERNELS,
    KERNEL_ID,
    LARGEST_COMPILED,
    Delegate,
    Kernel,
    add_kernel_arguments,
    chosen_kernel,
    delegate_kernel_id,
    explained,
    kernel_words,
    read_compiled,
)
from edge_runtime.detector.thresholds import store_threshold, threshold_of
from edge_runtime.errors import GruardError
from tests.apparatus import made_delegate

MADE = made_delegate.KERNEL


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    return read_bundle(bundle_copy)


@pytest.fixture
def made(delegate_library: Path) -> Delegate:
    return Delegate(str(delegate_library))


@pytest.fixture
def compiled(bundle: Bundle, made: Delegate, tmp_path: Path) -> Delegate:
    file = tmp_path / "model_edgetpu.tflite"
    file.write_bytes(compiled_model.compiled(bundle.model))
    return replace(made, compiled=file)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda what: monkeypatch.setenv("DELEGATE_PLAN", what)


def graph_on(bundle: Bundle, kernel: Kernel) -> Int8Graph:
    softplus = np.array(bundle.manifest.tables.softplus, np.float32)
    return Int8Graph(bundle.model, bundle.graph, softplus, kernel)


def codes(graph: Int8Graph, bundle: Bundle) -> list[bytes]:
    """What 100 steps over random inputs give."""
    rng = np.random.default_rng(3)
    inputs = bundle.manifest.inputs
    steps = [
        {n: (3 * rng.standard_normal(t.shape[1])).astype(np.float32) for n, t in inputs.items()}
        for _ in range(100)
    ]
    return [b"".join(code.tobytes() for code in graph.codes(step).values()) for step in steps]


def give_threshold(bundle: Bundle, kernel: str = MADE, by: float = 5.0) -> None:
    own = bundle.manifest.thresholds[KERNEL_ID]
    store_threshold(bundle, kernel, replace(own, value=own.value + by, clear=own.clear + by))


def test_a_delegate_that_rounds_as_the_cpu_gives_the_reference_bits(
    bundle: Bundle, made: Delegate
) -> None:
    graph = graph_on(bundle, made)
    names = [operator["op_name"] for operator in graph._interpreter._get_ops_details()]
    assert names.count("DELEGATE") == 1 and graph.kernel_id == MADE
    assert codes(graph, bundle) == codes(graph_on(bundle, KERNEL_ID), bundle)


def test_a_delegate_that_takes_nothing_leaves_the_reference_its_name(
    bundle: Bundle, made: Delegate, plan: Callable[[str], None]
) -> None:
    plan("idle")
    detector = Detector(bundle, made)
    detector.self_test()  # to the bit
    assert detector.graph.kernel_id == KERNEL_ID
    assert codes(detector.graph, bundle) == codes(graph_on(bundle, KERNEL_ID), bundle)


def test_a_named_pipe_in_place_of_a_compiled_model_is_refused_without_waiting(
    bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "model_edgetpu.tflite"
    os.mkfifo(file)
    with pytest.raises(GruardError, match=f"{file}: cannot be read .is a named pipe, not a file"):
        read_compiled(file, bundle.graph)


def test_a_compiled_model_runs_on_the_delegate_alone_and_names_the_kernel(
    bundle: Bundle, compiled: Delegate
) -> None:
    graph = graph_on(bundle, compiled)
    assert graph.kernel_id == delegate_kernel_id(compiled, compiled_model.compiled(bundle.model))
    assert graph.kernel_id != delegate_kernel_id(compiled, bundle.model)
    assert codes(graph, bundle) == codes(graph_on(bundle, KERNEL_ID), bundle)


def test_other_codes_need_and_get_a_threshold_of_their_own(
    bundle: Bundle, made: Delegate, plan: Callable[[str], None]
) -> None:
    plan("coarse")
    assert codes(graph_on(bundle, made), bundle) != codes(graph_on(bundle, KERNEL_ID), bundle)
    with pytest.raises(GruardError, match=r"no threshold for kernel made; .* the same --delegate"):
        Detector(bundle, made)
    give_threshold(bundle)
    detector = load_safely(bundle, made)
    detector.self_test()  # within the tolerance
    assert detector.model.manifest.thresholds == {MADE: threshold_of(bundle, MADE)}
    own = bundle.manifest.thresholds
    assert Detector(bundle).model.manifest.thresholds == own


def test_a_delegate_that_computes_something_else_fails_its_self_test(
    bundle: Bundle, made: Delegate, plan: Callable[[str], None]
) -> None:
    plan("wrong")
    give_threshold(bundle)
    with pytest.raises(GruardError, match="self-test failed"):
        Detector(bundle, made).self_test()


def test_a_compiled_model_of_another_bundle_is_refused(
    bundle: Bundle, compiled: Delegate, tmp_path: Path
) -> None:
    assert compiled.compiled
    model, graph = read_compiled(compiled.compiled, bundle.graph)
    assert model == compiled.compiled.read_bytes()
    assert (graph.inputs, graph.outputs) == (bundle.graph.inputs, bundle.graph.outputs)
    for change in (
        {"name": "else"}, {"shape": (1, 99)}, {"scales": (0.5,)}, {"zero_points": (77,)},
        {"dtype": "uint8"},
    ):  # fmt: skip
        for index in (*bundle.graph.inputs.values(), *bundle.graph.outputs.values()):
            tensors = list(bundle.graph.tensors)
            tensors[index] = replace(tensors[index], **change)
            with pytest.raises(GruardError, match=r"compile the model\.tflite of this bundle"):
                read_compiled(compiled.compiled, replace(bundle.graph, tensors=tuple(tensors)))


def test_a_file_that_is_no_compiled_model_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "else.tflite"
    with pytest.raises(GruardError, match=r"else\.tflite: cannot be read \(No such file"):
        read_compiled(file, bundle.graph)
    file.write_bytes(b"nothing")
    with pytest.raises(GruardError, match=r"not a \.tflite file"):
        read_compiled(file, bundle.graph)
    with file.open("wb") as stream:
        stream.truncate(LARGEST_COMPILED + 1)
    with pytest.raises(GruardError, match="larger than"):
        read_compiled(file, bundle.graph)


# What goes wrong, and the text that has to explain it.
FAILURES = {
    "missing library": "cannot open shared object file",
    "another library": "undefined symbol: tflite_plugin",
    "no library": "ELF",
    "no-device": "Failed to load delegate",
    "refuse": "delegate application failure",
    "crash": "SIGSEGV",
    "abort": "SIGABRT",
    "compiled for another": "edgetpu-custom-op",
}


def test_every_explanation_belongs_to_a_failure_that_is_provoked_here() -> None:
    assert sorted(FAILURES.values()) == sorted(CAUSES)


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_is_one_line_that_says_what_to_do(
    failure: str,
    bundle: Bundle,
    made: Delegate,
    compiled: Delegate,
    plan: Callable[[str], None],
    tmp_path: Path,
) -> None:
    junk = tmp_path / "libjunk.so"
    junk.write_bytes(b"no library at all" * 100)
    delegate = {
        "missing library": Delegate("libedgetpu-that-is-not-there.so.1"),
        "another library": Delegate(str(ctypes.util.find_library("m"))),
        "no library": Delegate(str(junk)),
        "compiled for another": compiled,
    }.get(failure, made)
    plan("idle" if failure == "compiled for another" else failure)
    with pytest.raises(GruardError) as caught:
        load_safely(bundle, delegate)
    cause = FAILURES[failure]
    text, advice = str(caught.value), CAUSES[cause]
    assert cause in text and text.endswith(f"; {advice}") and "\n" not in text
    assert explained(text) == text  # whoever passes it on does not explain it again


def test_an_unknown_failure_stays_as_it_is() -> None:
    assert explained("the moon\n  is full") == "the moon is full"


@given(st.text(min_size=1))
def test_no_library_can_take_the_name_of_a_cpu_kernel(name: str) -> None:
    for compiled in (None, Path("x")):
        kernel = delegate_kernel_id(Delegate(name, compiled), b"")
        assert kernel not in (*INT8_KERNELS, HOST_KERNEL_ID, "core-c")
    assert delegate_kernel_id(Delegate("/usr/lib/libedgetpu.so.1.0"), b"") == "edgetpu"


@pytest.mark.parametrize(
    "kernel",
    [None, INT8_KERNELS[1], Delegate("libedgetpu.so.1"), Delegate("./a b.so", Path("c d.tflite"))],
)
def test_a_process_is_told_what_runs_the_model(kernel: Kernel | None) -> None:
    parser = argparse.ArgumentParser()
    add_kernel_arguments(parser)
    assert chosen_kernel(parser.parse_args(kernel_words(kernel))) == kernel


def gruard(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge_runtime", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_calibrate_makes_the_threshold_that_selftest_and_replay_then_find(
    bundle: Bundle, compiled: Delegate, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    values = tiny_model.machine_rows(120, seed=5)
    np.savetxt(rows, values, delimiter=",", header="set_point,flow,heat", comments="")
    words = ("--delegate", compiled.library, "--delegate-model", compiled.compiled)
    refused = gruard("selftest", bundle.path, *words)
    assert refused.returncode == 2 and "no threshold for kernel made-" in refused.stderr
    made = gruard("calibrate", bundle.path, *words, "--json")
    assert made.returncode == 0, made.stderr
    kernel = json.loads(made.stdout)["kernel"]
    passed = gruard("selftest", bundle.path, *words, "--json")
    assert json.loads(passed.stdout)["kernel"] == kernel and kernel.startswith("made-")
    replayed = gruard("replay", bundle.path, rows, *words)
    assert replayed.returncode == 0, replayed.stderr
    last = replayed.stdout.splitlines()[-1].split(",")
    assert float(last[2]) == pytest.approx(threshold_of(bundle, kernel).value)


def test_a_choice_that_contradicts_itself_is_a_usage_error(bundle: Bundle) -> None:
    alone = gruard("selftest", bundle.path, "--delegate-model", "x")
    both = gruard("selftest", bundle.path, "--delegate", "x", "--kernel", KERNEL_ID)
    assert alone.returncode == both.returncode == 2
    assert "needs --delegate" in alone.stderr and "leave out --kernel" in both.stderr


def test_a_linear_model_loads_no_delegate(linear_bundle: Path) -> None:
    detector = load_safely(read_bundle(linear_bundle), Delegate("libnot-there.so"))
    assert detector.graph.kernel_id == HOST_KERNEL_ID
