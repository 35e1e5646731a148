"""`emit --for …`: each library is built as its own description says, and its example runs.

The examples run on the emulated Cortex-M4F. What they need of their ecosystem is in `edges`, as far
as they use it; the ecosystems' own tools are in test_ecosystem_tools.py.
"""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import yaml
from harness_command import harness, refused
from uart_sensor import check_sentence, running

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.record import Record, Sample
from firmware_harness import ecosystems, emission
from firmware_harness.boards import M4
from firmware_harness.packing import packed

EDGES = Path(__file__).parent / "edges"
BOARD = Path(ecosystems.__file__).parent / "firmware" / "ecosystems" / "cmake" / "example"
LINK = (
    "-specs=nano.specs", "-specs=nosys.specs", "-nostartfiles", "-Wl,--gc-sections",
    "-Wl,--no-warn-rwx-segments", "-T", str(BOARD / "board_an386.ld"),
)  # fmt: skip
WARN = ("-Os", "-Wall", "-Wextra", "-Werror")
TALK_EVERY = 100  # samples between two lines of an example without an alarm


def readings() -> np.ndarray:
    """Codes of an ADC, which are the units of the machine here; an alarm at the end."""
    found = np.round(tiny_model.machine_rows(220, seed=5))
    found[180:, 2] += 400
    return np.clip(found, 0, 4095)


def emitted(bundle: Path, name: str, out: Path) -> Path:
    emission.emit(packed(bundle), ecosystems.ALL[name], out, None)
    return out


