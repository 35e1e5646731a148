"""The bars of the house hold, and each of them can be missed."""

from pathlib import Path

import house
import pytest

from tests.golden_bundles import TINY


@pytest.mark.parametrize("bar", house.bars(), ids=lambda bar: bar.what)
def test_a_bar_holds(bar: house.Bar) -> None:
    assert bar.passed, str(bar)


def test_few_files_work_on_a_sample() -> None:
    way = house.sample_way(TINY, house.RECORDING)
    assert {"sources/csvcell.py", "detector/step.py", "sinks/sink.py"} <= set(way)
    assert len(way) <= house.MOST_CROSSED, way


def tree(root: Path, **files: str) -> dict[str, house.Module]:
    """The modules of a tree with these files in `edge_runtime`."""
    for name, text in files.items():
        path = root / "edge_runtime" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return house.read_modules(root)


def test_a_circle_is_found_wherever_an_import_hides(tmp_path: Path) -> None:
    modules = tree(
        tmp_path,
        a="import edge_runtime.b\n",
        b="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from edge_runtime.c import C\n",
        c="def f():\n    from edge_runtime import a\n",
        d="from edge_runtime.a import x\n",
    )
    assert list(house.import_circles(modules)) == [
        [f"edge_runtime.{name}" for name in ("a", "b", "c", "a")]
    ]


def test_public_classes_of_one_name_are_found(tmp_path: Path) -> None:
    modules = tree(tmp_path, a="class C: ...\nclass _D: ...\n", b="class C: ...\nclass _D: ...\n")
    assert house.repeated_classes(modules) == ("C: edge_runtime.a, edge_runtime.b",)


def test_a_small_file_with_one_user_is_found(tmp_path: Path) -> None:
    long = "x = 1\n" * house.SMALL
    modules = tree(
        tmp_path,
        one="", two="", long=long,
        a="from edge_runtime import long, one, two\n", b="import edge_runtime.two\n",
    )  # fmt: skip
    assert house.small_files(modules) == ("edge_runtime.one: 0 lines",)
