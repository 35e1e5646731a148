"""Each operator of the kernels on boards against portable C on this machine, code by code."""

import struct
from pathlib import Path

import numpy as np
import pytest
from one_operator import CoreRunner, Row, one_operator

from edge_runtime.bundle.flatbuffer import read_constants, read_graph
from edge_runtime.errors import GruardError
from edge_runtime.native.program import KINDS, OPERATOR, Program, build_program
from firmware_harness.boards import DSP, FIRMWARE, M4, M55, MVE, PORTABLE, Board, Kernel
from firmware_harness.building import LINK, compiler_flags
from firmware_harness.toolchain import call, missing_packages, run_to_end

CODES = np.arange(-128, 128, dtype=np.int8)
WIDTH = 8192  # so that eight rows hold every pair of codes
LEFT = np.repeat(CODES, 256).reshape(-1, WIDTH)
RIGHT = np.tile(CODES, 256).reshape(-1, WIDTH)
PAIRS = [[left, right] for left, right in zip(LEFT, RIGHT, strict=True)]
Codes = list[list[np.ndarray]]


class BoardRunner:
    """A kernel on an emulated board; runs many models in one start of the emulator."""

    def __init__(self, board: Board, kernel: Kernel, folder: Path) -> None:
        self._board, self._kernel, self._folder = board, kernel, folder
        sources = [Path(__file__).with_name("board_program.c"), *kernel.core_sources]
        headers = [f"-I{FIRMWARE / name}" for name in ("app", "cost")]
        flags = [*compiler_flags(board), *headers, *LINK, *board.script]
        files = [*sources, *board.sources]
        call(board.toolchain.compiler, [*flags, *files, "-o", "program.elf"], folder)

    def program(self, model: bytes) -> Program:
        """What the kernel would run for the file."""
        return build_program(read_graph(model, "made"), read_constants(model), self._kernel.layout)

    def __call__(self, cases: list[tuple[bytes, Codes]]) -> list[np.ndarray]:
        """The output [n, size] of each model for its n lists of input codes."""
        packed = b"".join(self._packed(*case) for case in cases)
        (self._folder / "cases.bin").write_bytes(packed)
        arguments = ["-serial", "none", "-semihosting-config", "enable=on,target=native"]
        image = self._folder / "program.elf"
        assert run_to_end(self._board, image, arguments, self._folder, 300) == 0
        results, found = (self._folder / "results.bin").read_bytes(), []
        for model, codes in cases:
            program, graph = self.program(model), read_graph(model, "made")
            size = len(codes) * program.arena
            arenas = np.frombuffer(results[:size], np.int8).reshape(len(codes), -1)
            output = graph.tensors[graph.outputs["y"]]
            at = program.places[output.index]
            found.append(arenas[:, at : at + output.shape[1]])
            results = results[size:]
        assert not results
        return found

    def _packed(self, model: bytes, codes: Codes) -> bytes:
        program = self.program(model)
        fed = sorted(read_graph(model, "made").inputs.values())
        arenas = np.zeros((len(codes), program.arena), np.int8)
        for arena, case in zip(arenas, codes, strict=True):
            for index, values in zip(fed, case, strict=True):
                arena[program.places[index] : program.places[index] + len(values)] = values
        parts = [
            b"".join(program.operators),
            np.array(program.integers, "<i4").tobytes(),
            program.constants,
        ]
        # More operators than there are would be run, so their bytes are not padded.
        parts = [parts[0], *(part + bytes(-len(part) % 16) for part in parts[1:])]
        sizes = struct.pack("<5I", *map(len, parts), program.arena, len(codes))
        return b"".join([sizes, *parts, arenas.tobytes()])


SUBJECTS = [(M4, DSP), (M55, MVE), (M4, PORTABLE)]


