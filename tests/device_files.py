"""What a device gets for a test: this checkout's runtime, and a reader of the tiny machine."""

import shutil
from pathlib import Path

import tiny_model

import edge_runtime


def install(folder: Path) -> None:
    """Put edge_runtime, reader.py and the rows that it prints into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(edge_runtime.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, folder / source.name, ignore=ignored)
    shutil.copy(Path(__file__).with_name("live_reader.py"), folder / "reader.py")
    rows = tiny_model.machine_rows(300, seed=3)
    lines = [",".join(tiny_model.CHANNELS), *(",".join(map(str, row)) for row in rows)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
