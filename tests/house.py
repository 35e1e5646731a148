"""What makes a tree hard to enter, counted beside its bars: `python -m tests.house`.

Counted are files and lines, imports in circles, two classes of one name, files too small to be
looked for, and how many files one sample goes through.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("edge_runtime", "train", "convert", "firmware_harness", "fleet", "benchmarks")
LEARNING = "edge_runtime.learning"
SMALL = 40
"""Lines below which a file with a single user belongs into that user."""


MOST_CROSSED = 30
RECORDING = "set_point,flow,heat\n" + "50,20,300\n" * 12


@dataclass(frozen=True)
class Bar:
    """One count and what it may be at most; `found` names what was counted, as far as it helps."""

    what: str
    count: int
    most: int
    found: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the bar holds."""
        return self.count <= self.most

    def __str__(self) -> str:
        mark = "ok" if self.passed else "TOO MANY"
        lines = [f"{mark:>8} {self.count:>6} of {self.most:>6}  {self.what}"]
        return "\n".join(lines + ([] if self.passed else [f"{'':10}{each}" for each in self.found]))


def bars(root: Path = ROOT) -> list[Bar]:
    """The bars that the sources alone decide."""
    modules = read_modules(root)
    learning = [module for name, module in modules.items() if name.startswith(LEARNING)]
    device = [
        module
        for name, module in modules.items()
        if name.split(".")[0] == "edge_runtime" and not name.startswith(LEARNING)
    ]
    circles = list(import_circles(modules))
    names, small = repeated_classes(modules), small_files(modules)
    return [
        Bar("files of edge_runtime but learning", len(device), 153),
        Bar("lines of edge_runtime but learning", sum(each.lines for each in device), 31420),
        Bar("files of edge_runtime/learning", len(learning), 41),
        Bar("lines of edge_runtime/learning", sum(each.lines for each in learning), 6190),
        Bar("circles of imports", len(circles), 0, tuple(" -> ".join(each) for each in circles)),
        Bar("public classes that share a name", len(names), 0, names),
        Bar(f"files under {SMALL} lines with one user", len(small), 0, small),
        Bar("files on the way of a threshold", len(way := threshold_way(root)), 12, way),
    ]


@dataclass(frozen=True)
class Module:
    """One file: its name with dots, its lines, what of the house it imports, its public classes.

    Imports inside functions and behind TYPE_CHECKING count like any other.
    """

    lines: int
    imports: frozenset[str]
    classes: tuple[str, ...]
    package: bool


def read_modules(root: Path) -> dict[str, Module]:
    """All modules of the rooms below `root`, by name."""
    files = {_module_name(file, root): file for room in ROOMS for file in _sources(root / room)}
    return {name: _read(file, files) for name, file in files.items()}


def import_circles(modules: Mapping[str, Module]) -> Iterator[list[str]]:
    """One circle for each module that can reach itself and none that was told before."""
    told: set[str] = set()
    for name in sorted(modules):
        circle = _way_back(name, modules)
        if circle and not told.intersection(circle):
            told.update(circle)
            yield circle


def repeated_classes(modules: Mapping[str, Module]) -> tuple[str, ...]:
    """Names that more than one public class has, with where they are."""
    places = defaultdict(list)
    for name, module in modules.items():
        for each in module.classes:
            places[each].append(name)
    return tuple(f"{each}: {', '.join(of)}" for each, of in sorted(places.items()) if len(of) > 1)


def small_files(modules: Mapping[str, Module]) -> tuple[str, ...]:
    """Modules below `SMALL` lines that one other module alone imports."""
    users = Counter(imported for module in modules.values() for imported in module.imports)
    return tuple(
        f"{name}: {module.lines} lines"
        for name, module in sorted(modules.items())
        if module.lines < SMALL and users[name] == 1 and not module.package
    )


def threshold_way(root: Path) -> tuple[str, ...]:
    """The files that ARCHITECTURE.md names from false alarms a day to the alarm."""
    page = (root / "ARCHITECTURE.md").read_text()
    section = page.split("## From a number of false alarms to a threshold\n")[1].split("\n## ")[0]
    return tuple(sorted(set(re.findall(r"`(\w[\w/]*\.(?:py|c))`", section))))


def sample_way(bundle: Path, recording: str) -> tuple[str, ...]:
    """The files of edge_runtime that a sample of `gruard run` passes, in supervisor and worker.

    recording: a CSV file's text. Counted as they run, from the reading to the written record, with
    the detector in Python: a reader of the core reads C.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "sitecustomize.py").write_text(_TRACER)
        (place / "recording.csv").write_text(recording)
        command = [sys.executable, "-m", "edge_runtime", "run", str(bundle), "--allow-failed"]
        command += ["--source", "recording.csv", "--sink", "records.jsonl"]
        command += ["--kernel", "tflite-builtin"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((folder, str(ROOT))), "FILES": str(place / "files"),
        }  # fmt: skip
        subprocess.run(command, check=True, env=environment, cwd=folder, capture_output=True)
        seen = [json.loads(file.read_text()) for file in place.glob("files-*")]
    assert len(seen) == 2, "supervisor and worker should both have been traced"
    return tuple(sorted({name for names in seen for name in names}))


def main() -> int:
    """Print all bars; the exit code is 1 where one is missed."""
    from tests.golden_bundles import TINY

    way = sample_way(TINY, RECORDING)
    found = [*bars(), Bar("files on the way of a sample", len(way), MOST_CROSSED, way)]
    print(*found, sep="\n")
    return 0 if all(bar.passed for bar in found) else 1


# Runs in both processes, for the samples 5 to 8: from where one is read to where its record is
# written, or answered.
_TRACER = """
import json, os, sys, threading

BEGIN = {("sources/sample_clock.py", "timeout"), ("supervision/worker.py", "after_step")}
END = {("sinks", "write")}
samples, on, files = 0, False, set()

def follow(frame, event, argument):
    global samples, on
    code = frame.f_code
    if event not in ("call", "return") or "/edge_runtime/" not in code.co_filename:
        return
    name = code.co_filename.rsplit("/edge_runtime/", 1)[1]
    if event == "call" and (name, code.co_name) in BEGIN:
        samples, on = samples + 1, True
        if samples == 9:
            with open(f"{os.environ['FILES']}-{os.getpid()}", "w") as file:
                json.dump(sorted(files), file)
    if on and 5 <= samples < 9:
        files.add(name)
    if event == "return" and (name.split("/")[0], code.co_name) in END:
        on = False

sys.setprofile(follow)
threading.setprofile(follow)
"""


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _module_name(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _read(file: Path, files: Mapping[str, Path]) -> Module:
    text = file.read_text()
    tree = ast.parse(text)
    imports = {name for node in ast.walk(tree) for name in _imported(node, files)}
    classes = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
    return Module(
        lines=len(text.splitlines()),
        imports=frozenset(imports),
        classes=tuple(classes),
        package=file.name in ("__init__.py", "__main__.py"),
    )


def _imported(node: ast.AST, files: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        for each in node.names:
            inner = f"{node.module}.{each.name}"
            if found := inner if inner in files else node.module if node.module in files else None:
                yield found
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names if each.name in files)


def _way_back(name: str, modules: Mapping[str, Module]) -> list[str]:
    """The shortest way from `name` to itself along imports; empty where there is none."""
    ways = [[name]]
    seen: set[str] = set()
    for way in ways:
        for following in sorted(modules[way[-1]].imports):
            if following == name:
                return [*way, name]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


if __name__ == "__main__":
    sys.exit(main())
