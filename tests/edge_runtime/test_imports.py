"""The device's room stands alone: no training, no conversion, no TensorFlow."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from no_workstation import HERE, WORKSTATION, only_the_device

import edge_runtime

ROOM = Path(edge_runtime.__file__).parent
FORBIDDEN = (*WORKSTATION, "firmware_harness", "tests")
# Packages that are imported where they are used alone; a device without them has all the rest.
EXTRAS = {
    "bundle/reader.py": "cryptography",
    "learning/settings.py": "yaml",
    "mqtt.py": "paho",
    "sinks/mqtt.py": "paho",
    "sources/mqtt.py": "paho",
    "sources/parquet.py": "pyarrow",
    "sources/serial_port.py": "serial",
    "updates/fetcher.py": "tuf",
    "updates/reporter.py": "paho",
    "updates/repository.py": "tuf",
}
# Imported by others where they use it.
NEEDS_ITS_EXTRA = ("mqtt.py", "parquet.py", "fetcher.py", "repository.py", "reporter.py")
SOURCES, TESTS = sorted(ROOM.rglob("*.py")), sorted(HERE.rglob("*.py"))

ALONE = f"""
import importlib
import sys
from pathlib import Path

FORBIDDEN = {(*FORBIDDEN, *EXTRAS.values())}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{{name}} is not on the device")

sys.meta_path.insert(0, Blocked())
bundle_path, *modules = sys.argv[1:]
for module in modules:
    importlib.import_module(module)

import numpy as np
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.record import Sample

detector = Detector(read_bundle(Path(bundle_path)))
detector.self_test()
for index in range(3):
    print(detector.step(Sample(index, None, np.full(3, 20, np.float32))).to_json())
assert not {{name.split(".")[0] for name in sys.modules}} & set(FORBIDDEN)
"""


def test_every_module_and_a_detector_work_without_the_workstation(tiny_bundle: Path) -> None:
    modules = [
        ".".join(source.relative_to(ROOM.parent).with_suffix("").parts)
        for source in SOURCES
        if not source.stem.startswith("__") and source.name not in NEEDS_ITS_EXTRA
    ]
    assert len(modules) >= 20
    found = subprocess.run(
        [sys.executable, "-c", ALONE, str(tiny_bundle), *modules],
        cwd=ROOM.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.count('"tier":3') == 3


def imported(source: str) -> set[str]:
    """Top-level packages that `source` imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOM)))
def test_no_source_of_the_device_imports_the_workstation(source: Path) -> None:
    extra = EXTRAS.get(str(source.relative_to(ROOM)), "numpy")
    allowed = {*sys.stdlib_module_names, "edge_runtime", "numpy", "click", extra}
    assert imported(source.read_text()) <= allowed


@pytest.mark.parametrize("test", TESTS, ids=lambda path: str(path.relative_to(HERE)))
def test_no_test_of_the_device_imports_the_workstation(test: Path) -> None:
    assert not imported(test.read_text()) & {*WORKSTATION}


def test_the_workstation_is_refused_where_only_the_device_is_tested(
    request: pytest.FixtureRequest,
) -> None:
    if not only_the_device(request.config):
        pytest.skip("tests of other folders run in this process")
    with pytest.raises(ModuleNotFoundError, match=r"needs train, which no device has"):
        importlib.import_module("train.cell_config")


def test_every_room_has_tests_in_a_folder_of_its_name() -> None:
    rooms = {folder.name for folder in ROOM.iterdir() if (folder / "__init__.py").exists()}
    assert rooms == {folder.parent.name for folder in HERE.glob("*/test_*.py")}


def test_an_import_inside_a_function_would_be_seen() -> None:
    assert imported("def f():\n    from train.cell import x\n    import keras.layers") == {
        "train", "keras"
    }  # fmt: skip
