"""Every number and layout that the C core and Python both have, constant by constant.

The macros are listed by core/constants.h itself, each below the module of Python's that has it.
"""

import importlib
import inspect
import re
import struct
from collections.abc import Sequence

import numpy as np
import pytest

from edge_runtime import diagnosis
from edge_runtime.bundle import graph_rules, manifest_rules
from edge_runtime.detector import fallback, score
from edge_runtime.detector.lasting_change import ChangePhase
from edge_runtime.detector.tiers import Phase
from edge_runtime.native import blob, engine, layout, program
from edge_runtime.native.engine import RECORD
from edge_runtime.record import Flag
from edge_runtime.symptoms import Peak, Sum
from firmware_harness.protocol import REFUSALS
from tests.c_header import Shared, enum, fields, macro, shared_macros
from tests.core_build import CORE, ROOT

CONSTANTS, PARTS = CORE / "constants.h", CORE / "parts.h"
PUBLIC, STRUCTS = CORE / "gruard.h", CORE / "gruard_detector.h"
MODULE = ROOT / "edge_runtime" / "native" / "module.c"
TYPES = {
    "uint64_t": "<u8", "float": "<f4", "uint32_t": "<u4", "int32_t": "<i4", "uint16_t": "<u2",
    "int16_t": "<i2", "uint8_t": "u1", "int8_t": "i1",
}  # fmt: skip


@pytest.mark.parametrize("shared", shared_macros(CONSTANTS), ids=lambda shared: shared.macro)
def test_a_macro_has_the_value_of_python(shared: Shared) -> None:
    home = vars(importlib.import_module(shared.module))
    names = [name for name in (shared.name, f"_{shared.name}") if name in home]
    assert names, f"{shared.module} has no {shared.name}"
    value = home[names[0]]
    if isinstance(shared.value, float):
        assert np.float32(value).tobytes() == np.float32(shared.value).tobytes()
    else:
        assert value == shared.value


def test_sizes_of_what_is_public() -> None:
    assert macro(PUBLIC, "GRUARD_MOST_CHANNELS") == 32 * RECORD["masked"].shape[0]
    assert macro(PUBLIC, "GRUARD_BLAMED") == RECORD["blamed"].shape[0] == diagnosis.LIMIT
    assert inspect.signature(score.blame).parameters["limit"].default == diagnosis.LIMIT
    assert macro(STRUCTS, "GRUARD_PARTS") == len(manifest_rules.PARTS)
    assert macro(STRUCTS, "GRUARD_MOST_LAYERS") == graph_rules.MOST_LAYERS
    assert macro(STRUCTS, "GRUARD_MOST_MEMORIES") == manifest_rules.MOST_MEMORIES


def test_sizes_of_the_diagnosis() -> None:
    sizes = enum(PARTS, "GRUARD_SUMS", "GRUARD_")
    assert sizes == {"SUMS": len(Sum), "PEAKS": len(Peak), "FEATURES": len(diagnosis.FEATURES)}
    logged = re.search(r"logged\[\] = \{([^}]*)\}", (CORE / "diagnosis.c").read_text())
    assert logged and list(map(int, logged[1].split(","))) == diagnosis.LOGGED


