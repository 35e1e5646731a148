"""The ecosystems' own tools, as far as Debian and PyPI have them, over what `emit --for …` wrote.

Arduino's and PlatformIO's build for the emulated board, where the example then runs; their
platforms for it are in `edges`.
"""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from ecosystem_tools import VENV, tool
from test_ecosystems import BOARD, EDGES, check_example, edge_sources, emitted

pytestmark = pytest.mark.firmware


def ran(*words: str | Path, **options) -> str:  # type: ignore[no-untyped-def]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def core(folder: Path) -> Path:
    """The Arduino core of the emulated board, in `folder`."""
    shutil.copytree(EDGES / "arduino", folder, dirs_exist_ok=True)
    header = EDGES / "edge.h"
    for path in (*edge_sources(folder.parent), header, BOARD / "board.h", BOARD / "board_an386.ld"):
        shutil.copy(path, folder)
    return folder


def test_arduino_builder_builds_the_sketch_with_the_library(
    tiny_bundle: Path, cross_tools: None, tmp_path: Path
) -> None:
    for program in ("arduino-builder", "arduino-ctags"):
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED: apt install {program}")
    platform = tmp_path / "hardware" / "edge" / "m4"
    core(platform / "cores" / "edge")
    for name in ("boards.txt", "platform.txt"):
        (platform / "cores" / "edge" / name).rename(platform / name)
    library = emitted(tiny_bundle, "arduino", tmp_path / "libraries" / "gruard-tiny")
    out = tmp_path / "build"
    for folder in (tmp_path / "tools", out):
        folder.mkdir()
    places = ["-hardware", tmp_path / "hardware", "-tools", tmp_path / "tools"]
    places += ["-libraries", tmp_path / "libraries", "-build-path", out]
    sketch = library / "examples" / "Watch" / "Watch.ino"
    said = ran("arduino-builder", "-compile", *places, "-fqbn", "edge:m4:an386", "-verbose", sketch)
    assert "gruard-tiny" in said and "1.0.0" in said
    check_example(out / "Watch.ino.elf", tiny_bundle)


VERSIONS = """
import SCons
from platformio.dependencies import get_core_dependencies
print(SCons.__version__, get_core_dependencies()["tool-scons"])
"""


@pytest.fixture
def pio(tmp_path: Path) -> dict[str, str]:
    """The environment of PlatformIO: PyPI's SCons in place of the download from its registry."""
    tool("pio")
    version, wanted = ran(VENV / "bin" / "python", "-c", VERSIONS).split()
    major, minor, patch = map(int, version.split("."))
    number = f"{major}.{major}{minor:02d}{patch:02d}.0"
    assert wanted == f"~{number}", f"pin the SCons that is {wanted}"
    folder = tmp_path / "pio" / "packages" / "tool-scons"
    folder.mkdir(parents=True)
    spec = {"owner": "platformio", "id": None, "name": "tool-scons", "requirements": None}
    facts = {"type": "tool", "name": "tool-scons", "version": number, "spec": {**spec, "uri": None}}
    (folder / ".piopm").write_text(json.dumps(facts))
    (folder / "package.json").write_text(json.dumps({"name": "tool-scons", "version": number}))
    (folder / "scons.py").write_text("from SCons.Script import main\nmain()\n")
    settings = {"CORE_DIR": str(tmp_path / "pio"), "SETTING_ENABLE_TELEMETRY": "no"}
    return os.environ | {f"PLATFORMIO_{name}": value for name, value in settings.items()}


def test_platformio_builds_the_example_with_the_library(
    tiny_bundle: Path, cross_tools: None, tmp_path: Path, pio: dict[str, str]
) -> None:
    library = emitted(tiny_bundle, "platformio", tmp_path / "library")
    edge = core(library / "examples" / "watch" / "src")  # next to the example
    given = (library / "examples" / "watch" / "platformio.ini").read_text()
    dependency = next(line for line in given.splitlines() if line.startswith("lib_deps"))
    (tmp_path / "platformio.ini").write_text(
        f"[platformio]\nsrc_dir = library/examples/watch/src\n[env:an386]\nboard = an386\n"
        f"platform = {EDGES / 'platformio'}\n{dependency.replace('../..', 'library')}\n"
        f"build_flags = -Wl,-T{edge / 'board_an386.ld'}\n"
    )
    said = ran(tool("pio"), "run", "-v", cwd=tmp_path, env=pio)
    compiled = [
        line for line in said.splitlines() if "-c" in line.split() and "core/score.c" in line
    ]
    assert compiled and all("-ffp-contract=off" in line for line in compiled)
    check_example(tmp_path / ".pio" / "build" / "an386" / "firmware.elf", tiny_bundle)


