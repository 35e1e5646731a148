"""A .tflite file of a single int8 operator, and two who run it: the interpreter and the core.

On x86-64, tflite-runtime rounds exact halves as it does on Arm only in a process that has loaded
TensorFlow, as conversions have and as the import of its schema here does.
"""

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edge_runtime.bundle.flatbuffer import read_constants, read_graph
from edge_runtime.detector.kernels import KERNEL_ID, interpreter_module
from edge_runtime.native.layout import ROWS, X86, Layout
from edge_runtime.native.linear import Linear, linear_form
from edge_runtime.native.program import Program, build_program
from tests.core_build import CORE, compiled

_OPTIONS = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions",
    "CONCATENATION": "ConcatenationOptions", "FULLY_CONNECTED": "FullyConnectedOptions",
}  # fmt: skip
_RELU = schema.ActivationFunctionType.RELU


@dataclass(frozen=True)
class Row:
    """An int8 [1, size] with its scaling; constant where `values` are given."""

    size: int
    scale: float
    zero_point: int = 0
    values: np.ndarray | None = None  # any shape and type, for weights and biases


def one_operator(name: str, inputs: Sequence[Row], output: Row, relu: bool = False) -> bytes:
    """The file; constant inputs are in it, the others are x0, x1 …, the output is y."""
    model = schema.ModelT()
    model.version = 3
    rows = [*inputs, output]
    model.buffers = [schema.BufferT()]
    tensors = [_tensor(model, f"t{i}", row) for i, row in enumerate(rows)]
    fed = [i for i, row in enumerate(inputs) if row.values is None]
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = list(range(len(inputs))), [len(inputs)]
    if name in _OPTIONS:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[name])
        options = operator.builtinOptions = getattr(schema, f"{_OPTIONS[name]}T")()
        options.axis = 1
        options.fusedActivationFunction = _RELU if relu else 0
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = tensors, fed, [len(inputs)]
    graph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = {"FULLY_CONNECTED": 4, "QUANTIZE": 1}.get(name, 2)
    model.operatorCodes, model.subgraphs = [code], [graph]
    model.signatureDefs = [_signature(fed, len(inputs))]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def interpreted(model: bytes, codes: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The output [n, size] of the reference for each of n lists of input codes."""
    module = interpreter_module(KERNEL_ID)
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = module.Interpreter(model_content=model, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    sources, (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for case in codes:
        for source, values in zip(sources, case, strict=True):
            interpreter.set_tensor(source["index"], values[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(sink["index"])[0])
    return np.array(found)


class CoreRunner:
    """The core's graph on one kernel, built for the test.

    linear: whether a sum may take its linear form.
    """

    def __init__(self, folder: Path, flags: Sequence[str] = (), layout: Layout = ROWS) -> None:
        self.linear = True
        source = Path(__file__).with_name("run_program.c")
        library = folder / f"run_program_{layout.number}.so"
        options = ("-O3", "-DGRUARD_HOST", "-shared", "-fPIC", *flags)
        compiled("gcc", "gcc libc6-dev", library, options, main=(source,), kernel="")
        self.library, self.layout = ctypes.CDLL(str(library)), layout

    def program(self, model: bytes) -> Program:
        """What the core would run for the file."""
        with patch("edge_runtime.native.linear.linear_form", self._form):
            return self._built(model)

    def _form(self, *arguments: Any) -> Linear | None:
        return linear_form(*arguments) if self.linear else None

    def _built(self, model: bytes) -> Program:
        return build_program(read_graph(model, "made"), read_constants(model), self.layout)

    def __call__(self, model: bytes, codes: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """As `interpreted`."""
        graph, program = read_graph(model, "made"), self.program(model)
        fed, output = sorted(graph.inputs.values()), graph.tensors[graph.outputs["y"]]
        arenas = np.zeros((len(codes), program.arena), np.int8)
        for arena, case in zip(arenas, codes, strict=True):
            for index, values in zip(fed, case, strict=True):
                at = program.places[index]
                arena[at : at + len(values)] = values
        at = program.places[output.index]
        return self._after(program, arenas)[:, at : at + output.shape[1]]

    def _after(self, program: Program, arenas: np.ndarray) -> np.ndarray:
        """The arenas [cases, bytes] after the program has run in each of them."""
        operators = np.frombuffer(b"".join(program.operators), np.uint8)
        integers = np.array(program.integers, np.int32)
        for arena in arenas:
            self.library.run_program(
                ctypes.c_void_p(operators.ctypes.data), len(program.operators),
                ctypes.c_void_p(integers.ctypes.data), program.constants,
                ctypes.c_void_p(arena.ctypes.data),
            )  # fmt: skip
        return arenas


class EmulatedRunner(CoreRunner):
    """The same on another processor, as a program that `emulator` runs."""

    def __init__(
        self,
        folder: Path,
        compiler: tuple[str, str],
        emulator: Sequence[str],
        flags: Sequence[str],
        layout: Layout,
    ) -> None:
        self.linear, self.layout, self.emulator = True, layout, emulator
        source = Path(__file__).with_name("run_program.c")
        options = ("-O3", "-DGRUARD_HOST", "-DAS_PROGRAM", "-static", *flags)
        self.program_file = compiled(
            *compiler, folder / "run_program", options, main=(source,), kernel=""
        )

    def _after(self, program: Program, arenas: np.ndarray) -> np.ndarray:
        sizes = (
            len(program.operators), len(program.integers), len(program.constants), *arenas.shape
        )  # fmt: skip
        sent = [
            np.array(sizes, "<u4").tobytes(), *program.operators,
            np.array(program.integers, "<i4").tobytes(), program.constants, arenas.tobytes(),
        ]  # fmt: skip
        command = [*self.emulator, str(self.program_file)]
        done = subprocess.run(command, input=b"".join(sent), capture_output=True, check=True)
        return np.frombuffer(done.stdout, np.int8).reshape(arenas.shape)


KERNELS_OF_X86 = ("SSE2", "AVX2", "AVX-VNNI", "AVX-512 VNNI", "AVX-512 VBMI")


class X86Runner(CoreRunner):
    """The kernel of x86-64. What this processor lacks is emulated (`emulated_avx512.h`)."""

    def __init__(self, folder: Path) -> None:
        flags = ("-DWITH_X86", f"-I{CORE}")
        (folder / "emulated").mkdir()
        emulated = (*flags, "-mavx2", "-DEMULATED_AVX512", f"-I{Path(__file__).parent}")
        super().__init__(folder, flags, X86)
        self._libraries = self.library, CoreRunner(folder / "emulated", emulated, X86).library

    def choose(self, kernel: str) -> bool:
        """Choose one of `KERNELS_OF_X86`; False without AVX2, which the emulation needs."""
        for library in self._libraries:
            self.library = library
            if library.choose(KERNELS_OF_X86.index(kernel)):
                return True
        return False


def _tensor(model: Any, name: str, row: Row) -> Any:
    tensor = schema.TensorT()
    values = row.values
    tensor.name, tensor.buffer = name, 0
    tensor.shape = [1, row.size] if values is None else list(values.shape)
    wide = values is not None and values.dtype == np.int32
    tensor.type = schema.TensorType.INT32 if wide else schema.TensorType.INT8
    if values is not None:
        tensor.buffer = len(model.buffers)
        buffer = schema.BufferT()
        buffer.data = list(values.tobytes())
        model.buffers.append(buffer)
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = [row.scale]
    tensor.quantization.zeroPoint = [row.zero_point]
    return tensor


def _signature(fed: Sequence[int], output: int) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [_entry(f"x{i}", index) for i, index in enumerate(fed)]
    signature.outputs = [_entry("y", output)]
    return signature


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
