"""Each operator of the NEON kernel on an emulated aarch64, against portable C on this machine.

Once on a processor with dot products and once on one without. The portable kernel is compared with
the interpreter in `tests/convert/test_native_operators.py`.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from arm_userland import ARMS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_arm_core import COMPILERS, NEON_PROCESSORS

from edge_runtime.errors import GruardError
from edge_runtime.native.layout import NEON
from tests.convert.one_operator import CoreRunner, EmulatedRunner, Row, one_operator
from tests.convert.test_native_operators import LEFT, RIGHT, WIDTH, products, two_rows
from tests.core_build import CORE

pytestmark = pytest.mark.arm


@pytest.fixture(scope="session")
def portable(tmp_path_factory: pytest.TempPathFactory) -> CoreRunner:
    return CoreRunner(tmp_path_factory.mktemp("portable"))


@pytest.fixture(scope="session", params=NEON_PROCESSORS)
def neon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CoreRunner:
    arm = ARMS["aarch64"]
    if not shutil.which(arm.qemu):
        pytest.skip(f"{arm.qemu} is missing: apt install qemu-user-static")
    return EmulatedRunner(
        tmp_path_factory.mktemp("neon"),
        (f"{arm.triplet}-gcc", COMPILERS[arm.name]),
        (arm.qemu, "-cpu", request.param),
        ("-DWITH_NEON", f"-I{CORE}"),
        NEON,
    )


def check_alike(
    one: CoreRunner, other: CoreRunner, model: bytes, codes: list[list[np.ndarray]]
) -> None:
    try:
        found = one(model, codes)
    except GruardError:
        return  # what no kernel computes; `test_native_operators` has the reasons
    np.testing.assert_array_equal(found, other(model, codes))


@given(data=st.data(), linear=st.booleans())
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@settings(max_examples=12)
def test_all_pairs_of_codes(
    neon: CoreRunner, portable: CoreRunner, name: str, data: st.DataObject, linear: bool
) -> None:
    model = data.draw(two_rows(name, WIDTH))
    neon.linear = portable.linear = linear
    check_alike(neon, portable, model, [[a, b] for a, b in zip(LEFT, RIGHT, strict=True)])


@given(data=st.data(), width=st.integers(1, 40), linear=st.booleans())
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@settings(max_examples=12)
def test_rows_of_any_width(
    neon: CoreRunner,
    portable: CoreRunner,
    name: str,
    data: st.DataObject,
    width: int,
    linear: bool,
) -> None:
    model = data.draw(two_rows(name, width))
    neon.linear = portable.linear = linear
    rng = np.random.default_rng(width)
    codes = rng.integers(-128, 128, (100, 2, width), dtype=np.int8)
    check_alike(neon, portable, model, [[a, b] for a, b in codes])


@given(case=products())
@settings(max_examples=40)
def test_fully_connected(
    neon: CoreRunner, portable: CoreRunner, case: tuple[bytes, list[list[np.ndarray]]]
) -> None:
    check_alike(neon, portable, *case)


@pytest.mark.parametrize("width", [1, 15, 16, 17, 256])
def test_tables(neon: CoreRunner, portable: CoreRunner, width: int) -> None:
    model = one_operator("TANH", [Row(width, 0.02, 3)], Row(width, 1 / 128))
    codes = [[np.arange(start, start + width).astype(np.int8)] for start in range(-128, 128, 5)]
    check_alike(neon, portable, model, codes)


def test_the_largest_products_do_not_overflow(neon: CoreRunner, portable: CoreRunner) -> None:
    """Without dot products two of them are added in 16 bits."""
    inputs, outputs = 8192, 20
    weights = np.full((outputs, inputs), -127, np.int8)
    weights[1::2] = 127
    rows = [
        Row(inputs, 0.1, -128),
        Row(0, 0.1, values=weights),
        Row(0, 0.01, values=np.zeros(outputs, np.int32)),
    ]
    model = one_operator("FULLY_CONNECTED", rows, Row(outputs, 0.01 * 2**21, 3))
    codes = [[np.full(inputs, code, np.int8)] for code in (-128, 127, 0)]
    found = neon(model, codes)
    assert len(np.unique(found)) > 3
    np.testing.assert_array_equal(found, portable(model, codes))


def test_a_weight_that_does_not_fit_is_refused(neon: CoreRunner, tmp_path: Path) -> None:
    weights = np.full((4, 8), -128, np.int8)
    rows = [
        Row(8, 0.1), Row(0, 0.1, values=weights), Row(0, 0.01, values=np.zeros(4, np.int32)),
    ]  # fmt: skip
    with pytest.raises(GruardError, match="weight of -128"):
        neon.program(one_operator("FULLY_CONNECTED", rows, Row(4, 1.0)))