def test_platformio_packs_the_library(
    tiny_bundle: Path, tmp_path: Path, pio: dict[str, str]
) -> None:
    library = emitted(tiny_bundle, "platformio", tmp_path / "library")
    file = library / "library.json"
    manifest = json.loads(file.read_text())
    del manifest["license"]  # it is looked up in a list that PlatformIO downloads
    file.write_text(json.dumps(manifest))
    ran(tool("pio"), "pkg", "pack", "-o", tmp_path / "library.tar.gz", library, env=pio)
    with tarfile.open(tmp_path / "library.tar.gz") as archive:
        assert "src/core/score.c" in {name.removeprefix("./") for name in archive.getnames()}
    file.write_text(json.dumps({**manifest, "version": "first"}))
    command = [tool("pio"), "pkg", "pack", "-o", tmp_path / "spoiled.tar.gz", library]
    assert subprocess.run(command, capture_output=True, env=pio).returncode != 0


def test_the_component_manager_packs_the_component(tiny_bundle: Path, tmp_path: Path) -> None:
    library = emitted(tiny_bundle, "esp-idf", tmp_path / "library")
    pack = ["component", "pack", "--name", "gruard-tiny", "--dest-dir", tmp_path / "packed"]
    ran(tool("compote"), *pack, cwd=library)
    with tarfile.open(tmp_path / "packed" / "gruard-tiny_1.0.0.tgz") as archive:
        assert "src/core/score.c" in {name.removeprefix("./") for name in archive.getnames()}
    file = library / "idf_component.yml"
    file.write_text(file.read_text().replace('idf: ">=5.2"', 'idf: "five"'))
    command = [tool("compote"), *pack]
    assert subprocess.run(command, cwd=library, capture_output=True).returncode != 0


KCONFIG = """
import sys
from kconfiglib import Kconfig
tree = Kconfig(sys.argv[1])
tree.load_config(sys.argv[2])
print(tree.syms["GRUARD"].str_value, tree.syms["FPU"].str_value, len(tree.warnings))
"""


@pytest.mark.parametrize(("unit", "said"), [("y", "y y 0"), ("n", "y n 0")])
def test_kconfig_reads_the_module(tiny_bundle: Path, tmp_path: Path, unit: str, said: str) -> None:
    library = emitted(tiny_bundle, "zephyr", tmp_path / "library")
    tree = tmp_path / "Kconfig"
    tree.write_text(
        f"config CPU_HAS_FPU\n\tdef_bool {unit}\n"
        "config FPU\n\tbool 'fpu'\n\tdepends on CPU_HAS_FPU\n"
        "config ADC\n\tbool 'adc'\nconfig MAIN_STACK_SIZE\n\tint 'stack'\n"
        f"source '{library / 'zephyr' / 'Kconfig'}'\n"
    )
    tool("genconfig")
    words = ["-c", KCONFIG, tree, library / "samples" / "watch" / "prj.conf"]
    assert ran(VENV / "bin" / "python", *words).strip() == said


def test_the_devicetree_compiler_reads_the_overlay(tiny_bundle: Path, tmp_path: Path) -> None:
    if shutil.which("dtc") is None:
        pytest.skip("NOT TESTED: apt install device-tree-compiler")
    library = emitted(tiny_bundle, "zephyr", tmp_path / "library")
    overlay = library / "samples" / "watch" / "boards" / "native_sim.overlay"
    tree = tmp_path / "tree.dts"
    tree.write_text("/dts-v1/;\n" + overlay.read_text())
    said = ran("dtc", "-I", "dts", "-O", "dts", tree)
    assert said.count("channel@") == 3
