"""Each operator of the core, one at a time, against the interpreter: all codes, any scale.

And the kernels of x86-64 against portable C, with instructions that this processor lacks emulated.
"""

import platform
import re

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.graph_rules import FEWEST_INPUTS, FEWEST_OUTPUTS, LARGEST_GAIN
from edge_runtime.errors import GruardError
from edge_runtime.native.layout import ROWS, X86
from tests.convert.one_operator import (
    KERNELS_OF_X86,
    CoreRunner,
    Row,
    X86Runner,
    interpreted,
    one_operator,
)

CODES = np.arange(-128, 128, dtype=np.int8)
WIDTH = 8192  # so that eight rows hold every pair of codes
LEFT = np.repeat(CODES, 256).reshape(-1, WIDTH)
RIGHT = np.tile(CODES, 256).reshape(-1, WIDTH)

ZEROS = st.integers(-128, 127)
SCALES = st.one_of(
    st.sampled_from([1 / 256, 1 / 128, 1.0, 0.75, 2.0**-20, 3.0]),
    st.floats(-6, 2).map(lambda power: float(np.float32(10.0**power))),
)


@pytest.fixture(scope="session")
def portable(tmp_path_factory: pytest.TempPathFactory) -> CoreRunner:
    return CoreRunner(tmp_path_factory.mktemp("portable"))


@pytest.fixture(scope="session")
def x86(tmp_path_factory: pytest.TempPathFactory) -> X86Runner:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("not an x86-64")
    return X86Runner(tmp_path_factory.mktemp("x86"))


def check_alike(runner: CoreRunner, model: bytes, codes: list[list[np.ndarray]]) -> None:
    try:
        found = runner(model, codes)
    except GruardError as error:
        assert re.search("could overflow 32 bits|could leave 16 bits|too small", str(error))
        assume(False)
    np.testing.assert_array_equal(found, interpreted(model, codes))


@st.composite
def two_rows(draw: st.DrawFn, name: str, width: int) -> bytes:
    a, b, out = (draw(SCALES) for _ in range(3))
    unit = a * b if name == "MUL" else max(a, b)
    assume(unit / LARGEST_GAIN < out)  # TFLite itself ends the process beyond
    if draw(st.booleans()):  # a result of a usual scale
        out = float(np.float32(unit * 2 ** draw(st.floats(-6, 8))))
    rows = [Row(width, a, draw(ZEROS)), Row(width, b, draw(ZEROS))]
    return one_operator(name, rows, Row(width, out, draw(ZEROS)))


@given(data=st.data(), linear=st.booleans())
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@settings(max_examples=30)
def test_all_pairs_of_codes(
    portable: CoreRunner, name: str, data: st.DataObject, linear: bool
) -> None:
    model = data.draw(two_rows(name, WIDTH))
    portable.linear = linear
    check_alike(portable, model, [[left, right] for left, right in zip(LEFT, RIGHT, strict=True)])


@given(data=st.data(), width=st.integers(1, 40), linear=st.booleans())
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@settings(max_examples=30)
def test_rows_of_any_width(
    portable: CoreRunner, name: str, data: st.DataObject, width: int, linear: bool
) -> None:
    model = data.draw(two_rows(name, width))
    portable.linear = linear
    rng = np.random.default_rng(width)
    codes = rng.integers(-128, 128, (200, 2, width), dtype=np.int8)
    check_alike(portable, model, [[left, right] for left, right in codes])


