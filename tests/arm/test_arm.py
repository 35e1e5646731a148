"""One model, one answer: what a workstation validated is what an Arm computes, to the bit."""

import shutil
from pathlib import Path

import arithmetic_probe
import numpy as np
import pytest
import tiny_model
from arm_userland import Arm, run
from one_product import one_product

from edge_runtime.bundle.graph_rules import FEWEST_INPUTS, FEWEST_OUTPUTS
from edge_runtime.bundle.reader import read_bundle
from tests.apparatus.harm import replace_member
from tests.convert.one_operator import Row, one_operator

pytestmark = pytest.mark.arm

LARGE = [(FEWEST_OUTPUTS, FEWEST_INPUTS), (4, 9), (5, 8), (7, 13), (8, 64), (24, 19), (64, 64)]
SMALL = [(FEWEST_OUTPUTS - 1, FEWEST_INPUTS), (FEWEST_OUTPUTS, FEWEST_INPUTS - 1), (1, 1)]
CASES = {f"{outputs}x{inputs}": (outputs, inputs) for outputs, inputs in LARGE + SMALL}
ROWS, PROBED = 300, 200
WIDTHS = (7, 16, 37)  # of a row: vector code takes groups of 16, other code what is left


def operators() -> dict[str, tuple[bytes, np.ndarray]]:
    """A file and codes for each of the other operators; many of their sums are exact halves."""
    rng, made = np.random.default_rng(1), {}
    for width in WIDTHS:
        for name, scales in {
            "ADD": (0.054083362221717834, 0.06407926976680756, 0.0010547781130298972),
            "ADD-halves": (2**-7, 2**-6, 2**-5),
            "SUB": (0.054083362221717834, 0.06407926976680756, 0.0010547781130298972),
            "SUB-halves": (2**-7, 2**-6, 2**-5),
            "MUL-halves": (2**-7, 2**-6, 2**-5),
            "MUL": (0.013, 0.027, 0.004),
            "QUANTIZE": (2**-8, 2**-5),
            "RELU": (2**-8, 2**-5),
            "LOGISTIC": (0.05, 2**-8),
            "TANH": (0.03, 2**-7),
        }.items():
            *operands, out = scales
            zero = -128 if name == "LOGISTIC" else 0
            rows = [Row(width, scale, 0) for scale in operands]
            model = one_operator(name.split("-")[0], rows, Row(width, out, zero))
            codes = rng.integers(-128, 128, (PROBED, len(operands), width), dtype=np.int8)
            if name in ("ADD", "SUB"):  # an exact half in the first of two roundings
                codes[0, 0], codes[0, 1] = 32, -27 if name == "ADD" else 27
            made[f"{name}-{width}"] = model, codes
    return made


OPERATORS = operators()


@pytest.fixture(scope="session")
def deep_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with two gate layers and two GRU layers."""
    folder = tmp_path_factory.mktemp("deep")
    tiny_model.write_run(folder / "run", "deep", gru_layers=2, gate_layers=2)
    return tiny_model.write_bundle(folder / "run", folder)


@pytest.fixture(params=["tiny_bundle", "deep_bundle", "linear_bundle"])
def bundle(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_the_golden_vectors_are_the_same_bits(arm: Arm, bundle: Path) -> None:
    found = run(arm, ["-m", "edge_runtime", "selftest", str(bundle)])
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("passed: model ")


def test_another_bit_in_the_golden_vectors_is_noticed(arm: Arm, bundle_copy: Path) -> None:
    arrays = dict(read_bundle(bundle_copy).arrays("golden.npz"))
    arrays["state"].view(np.uint32).reshape(-1)[-1] ^= 1
    np.savez(bundle_copy / "scratch.npz", **arrays)
    replace_member(bundle_copy, "golden.npz", (bundle_copy / "scratch.npz").read_bytes())
    found = run(arm, ["-m", "edge_runtime", "selftest", str(bundle_copy)])
    assert found.returncode == 2
    assert "state" in found.stderr


def test_a_recording_with_faults_gives_the_same_records(
    arm: Arm, bundle: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from edge_runtime.commands.main import gruard

    data, here, there = tmp_path / "rows.csv", tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    write_faulty_rows(data)
    words = ["replay", str(bundle), str(data), "--out"]
    assert CliRunner().invoke(gruard, [*words, str(here)]).exit_code == 0
    found = run(arm, ["-m", "edge_runtime", *words, str(there)])
    assert found.returncode == 0, found.stderr
    assert here.read_text() == there.read_text()
    assert len(here.read_text().splitlines()) == 1 + ROWS


@pytest.mark.parametrize("case", OPERATORS)
def test_other_operators_round_alike_at_any_width(
    probed: tuple[dict[str, np.ndarray], dict[str, np.ndarray]], case: str
) -> None:
    here, there = (answers[f"answer/{case}"] for answers in probed)
    assert len(np.unique(here)) >= 10
    assert here.tobytes() == there.tobytes()


def write_faulty_rows(path: Path) -> None:
    """A recording of the tiny machine in which readings are missing, stuck, shifted and spiking."""
    rows = tiny_model.machine_rows(ROWS, seed=9)
    rows[60:80, 1] = np.nan
    rows[100:140, 2] = rows[100, 2]
    rows[160:200, 1] += 15
    rows[220, 2] += 400
    rows[240:260] = np.nan
    lines = [",".join(tiny_model.CHANNELS)]
    lines += [",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def questions() -> dict[str, np.ndarray]:
    """Products of which one sum in 16 is an exact half, and numbers to take the root of."""
    rng = np.random.default_rng(0)
    asked = {"roots": rng.uniform(0, 4, 2000).astype(np.float32)}
    for case, (outputs, inputs) in CASES.items():
        weights = rng.integers(-8, 9, (outputs, inputs), dtype=np.int8)
        bias = rng.integers(-40, 41, outputs, dtype=np.int32)
        asked[f"model/{case}"] = np.frombuffer(one_product(weights, bias), np.uint8)
        asked[f"codes/{case}"] = rng.integers(-20, 21, (PROBED, 1, inputs), dtype=np.int8)
    for case, (model, codes) in OPERATORS.items():
        asked |= {f"model/{case}": np.frombuffer(model, np.uint8), f"codes/{case}": codes}
    return asked


@pytest.fixture(scope="module")
def probed(
    arm: Arm, questions: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The answers of this processor and of the Arm."""
    folder = tmp_path_factory.mktemp("probe")
    np.savez(folder / "questions.npz", **questions)
    probe = shutil.copy(arithmetic_probe.__file__, folder)
    found = run(arm, [str(probe), str(folder / "questions.npz"), str(folder / "answers.npz")])
    assert found.returncode == 0, found.stderr
    with np.load(folder / "answers.npz") as answers:
        return arithmetic_probe.answers(questions), dict(answers)


def test_host_arithmetic_is_the_same(
    probed: tuple[dict[str, np.ndarray], dict[str, np.ndarray]],
) -> None:
    here, there = probed
    assert here["small"].view(np.uint32).tolist() == there["small"].view(np.uint32).tolist()
    assert (here["small"] > 0).all()
    assert here["roots"].tobytes() == there["roots"].tobytes()


@pytest.mark.parametrize("case", CASES)
def test_products_round_alike_from_the_size_that_the_rules_ask_for(
    probed: tuple[dict[str, np.ndarray], dict[str, np.ndarray]], case: str
) -> None:
    here, there = (answers[f"answer/{case}"] for answers in probed)
    assert len(np.unique(here)) >= 10
    assert (here.tobytes() == there.tobytes()) == (CASES[case] in LARGE)