@pytest.fixture(scope="module", params=SUBJECTS, ids=["SMLAD", "MVE", "portable C"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BoardRunner:
    if missing := missing_packages(request.param[0]):
        pytest.skip(f"NOT TESTED: apt install {' '.join(missing)}")
    return BoardRunner(*request.param, tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> CoreRunner:
    return CoreRunner(tmp_path_factory.mktemp("portable"))


def scale(rng: np.random.Generator, low: float, high: float) -> float:
    """A scale between powers of ten; one in four is a power of two, where exact halves abound."""
    value = 10.0 ** rng.uniform(low, high)
    return float(np.float32(2.0 ** round(np.log2(value)) if rng.random() < 0.25 else value))


def elementwise(rng: np.random.Generator, name: str, width: int, most_fine: float = -2) -> bytes:
    """most_fine: power of two of the smallest result's scale; below -4 a sum has no linear form."""
    left, right = scale(rng, -3, -1), scale(rng, -3, -1)
    unit = left * right * 64 if name == "MUL" else max(left, right)
    out = float(np.float32(unit * 2.0 ** rng.uniform(most_fine, most_fine + 5)))
    zeros = rng.integers(-128, 128, 3).tolist()
    rows = [Row(width, left, zeros[0]), Row(width, right, zeros[1])]
    return one_operator(name, rows, Row(width, out, zeros[2]))


def product(rng: np.random.Generator) -> tuple[bytes, Codes]:
    inputs, outputs = int(rng.integers(2, 130)), int(rng.integers(1, 70))
    most = rng.choice([3, 40, 127])
    weights = rng.integers(-most, most + 1, (outputs, inputs)).astype(np.int8)
    bias = rng.integers(-(10**4), 10**4, outputs).astype(np.int32)
    row, weight = scale(rng, -3, -1), scale(rng, -3, -1)
    out = float(np.float32(row * weight * most * inputs**0.5 * 0.4 * 2.0 ** rng.uniform(-6, 4)))
    zeros = rng.integers(-128, 128, 2).tolist()
    rows = [
        Row(inputs, row, zeros[0]),
        Row(0, weight, values=weights),
        Row(0, row * weight, values=bias),
    ]
    made = one_operator("FULLY_CONNECTED", rows, Row(outputs, out, zeros[1]), rng.random() < 0.3)
    codes = rng.integers(-128, 128, (6, inputs), dtype=np.int8)
    codes[0], codes[1] = -128, 127
    return made, [[each] for each in codes]


def compared(
    board: BoardRunner, portable: CoreRunner, cases: list[tuple[bytes, Codes]]
) -> list[str]:
    """Check all cases that both kernels can run, and return their operators."""
    taken: list[tuple[bytes, Codes]] = []
    kinds: list[str] = []
    for model, codes in cases:
        try:
            program = board.program(model)
        except GruardError:
            continue
        kinds += [KINDS[OPERATOR.unpack(packed)[0]] for packed in program.operators]
        taken.append((model, codes))
    for (model, codes), found in zip(taken, board(taken), strict=True):
        np.testing.assert_array_equal(found, portable(model, codes))
    return kinds


@pytest.mark.firmware
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
def test_all_pairs_of_codes(board: BoardRunner, portable: CoreRunner, name: str) -> None:
    rng = np.random.default_rng(len(name))
    models = [elementwise(rng, name, WIDTH, fine) for fine in (-2, -2, -2, -2, -2, -2, -8, -9)]
    kinds = compared(board, portable, [(model, PAIRS) for model in models])
    assert set(kinds) == ({"MUL"} if name == "MUL" else {name, "LINEAR"})  # both ways of a sum


@pytest.mark.firmware
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
def test_rows_of_any_width(board: BoardRunner, portable: CoreRunner, name: str) -> None:
    rng = np.random.default_rng(7)
    cases = []
    for width in range(1, 40):
        codes = rng.integers(-128, 128, (5, 2, width), dtype=np.int8)
        cases.append((elementwise(rng, name, width), [list(case) for case in codes]))
    assert len(compared(board, portable, cases)) > 30


@pytest.mark.firmware
def test_products_of_any_size(board: BoardRunner, portable: CoreRunner) -> None:
    rng = np.random.default_rng(1)
    assert len(compared(board, portable, [product(rng) for _ in range(150)])) > 100


@pytest.mark.firmware
def test_curves(board: BoardRunner, portable: CoreRunner) -> None:
    model = one_operator("TANH", [Row(256, 0.03, 5)], Row(256, 1 / 128))
    assert compared(board, portable, [(model, [[CODES]])]) == ["TABLE"]
