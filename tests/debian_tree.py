"""Folders with a Debian in them, and a device's wheel beside: made once each, below build/."""

import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE = "bookworm"


@dataclass(frozen=True)
class Tree:
    """What is in the folder `path`; another recipe makes it anew.

    architecture, variant, packages: in the words of mmdebstrap. wheel: pip's platform for the
    TFLite interpreter, which lies in `path`/wheels afterwards.
    """

    path: Path
    architecture: str
    packages: str
    wheel: str
    variant: str = "extract"

    @property
    def recipe(self) -> str:
        """What the tree is made of."""
        parts = (SUITE, self.variant, self.architecture, self.packages, self.wheel, _interpreter())
        return "\n".join(parts) + "\n"


def require_tools(purpose: str, tools: Mapping[str, str]) -> None:
    """Raise RuntimeError naming the Debian packages of the `tools` (program: package) not here."""
    missing = sorted({package for tool, package in tools.items() if not shutil.which(tool)})
    if missing:
        raise RuntimeError(
            f"{purpose} is tested with tools that are not installed: "
            f"apt-get install {' '.join(missing)}"
        )


def ready(tree: Tree) -> None:
    """Make the tree unless it is there. RuntimeError says what failed."""
    stamp = tree.path / "gruard-recipe"
    if stamp.is_file() and stamp.read_text() == tree.recipe:
        return
    started = time.monotonic()
    shutil.rmtree(tree.path, ignore_errors=True)
    tree.path.parent.mkdir(parents=True, exist_ok=True)
    say(f"{tree.path.name}: downloading Debian {SUITE} ({tree.packages}) for {tree.architecture}")
    call(
        ["mmdebstrap", "--quiet", f"--variant={tree.variant}", f"--include={tree.packages}",
         f"--architectures={tree.architecture}", SUITE, str(tree.path), *_mirror()],
        tree.path.name,
    )  # fmt: skip
    say(f"{tree.path.name}: downloading {_interpreter()} for {tree.wheel} with pip")
    with tempfile.TemporaryDirectory() as folder:
        call(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet",
             "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--platform",
             tree.wheel, "--dest", folder, _interpreter()],
            tree.path.name,
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree.path / "wheels")
    stamp.write_text(tree.recipe)
    say(f"{tree.path.name}: ready in {tree.path} after {time.monotonic() - started:.0f} s")


def call(command: Sequence[str], purpose: str) -> str:
    """Run `command`; its output. RuntimeError with its last words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-8:]
        raise RuntimeError(f"{purpose}: {command[0]} failed:\n" + "\n".join(last))
    return done.stdout


def say(sentence: str) -> None:
    """Tell whoever waits."""
    print(sentence, flush=True)


def _mirror() -> list[str]:
    """Where this machine's own apt gets the suite from; elsewhere mmdebstrap knows one itself."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {SUITE}"]
    told = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return told[:1]


def _interpreter() -> str:
    """The pinned TFLite interpreter, the same as on the workstation."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (pinned,) = (line for line in lines if line.startswith("tflite-runtime=="))
    return pinned