@pytest.mark.parametrize(
    ("source", "prefix", "names", "end"),
    [
        ("parts.h", "GRUARD_PART_", manifest_rules.PARTS, None),
        ("parts.h", "GRUARD_VIEW_", fallback.VIEWS, "GRUARD_VIEWS"),
        ("parts.h", "GRUARD_PHASE_", [phase.name for phase in Phase], None),
        ("parts.h", "GRUARD_", program.KINDS, "OPERATORS"),
        ("parts.h", "GRUARD_", blob.INPUTS, "STATE"),
        ("parts.h", "GRUARD_", blob.OUTPUTS, "UPDATE"),
        ("gruard.h", "GRUARD_", diagnosis.KINDS, "KINDS"),
        ("diagnosis.c", "", [row.name for row in Sum], "SUMS"),
        ("diagnosis.c", "PEAK_", [row.name for row in Peak], "PEAKS"),
        ("constants.h", "GRUARD_H_", (*blob.HEAD, *blob.COUNTS, "hash", "hash_2"), "WORDS"),
    ],
    ids=[
        "parts", "views", "phases", "operators", "inputs", "outputs", "kinds of fault", "sums",
        "peaks", "header",
    ],
)  # fmt: skip
def test_an_enum_has_the_order_of_python(
    source: str, prefix: str, names: Sequence[str], end: str | None
) -> None:
    wanted = [name.upper() for name in (*names, *([end] if end else []))]
    found = enum(CORE / source, prefix + wanted[1], prefix)
    assert found == {name: place for place, name in enumerate(wanted)}


def test_flags() -> None:
    found = enum(PUBLIC, "GRUARD_IMPUTED", "GRUARD_")
    assert found == {name: Flag[name] for name in found}


def test_phases_of_a_change() -> None:
    found = enum(PUBLIC, "GRUARD_AS_RECORDED", "GRUARD_")
    wanted = {"AS_RECORDED": ChangePhase.AS_RECORDED, "HAS_CHANGED": ChangePhase.CHANGED}
    assert found == {**wanted, "ACCEPTED": ChangePhase.ACCEPTED}
    assert len(found) == len(ChangePhase)


def test_layouts_of_weights() -> None:
    found = enum(PARTS, "GRUARD_LANES", "GRUARD_")
    wanted = {
        "ROWS": layout.ROWS, "LANES": layout.X86, "PAIRS": layout.DSP, "QUADS": layout.MVE,
        "SIGNED_LANES": layout.NEON,
    }  # fmt: skip
    assert found == {name: each.number for name, each in wanted.items()}


def test_reasons_of_a_refusal() -> None:
    errors = enum(PUBLIC, "GRUARD_OK")
    reasons = re.search(r"REASONS\[\] = \{([^}]*)\}", MODULE.read_text())
    assert reasons and re.findall(r'"([^"]*)"', reasons[1]) == ["sound", *REFUSALS.values()]
    assert list(errors.values()) == [0, *REFUSALS]


def test_the_interface_of_the_engine() -> None:
    assert enum(MODULE, "INTERFACE") == {"INTERFACE": engine.INTERFACE}


def test_a_record_has_the_layout_of_python() -> None:
    sizes = {name: macro(PUBLIC, name) for name in ("GRUARD_MOST_CHANNELS", "GRUARD_BLAMED")}
    sizes["GRUARD_WORDS"] = sizes["GRUARD_MOST_CHANNELS"] // 32
    found = fields(PUBLIC, "gruard_record", sizes)
    described = [
        (name, TYPES[kind]) if count == 1 else (name, TYPES[kind], count)
        for name, kind, count in found
    ]
    assert np.dtype(described, align=True) == RECORD  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "packed"), [("gruard_operator", program.OPERATOR), ("gruard_end", program.END)]
)
def test_a_struct_of_the_graph_has_the_layout_of_python(name: str, packed: struct.Struct) -> None:
    codes = {"uint32_t": "I", "int32_t": "i", "float": "f"}
    found = "".join(codes[kind] * count for _, kind, count in fields(PARTS, name, {}))
    grouped = re.sub(r"(\d+)(\w)", lambda run: run[2] * int(run[1]), packed.format)
    assert grouped == f"<{found}"


def test_no_other_number_hides_in_the_core() -> None:
    """A literal beyond halves and doubles belongs into constants.h, where it is compared."""
    plain = {0, 0.25, 0.5, 1, 2}
    for source in sorted(CORE.glob("*.c")):
        found = re.findall(r"\b(\d+(?:\.\d*)?(?:e[+-]?\d+)?)f\b", source.read_text())
        assert {float(number) for number in found} <= plain, source.name