@pytest.mark.parametrize("width", [1, 15, 16, 17, 33])
def test_add_rounds_an_addend_otherwise_in_whole_groups_of_16(
    portable: CoreRunner, width: int
) -> None:
    """Found by the tests above: an exact half in the first of the two roundings."""
    rows = [Row(width, 0.054083362221717834), Row(width, 0.06407926976680756)]
    model = one_operator("ADD", rows, Row(width, 0.0010547781130298972))
    codes = [
        [np.full(width, a, np.int8), np.full(width, -a * 27 // 32, np.int8)] for a in (32, -32)
    ]
    whole = width // 16 * 16
    expected = np.array([[0] * whole + [1] * (width - whole)])
    np.testing.assert_array_equal(interpreted(model, codes), np.vstack([expected, -expected]))
    check_alike(portable, model, codes)


@pytest.mark.parametrize("width", [1, 15, 16, 17, 33])
def test_quantize_rounds_a_half_otherwise_in_whole_groups_of_16(
    portable: CoreRunner, width: int
) -> None:
    model = one_operator("QUANTIZE", [Row(width, 1 / 256)], Row(width, 1.0))
    codes = [[np.full(width, -128, np.int8)]]
    whole = width // 16 * 16
    assert interpreted(model, codes)[0].tolist() == [0] * whole + [-1] * (width - whole)
    check_alike(portable, model, codes)


@pytest.mark.parametrize(
    ("name", "a", "b", "out", "sign"),
    [("ADD", 1.0, 1 / 256, 1 / 256, -1), ("MUL", 0.5, 0.5, 0.1, 1)],
)
def test_where_the_interpreter_flips_a_sign_the_core_refuses(
    portable: CoreRunner, name: str, a: float, b: float, out: float, sign: int
) -> None:
    model = one_operator(name, [Row(16, a), Row(16, b)], Row(16, out, 10))
    lowest = np.full(16, -128, np.int8)
    assert (interpreted(model, [[lowest, lowest]]) == (-128 if sign > 0 else 127)).all()
    with pytest.raises(GruardError, match=f"{name} to tensor 2 .* could leave 16 bits"):
        portable.program(model)


def test_an_addend_that_counts_for_nothing_is_refused(portable: CoreRunner) -> None:
    model = one_operator("SUB", [Row(16, 1.0), Row(16, 1e-7)], Row(16, 1.0))
    with pytest.raises(GruardError, match="addend too small for the C core"):
        portable.program(model)


@pytest.mark.parametrize(("bias", "out"), [(2**31 - 40_000, 1.0), (2**24, 1e-9)])
def test_weights_that_could_overflow_32_bits_are_refused(
    portable: CoreRunner, bias: int, out: float
) -> None:
    weights = np.full((4, 8), 127, np.int8)
    for start, refused in ((0, False), (bias, True)):
        rows = [
            Row(8, 1e-3),
            Row(0, 1e-3, values=weights),
            Row(0, 1e-6, values=np.full(4, start, np.int32)),
        ]
        model = one_operator("FULLY_CONNECTED", rows, Row(4, out if refused else 1e-3))
        if refused:
            with pytest.raises(GruardError, match=r"FULLY_CONNECTED .* could overflow 32 bits"):
                portable.program(model)
        else:
            portable.program(model)


@pytest.mark.long
@given(scale=SCALES, zero=ZEROS)
@example(scale=0.011273856274783611, zero=0)  # tanh of code 81 is 92.4999926/128, of tanhf 92.5/128
@pytest.mark.parametrize(
    ("name", "out", "zero_out"), [("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0)]
)
@settings(max_examples=150)
def test_curves(
    portable: CoreRunner, name: str, out: float, zero_out: int, scale: float, zero: int
) -> None:
    """Equal but where the C library's float function errs across a tie, which TFLite inherits."""
    model = one_operator(name, [Row(256, scale, zero)], Row(256, out, zero_out))
    (found,), (wanted,) = portable(model, [[CODES]]), interpreted(model, [[CODES]])
    inputs = np.float64(np.float32(scale)) * (CODES.astype(np.float64) - zero)
    exact = (
        np.tanh(inputs) if name == "TANH" else 1 / (1 + np.exp(-np.clip(inputs, -88, 88)))
    ) / out
    tied = np.abs(np.abs(exact) % 1 - 0.5) < 2 * 2.0**-24 / out
    np.testing.assert_array_equal(found[~tied], wanted[~tied])
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.long
@given(scale=SCALES, zero=ZEROS, out=SCALES, zero_out=ZEROS)
@pytest.mark.parametrize("name", ["RELU", "QUANTIZE"])
@settings(max_examples=150)
def test_rescaling(
    portable: CoreRunner, name: str, scale: float, zero: int, out: float, zero_out: int
) -> None:
    model = one_operator(name, [Row(256, scale, zero)], Row(256, out, zero_out))
    check_alike(portable, model, [[CODES]])


@given(st.lists(st.integers(1, 40), min_size=2, max_size=16), SCALES, ZEROS)
@settings(max_examples=40)
def test_concatenation(portable: CoreRunner, sizes: list[int], scale: float, zero: int) -> None:
    rng = np.random.default_rng(len(sizes))
    rows = [Row(size, scale, zero) for size in sizes]
    model = one_operator("CONCATENATION", rows, Row(sum(sizes), scale, zero))
    check_alike(portable, model, [[rng.integers(-128, 128, n, dtype=np.int8) for n in sizes]])


@given(st.integers(1, 100), st.data())
@settings(max_examples=40)
def test_slice(portable: CoreRunner, size: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, size - 1))
    width = data.draw(st.integers(1, size - begin))
    where = [Row(2, 1.0, values=np.array(pair, np.int32)) for pair in ([0, begin], [1, width])]
    model = one_operator("SLICE", [Row(size, 0.5), *where], Row(width, 0.5))
    codes = np.random.default_rng(size).integers(-128, 128, size, dtype=np.int8)
    check_alike(portable, model, [[codes]])


@st.composite
def products(draw: st.DrawFn) -> tuple[bytes, list[list[np.ndarray]]]:
    """A FULLY_CONNECTED of any size and scale, and rows for it: random ones and extreme ones."""
    inputs = draw(st.integers(FEWEST_INPUTS, 70) | st.sampled_from([128, 129, 400]))
    outputs = draw(st.integers(FEWEST_OUTPUTS, 40) | st.sampled_from([128, 130]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    most = draw(st.sampled_from([3, 40, 127]))
    weights = rng.integers(-most, most + 1, (outputs, inputs)).astype(np.int8)
    bias = rng.integers(-(10**4), 10**4, outputs).astype(np.int32)
    row, weight = (float(np.float32(draw(st.floats(0.001, 0.1)))) for _ in range(2))
    # From a coarse output, mostly one code, to a fine one, mostly at the edges.
    spread = row * weight * most * np.sqrt(inputs) * 40
    out = float(np.float32(spread / 100 * 2 ** draw(st.floats(-8, 4))))
    if draw(st.booleans()):  # powers of two: exact halves abound
        row, weight, out = (float(2 ** np.round(np.log2(value))) for value in (row, weight, out))
    made = one_operator(
        "FULLY_CONNECTED",
        [
            Row(inputs, row, draw(ZEROS)),
            Row(0, weight, values=weights),
            Row(0, row * weight, values=bias),
        ],
        Row(outputs, out, draw(ZEROS)),
        relu=draw(st.booleans()),
    )
    codes = rng.integers(-128, 128, (12, inputs), dtype=np.int8)
    codes[0], codes[1] = -128, 127
    return made, [[row] for row in codes]


@pytest.mark.long
@given(products())
@settings(max_examples=200)
def test_fully_connected(portable: CoreRunner, case: tuple[bytes, list[list[np.ndarray]]]) -> None:
    check_alike(portable, *case)


@given(st.data(), st.integers(1, 100))
@pytest.mark.parametrize("linear", [False, True], ids=["as TFLite computes it", "linear"])
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("kernel", KERNELS_OF_X86)
@settings(max_examples=20)
def test_every_kernel_gives_one_sum(
    x86: X86Runner,
    portable: CoreRunner,
    kernel: str,
    name: str,
    linear: bool,
    data: st.DataObject,
    width: int,
) -> None:
    if not x86.choose(kernel):
        pytest.skip(f"this processor has no {kernel}")
    model = data.draw(two_rows(name, width))
    codes = np.random.default_rng(width).integers(-128, 128, (50, 2, width), dtype=np.int8)
    x86.linear = portable.linear = linear
    try:
        found = x86(model, [list(case) for case in codes])
    except GruardError:
        assume(False)
    np.testing.assert_array_equal(found, portable(model, [list(case) for case in codes]))


@given(products())
@pytest.mark.parametrize("kernel", KERNELS_OF_X86)
@settings(max_examples=100)
def test_every_kernel_gives_one_answer(
    x86: X86Runner, portable: CoreRunner, kernel: str, case: tuple[bytes, list[list[np.ndarray]]]
) -> None:
    if not x86.choose(kernel):
        pytest.skip(f"this processor has no {kernel}")
    np.testing.assert_array_equal(x86(*case), portable(*case))


@pytest.mark.parametrize("width", [1, 63, 64, 65, 256])
@pytest.mark.parametrize("kernel", KERNELS_OF_X86)
def test_every_kernel_looks_up_alike(
    x86: X86Runner, portable: CoreRunner, kernel: str, width: int
) -> None:
    if not x86.choose(kernel):
        pytest.skip(f"this processor has no {kernel}")
    model = one_operator("TANH", [Row(width, 0.02, 3)], Row(width, 1 / 128))
    codes = [[np.arange(start, start + width).astype(np.int8)] for start in range(-128, 128, 7)]
    np.testing.assert_array_equal(x86(model, codes), portable(model, codes))


def test_a_wide_product_in_every_kernel(x86: X86Runner, portable: CoreRunner) -> None:
    """As many inputs as there may be, all at the edges: no sum may overflow on its way."""
    inputs, outputs = 8192, 20
    weights = np.full((outputs, inputs), -127, np.int8)
    weights[1::2] = 127
    bias = np.zeros(outputs, np.int32)
    rows = [Row(inputs, 0.1, -128), Row(0, 0.1, values=weights), Row(0, 0.01, values=bias)]
    model = one_operator("FULLY_CONNECTED", rows, Row(outputs, 0.01 * 2**21, 3))
    codes = [[np.full(inputs, code, np.int8)] for code in (-128, 127, 0)]
    expected = interpreted(model, codes)
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(portable(model, codes), expected)
    for kernel in KERNELS_OF_X86:
        if x86.choose(kernel):
            np.testing.assert_array_equal(x86(model, codes), expected, err_msg=kernel)


def test_layouts_hold_the_same_weights() -> None:
    weights, bias = np.arange(5 * 7, dtype=np.int8).reshape(5, 7), np.arange(5)
    assert ROWS.arrange(weights, bias) == weights.tobytes()
    lanes = np.frombuffer(X86.arrange(weights, bias), np.int8).reshape(
        2, 16, 4
    )  # one block of outputs
    assert lanes[1, 4].tolist() == [32, 33, 34, 0]  # output 4, inputs 4 to 6 and a zero
    assert not lanes[:, 5:].any()
