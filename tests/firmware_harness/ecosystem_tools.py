"""The ecosystems' own tools that PyPI has, in a venv of their own.

    python -m tests.firmware_harness.ecosystem_tools

They are kept apart because they pin libraries that gruard uses, too. `make test-firmware` makes the
venv first. Without it, the tests that need a tool are skipped and say so.
"""

import subprocess
import sys
from pathlib import Path

import pytest

VENV = Path(__file__).resolve().parents[2] / "build" / "ecosystem-tools"
PINNED = (
    "platformio==6.2.0",
    "scons==4.11.1",  # what PlatformIO 6.2 downloads as tool-scons from its own registry
    "idf-component-manager==3.1.2",
    "kconfiglib==14.1.0",
)


def tool(name: str) -> Path:
    """The program `name` of the venv; skips the test where it is not installed."""
    path = VENV / "bin" / name
    if not path.exists():
        pytest.skip(
            f"NOT TESTED: {name} is missing; python -m tests.firmware_harness.ecosystem_tools"
        )
    return path


def main() -> None:
    """Make the venv, unless it has these versions already."""
    marker, pinned = VENV / "pinned", "\n".join(PINNED)
    if marker.exists() and marker.read_text() == pinned:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    subprocess.run([VENV / "bin" / "pip", "install", "--quiet", *PINNED], check=True)
    marker.write_text(pinned)


if __name__ == "__main__":
    main()