def compiler(name: str, *words: str | Path, cpp: bool = False) -> None:
    """Compile for the emulated board, with every warning an error."""
    program = f"arm-none-eabi-{'g++' if cpp else 'gcc'}"
    done = subprocess.run(
        [program, *M4.flags, *WARN, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"


def edge_sources(folder: Path) -> list[Path]:
    """The edge in C, with the rows of `readings`."""
    rows = readings().astype(int)
    numbers = ", ".join(map(str, rows.ravel()))
    table = folder / "rows.c"
    table.write_text(
        f'#include "edge.h"\nconst int edge_rows[] = {{{numbers}}}, edge_row_count = {len(rows)};\n'
        f"const int edge_channels = {rows.shape[1]}, edge_period = 1000;\n"
    )
    return [table, EDGES / "edge.c", BOARD / "board_an386.c"]


def all_sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.c"))


def by_cmake(name: str, library: Path, scratch: Path) -> list[Path]:
    """The library that the emitted CMakeLists.txt builds."""
    settings = {
        "CMAKE_SYSTEM_NAME": "Generic", "CMAKE_C_COMPILER": "arm-none-eabi-gcc",
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY", "LIBRARY": library,
        "CMAKE_C_FLAGS": " ".join((*M4.flags, *WARN)),
    }  # fmt: skip
    words = [f"-D{key}={value}" for key, value in settings.items()]
    for command in (["-S", EDGES / name, "-B", scratch, *words], ["--build", scratch]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return [scratch / "library" / "libgruard.a"]


def by_compiler(sources: Sequence[Path], include: Path, scratch: Path, *flags: str) -> list[Path]:
    """Objects of a library whose description only lists files and options."""
    scratch.mkdir()
    for source in sources:
        out = scratch / f"{source.stem}.o"
        compiler(source.name, "-std=gnu11", *flags, f"-I{include}", "-c", source, "-o", out)
    return sorted(scratch.glob("*.o"))


def arduino(library: Path, scratch: Path) -> Path:
    src = library / "src"
    objects = by_compiler(all_sources(src), src, scratch / "objects")
    return sketch(library / "examples" / "Watch" / "Watch.ino", objects, src, scratch)


def platformio(library: Path, scratch: Path) -> Path:
    build = json.loads((library / "library.json").read_text())["build"]
    src = library / build["srcDir"]
    objects = by_compiler(all_sources(src), src, scratch / "objects", *build["flags"].split())
    return sketch(library / "examples" / "watch" / "src" / "main.cpp", objects, src, scratch)


def sketch(main: Path, objects: Sequence[Path], include: Path, scratch: Path) -> Path:
    """An Arduino program."""
    edge, parts = EDGES / "arduino", []
    for source in edge_sources(scratch):
        parts.append(scratch / f"edge-{source.stem}.o")
        compiler(source.name, f"-I{EDGES}", f"-I{BOARD}", "-c", source, "-o", parts[-1])
    words = ["-fno-exceptions", "-fno-rtti", f"-I{EDGES}", f"-I{edge}", f"-I{include}"]
    for source in (main, edge / "core.cpp"):
        parts.append(scratch / f"{source.stem}.o")
        compiler(main.name, *words, "-x", "c++", "-c", source, "-o", parts[-1], cpp=True)
    compiler(main.name, *parts, *objects, *LINK, "-lm", "-o", scratch / "example.elf")
    return scratch / "example.elf"


def c_example(
    name: str, sources: Sequence[Path], objects: Sequence[Path], scratch: Path, *flags: str
) -> Path:
    """An example in C with its edge."""
    edge = EDGES / name
    words = [f"-I{EDGES}", f"-I{edge}", f"-I{BOARD}", *flags]
    files = [*sources, edge / "core.c", *edge_sources(scratch), *objects]
    compiler(name, *words, *files, *LINK, "-lm", "-o", scratch / "example.elf")
    return scratch / "example.elf"


def esp_idf(library: Path, scratch: Path) -> Path:
    objects = by_cmake("esp-idf", library, scratch / "made")
    main = library / "examples" / "watch" / "main" / "main.c"
    flags = (f"-I{library / 'src'}", "-Dprintf=edge_print")
    return c_example("esp-idf", [main], objects, scratch, *flags)


def zephyr(library: Path, scratch: Path) -> Path:
    objects = by_cmake("zephyr", library, scratch / "made")
    example = scratch / "main.o"
    source = library / "samples" / "watch" / "src" / "main.c"
    words = ["-Dmain=example_main", f"-I{EDGES}", f"-I{EDGES / 'zephyr'}", f"-I{library / 'src'}"]
    compiler("zephyr", *words, "-c", source, "-o", example)
    return c_example("zephyr", [], [example, *objects], scratch)


def stm32(library: Path, scratch: Path) -> Path:
    objects = by_cmake("stm32", library, scratch / "made")
    include = library / "Middlewares" / "Third_Party" / "gruard"
    flags = (f"-I{library / 'Core' / 'Inc'}", f"-I{include}")
    main = library / "Core" / "Src" / "gruard_app.c"
    return c_example("stm32", [main], objects, scratch, *flags)


BUILDS = {
    "arduino": arduino, "platformio": platformio, "esp-idf": esp_idf, "zephyr": zephyr,
    "stm32": stm32,
}  # fmt: skip


def records_of(bundle: Path) -> list[Record]:
    detector = Detector(read_bundle(bundle))
    rows = readings().astype(np.float32)
    return [detector.step(Sample(i, None, row)) for i, row in enumerate(rows)]


def check_example(image: Path, bundle: Path) -> None:
    """Fail unless the example says what the runtime's records say, up to the last row."""
    records = records_of(bundle)
    told = [record for record in records if record.alarm or record.index % TALK_EVERY == 0]
    assert len([record for record in told if record.alarm]) > 10
    with running(image) as sensor:
        assert sensor.words() == "watching"
        for record in told:
            check_sentence(sensor.words(), record)
        assert sensor.words() == "end"


@pytest.mark.parametrize(
    "name",
    ["arduino", *(pytest.param(n, marks=pytest.mark.firmware) for n in BUILDS if n != "arduino")],
)
def test_the_example_watches_and_says_the_alarm(
    tiny_bundle: Path, cross_tools: None, tmp_path: Path, name: str
) -> None:
    library = emitted(tiny_bundle, name, tmp_path / "library")
    check_example(BUILDS[name](library, tmp_path), tiny_bundle)


@pytest.mark.firmware
def test_a_pack_lists_what_the_example_needs(
    tiny_bundle: Path, cross_tools: None, tmp_path: Path
) -> None:
    library = emitted(tiny_bundle, "cmsis-pack", tmp_path / "library")
    listed = pack_files(library)
    sources = [library / name for kind, name in listed if kind == "sourceC"]
    (include,) = [library / name for kind, name in listed if kind == "include"]
    objects = by_compiler(
        [s for s in sources if s.parent.name != "example"], include, tmp_path / "o"
    )
    image = tmp_path / "example.elf"
    main = [s for s in sources if s.parent.name == "example"]
    words = [f"-I{include}", f"-I{library / 'example'}", *main, BOARD / "board_an386.c", *objects]
    compiler("cmsis-pack", *words, *LINK, "-lm", "-o", image)
    records = records_of(tiny_bundle)[:3]
    with running(image) as sensor:
        for row, record in zip(readings(), records, strict=False):
            answer = sensor.ask(",".join(f"{value * 1000:.0f}" for value in row))
            check_sentence(answer.split(" ", 3)[3], record)


@pytest.mark.firmware
@pytest.mark.parametrize(
    ("program", "package", "options"),
    [
        ("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf", "-march=rv32imc -mabi=ilp32"),
        ("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf", "-march=rv32imafc -mabi=ilp32f"),
        ("xtensa-lx106-elf-gcc", "gcc-xtensa-lx106", "-ffreestanding"),
    ],
)
def test_other_processors_compile_it(
    tiny_bundle: Path, tmp_path: Path, program: str, package: str, options: str
) -> None:
    headers = Path("/usr/lib/picolibc/riscv64-unknown-elf/include")
    if shutil.which(program) is None or not headers.exists():
        pytest.skip(f"NOT TESTED: apt install {package} picolibc-riscv64-unknown-elf")
    src = emitted(tiny_bundle, "esp-idf", tmp_path / "library") / "src"
    words = [program, *WARN, *options.split(), "-std=gnu17", *emission.EXACT, "-isystem", headers]
    command = [*words, f"-I{src}", "-c", *all_sources(src)]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# What the ecosystems' own checks of a description require, as far as it is written down.


def pack_files(library: Path) -> list[tuple[str, str]]:
    (file,) = library.glob("*.pdsc")
    root = ElementTree.parse(file).getroot()
    return [(each.attrib["category"], each.attrib["name"]) for each in root.iter("file")]


def test_the_command_says_what_to_read_next(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "library"
    done = harness("emit", tiny_bundle, "--for", "zephyr", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"written: {out}\nnext: {out / 'README.md'}\n"
    assert (out / "zephyr" / "module.yml").is_file()
    refused(harness("emit", tiny_bundle, "--for", "arduino", "--out", out), "--force")


@pytest.mark.parametrize("name", ecosystems.ALL)
def test_nothing_is_left_to_fill_in(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    library = emitted(tiny_bundle, name, tmp_path / "library")
    for path in library.rglob("*"):
        if path.is_file():
            left = re.findall(r"@[a-z]+@", str(path.relative_to(library)) + path.read_text())
            assert not left, path
    assert (library / "LICENSE").is_file() and (library / "README.md").is_file()
    assert "set_point\nflow\nheat\n" in (library / "README.md").read_text()


def test_an_arduino_library_keeps_the_rules_of_arduino_lint(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    library = emitted(tiny_bundle, "arduino", tmp_path / "library")
    lines = (library / "library.properties").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert all(value.strip() == value != "" for value in found.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,62}", found["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["version"])
    assert not re.search("arduino", found["maintainer"] + found["name"], re.IGNORECASE)
    assert found["paragraph"] not in found["sentence"] not in found["paragraph"]
    assert found["category"] == "Data Processing" and found["url"].startswith("https://")
    assert all((library / "src" / header).is_file() for header in found["includes"].split(","))
    (example,) = library.glob("examples/*/*.ino")
    assert example.stem == example.parent.name


def test_descriptions_name_files_that_exist(tiny_bundle: Path, tmp_path: Path) -> None:
    described = json.loads(
        (emitted(tiny_bundle, "platformio", tmp_path / "p") / "library.json").read_text()
    )
    assert all((tmp_path / "p" / "src" / header).is_file() for header in described["headers"])
    (example,) = described["examples"]
    assert all((tmp_path / "p" / example["base"] / name).is_file() for name in example["files"])
    module = yaml.safe_load(
        (emitted(tiny_bundle, "zephyr", tmp_path / "z") / "zephyr" / "module.yml").read_text()
    )
    assert (tmp_path / "z" / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (tmp_path / "z" / module["build"]["kconfig"]).is_file()
    component = yaml.safe_load(
        (emitted(tiny_bundle, "esp-idf", tmp_path / "e") / "idf_component.yml").read_text()
    )
    assert component["version"] == "1.0.0" and component["license"] == "Apache-2.0"


def test_a_pack_is_consistent(tiny_bundle: Path, tmp_path: Path) -> None:
    library = emitted(tiny_bundle, "cmsis-pack", tmp_path / "library")
    (file,) = library.glob("*.pdsc")
    root = ElementTree.parse(file).getroot()
    vendor, name = root.findtext("vendor"), root.findtext("name")
    assert file.name == f"{vendor}.{name}.pdsc"
    listed = pack_files(library)
    assert all((library / path).exists() for _, path in listed)
    compiled = {path for kind, path in listed if kind == "sourceC"}
    there = {str(path.relative_to(library)) for path in library.rglob("*.c")}
    assert compiled == there
    conditions = {each.attrib["id"] for each in root.iter("condition")}
    assert {each.attrib["condition"] for each in root.iter("component")} == conditions
    versions = {each.attrib["version"] for each in root.iter("release")}
    assert {each.attrib["Cversion"] for each in root.iter("component")} == versions


def test_pragmas_and_flags_are_the_same_options() -> None:
    text = emission.OPTIONS.read_text()
    (listed,) = re.findall(r"#pragma GCC optimize\((.*)\)", text)
    assert [f"-f{option}" for option in re.findall('"([^"]+)"', listed)] == list(emission.EXACT)


def test_a_hostile_name_becomes_a_plain_one() -> None:
    assert emission.plain_name("Pump 7/α */ #include <x>") == "pump-7-include-x"
    assert emission.plain_name("…") == "bundle"
    assert len(emission.plain_name("a" * 500)) == 40


def test_a_board_chooses_the_kernel_of_every_ecosystem(tiny_bundle: Path, tmp_path: Path) -> None:
    for name, ecosystem in ecosystems.ALL.items():
        emission.emit(packed(tiny_bundle, M4), ecosystem, tmp_path / name, M4)
        kernels = {path.name for path in (tmp_path / name).rglob("kernel_*.c")}
        assert kernels == {"kernel_dsp.c"}
