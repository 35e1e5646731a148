"""Bundles and networks that device tests read, made beforehand: python -m tests.golden_bundles

Tests of the device need no TensorFlow, because what a conversion makes is stored: a bundle of each
kind of `tiny_model`, the int8 graphs of networks of other shapes, and a fitted diagnosis. Make them
again when tests/convert/test_golden_bundles.py says that a conversion now makes them otherwise, and
commit them. Bundles of earlier versions are in tests/data/formats; those are never made again.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "data" / "golden"
TINY, LINEAR = FOLDER / "tiny-1.gruard", FOLDER / "straight-1.gruard"
NETWORKS, DIAGNOSIS = FOLDER / "networks", FOLDER / "diagnosis.json"
# Arguments of train's CellConfig, by the name of the file.
SIZES: dict[str, dict[str, int]] = {
    "gate-alone": {"channels": 3, "gru_layers": 0, "gate_units": 8},
    "gru-alone": {"channels": 3, "gate_layers": 0, "gru_units": 8},
    "one-channel": {"channels": 1, "gru_units": 8},
    "forty-channels": {"channels": 40, "gru_units": 16, "gate_layers": 2},
    "three-layers": {
        "channels": 5, "gru_layers": 3, "gru_units": 24, "gate_layers": 3, "gate_units": 16,
        "head_layers": 2,
    },
    "gate-beyond-1": {"channels": 4, "gru_units": 8, "gate_layers": 1, "gate_units": 8},
}  # fmt: skip


def network_file(name: str) -> Path:
    """The stored graph of SIZES[name]."""
    return NETWORKS / f"{name}.tflite"


def _write_bundles(folder: Path) -> None:
    import tiny_model

    from tests.apparatus.harm import replace_member

    with tempfile.TemporaryDirectory() as scratch:
        gated, linear = Path(scratch) / "gated", Path(scratch) / "linear"
        tiny_model.write_run(gated)
        tiny_model.write_linear_run(linear)
        made = [tiny_model.write_bundle(gated, folder)]
        tiny_model.judge_briefly()
        made.append(tiny_model.write_linear_bundle(linear, folder))
    for bundle in made:
        # The pictures are most of the bytes, and no device reads them.
        page = f"<!doctype html><title>{bundle.stem}</title><p>Pictures left out.</p>\n"
        replace_member(bundle, "report.html", page.encode())


def _write_networks(folder: Path) -> None:
    from tests.convert.made_steps import network
    from train.cell_config import CellConfig

    folder.mkdir()
    for name, sizes in SIZES.items():
        (folder / f"{name}.tflite").write_bytes(network(CellConfig(**sizes)))


def diagnosis_text() -> str:
    """What `made_diagnosis` fits, as a manifest has it."""
    import made_diagnosis

    from edge_runtime.learning.diagnosis.section import section

    return json.dumps(asdict(section(made_diagnosis.fitted_constants()))) + "\n"


def main() -> None:
    """Replace all that is stored, once all of it is made."""
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        made = Path(scratch) / FOLDER.name
        made.mkdir()
        _write_bundles(made)
        _write_networks(made / NETWORKS.name)
        (made / DIAGNOSIS.name).write_text(diagnosis_text())
        shutil.rmtree(FOLDER, ignore_errors=True)
        made.rename(FOLDER)
    for file in sorted(FOLDER.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size:7} {file.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main()
